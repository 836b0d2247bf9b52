"""Errors that depend on private rows: one constant message outside, the details in a log of the private zone."""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from resources.zones import PRIVATE_FILE_MODE, private_folder

CONSTANT_MESSAGE = (
    "A step that reads private rows failed. What it says may depend on them, so it is written to the private log"
    " (private/log/errors.log) and not here."
)


class PrivateStepFailed(dg.Failure):
    """The one message for every failure that may depend on private rows."""

    def __init__(self) -> None:
        super().__init__(description=CONSTANT_MESSAGE, allow_retries=False)


@contextmanager
def private_errors(private_root: str, *public: type[Exception]) -> Iterator[None]:
    """Replace any exception but Dagster's failures and those known to be `public` by the constant message.

    Warnings go to the private log too. Interrupts pass. Everything else is caught, since some libraries raise what is
    no `Exception` (a panic of Polars).
    """
    passing: tuple[type[BaseException], ...] = (
        dg.Failure,
        KeyboardInterrupt,
        SystemExit,
        GeneratorExit,
        dg.DagsterExecutionInterruptedError,
        *public,
    )
    try:
        with warnings.catch_warnings(record=True) as caught:
            try:
                yield
            finally:
                _write(
                    Path(private_root),
                    "".join(f"{warning.category.__name__}: {warning.message}\n" for warning in caught),
                )
    except passing:
        raise
    except BaseException:
        _write(Path(private_root), traceback.format_exc())
        failure = PrivateStepFailed()
        try:
            raise failure from None
        finally:
            failure.__context__ = None  # `from None` only hides it from tracebacks; other code could still follow it.


def _write(private_root: Path, text: str) -> None:
    """Append to the private log. A full disk must not put the exception that it holds back into the chain."""
    if not text:
        return
    with suppress(OSError):
        path = private_folder(private_root / "log") / "errors.log"
        path.touch(mode=PRIVATE_FILE_MODE)
        with path.open("a") as log:
            log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')}\n{text}\n")
