"""Errors that depend on private rows: one constant message outside, the details in a log of the private zone."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from dp_assets.privacy.errors import PublicError
from resources.private.private_output import output_kept_inside
from resources.public_failure import PublicFailure

CONSTANT_MESSAGE = (
    "A step that reads private rows failed. What it says may depend on them, so it is written to the private log"
    " (private/log/errors.log in the data folder) and not here. The owner reads it there; `dp-instructions corpus"
    " preview` shows them what is read of the corpus."
)
INTERRUPTS: tuple[type[BaseException], ...] = (KeyboardInterrupt, GeneratorExit, dg.DagsterExecutionInterruptedError)


class PrivateStepFailed(PublicFailure):
    """The one message for every failure that may depend on private rows."""

    def __init__(self) -> None:
        super().__init__(CONSTANT_MESSAGE)


@contextmanager
def private_errors(private_root: str) -> Iterator[None]:
    """Replace any exception but a `PublicError` by the constant message.

    What passes does so without notes, cause and context, and an interrupt without arguments. Everything else is caught,
    since some libraries raise what is no `Exception` (a panic of Polars). What is printed, logged or warned of
    meanwhile goes to the private log too.
    """
    with output_kept_inside(Path(private_root)):
        try:
            yield
        except BaseException as error:
            outward = _outward(error)
            try:
                raise outward from None
            finally:
                outward.__context__ = None  # `from None` only hides it from tracebacks; code could still follow it.


def _outward(error: BaseException) -> BaseException:
    """What may be seen outside of an error; the rest of it is logged."""
    for interrupt in INTERRUPTS:
        if isinstance(error, interrupt):
            return interrupt()
    if not isinstance(error, PublicError):
        _log(error)
        return PrivateStepFailed()
    if hasattr(error, "__notes__") or error.__cause__ is not None or error.__context__ is not None:
        _log(error)
        vars(error).pop("__notes__", None)
    return error


def _log(error: BaseException) -> None:
    """Print to the redirected standard error. No failure of this may put the error back into the chain."""
    with suppress(Exception):
        print(datetime.now(UTC).isoformat(timespec="seconds"), file=sys.stderr)
        traceback.print_exception(error, file=sys.stderr)
