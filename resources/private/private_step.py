"""A step that reads or writes private rows: what it says, raises and writes down stays in the private zone.

- What is printed, logged or warned of goes to the private log. Taken over are the descriptors of standard output and
  standard error (so compiled libraries, child processes and `faulthandler` are covered), Python's two streams, the
  handlers of every logger, warnings, and the folder of Python's temporary files. Progress of public quantities stays
  visible on the old standard error.
- An error that may depend on private rows becomes one constant message; its details go to the private log.
- Any number of steps run side by side; an erasure runs alone, so that no step holds a unit's rows in memory and writes
  them down again afterwards. The lock is one of the operating system on a file of the private root: it ends with the
  process that holds it, however that ends.

Not covered: what a compiled library keeps in a buffer of its own and prints later, and handlers that a library adds
inside the step to write elsewhere than to the two streams. Polars chooses where to spill rows at its first spill in a
process, which a public step may cause, so the code location calls `keep_spilled_rows_private` when it loads.
"""

import ctypes
import fcntl
import io
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import dagster as dg
import polars as pl

from dp_assets.privacy.errors import PublicError
from dp_assets.progress import shown_on
from resources.public_failure import PublicFailure
from resources.storage.zones import PRIVATE_FILE_MODE, private_folder

CONSTANT_MESSAGE = (
    "A step that reads private rows failed. What it says may depend on them, so it is written to the private log"
    " (private/log/errors.log in the data folder) and not here. The owner reads it there; `dp-instructions corpus"
    " preview` shows them what is read of the corpus."
)
INTERRUPTS: tuple[type[BaseException], ...] = (KeyboardInterrupt, GeneratorExit, dg.DagsterExecutionInterruptedError)
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
SPILL_FOLDER = "POLARS_OOC_SPILL_DIR"


class PrivateStepFailed(PublicFailure):
    """The one message for every failure that may depend on private rows."""

    def __init__(self) -> None:
        super().__init__(CONSTANT_MESSAGE)


class StepsRunning(RuntimeError):
    """A step that reads private rows is running."""


def log_file(private_root: Path) -> Path:
    """The private log."""
    return private_root / "log" / "errors.log"


def temporary_folder(private_root: Path) -> Path:
    """The folder of the private zone for what is deleted after a step."""
    return private_root / "tmp"


def keep_spilled_rows_private(private_root: Path) -> None:
    """Let Polars put what does not fit into memory under the private root, and not into the system's `/var/tmp`."""
    os.environ[SPILL_FOLDER] = str(temporary_folder(private_root))
    pl.Config.reload_env_vars()


@contextmanager
def private_step(private_root: str) -> Iterator[None]:
    """Within the context private rows may be read: what is said and raised stays inside (`private_errors`).

    Waits while an erasure runs.
    """
    with _locked(private_root, fcntl.LOCK_SH), private_errors(private_root):
        yield


@contextmanager
def no_private_step(private_root: str) -> Iterator[None]:
    """Within the context no step runs; one that wants to start waits.

    Raises:
      StepsRunning: one runs already.
    """
    with _locked(private_root, fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextmanager
def _locked(private_root: str, kind: int) -> Iterator[None]:
    path = private_folder(Path(private_root)) / "steps.lock"
    with open(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE_MODE), "rb") as stream:
        try:
            fcntl.flock(stream, kind)
        except BlockingIOError:
            raise StepsRunning("a step that reads private rows is running; wait for it or end it") from None
        yield


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


@contextmanager
def output_kept_inside(private_root: Path) -> Iterator[None]:
    """Send everything that is said meanwhile to the private log.

    Raises:
      OSError: the private log cannot be opened; nothing was done yet.
    """
    keep_spilled_rows_private(private_root)
    with (
        _appending_to(log_file(private_root)) as log,
        _descriptors_leading_to(log) as outside,
        redirect_stdout(_text_stream(STANDARD_OUTPUT)),
        redirect_stderr(_text_stream(STANDARD_ERROR)),
        shown_on(outside),
        _log_records_printed(),
        _warnings_printed(),
        _temporary_files_in(temporary_folder(private_root)),
    ):
        yield


@contextmanager
def _appending_to(file: Path) -> Iterator[int]:
    """The descriptor of a private file, open for appending."""
    private_folder(file.parent)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE_FILE_MODE)
    try:
        os.fchmod(descriptor, PRIVATE_FILE_MODE)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _descriptors_leading_to(log: int) -> Iterator[TextIO]:
    """Both standard descriptors write to `log` meanwhile; yields a stream to where standard error led before."""
    _flush()
    kept = {descriptor: os.dup(descriptor) for descriptor in (STANDARD_OUTPUT, STANDARD_ERROR)}
    outside = _text_stream(kept[STANDARD_ERROR]) if _descriptor_of(sys.stderr) == STANDARD_ERROR else sys.stderr
    try:
        for descriptor in kept:
            os.dup2(log, descriptor)
        yield outside
    finally:
        _flush()
        for descriptor, former in kept.items():
            os.dup2(former, descriptor)
            os.close(former)


def _text_stream(descriptor: int) -> TextIO:
    """An unbuffered stream over a descriptor that it does not own.

    Libraries keep such a stream when they are first imported inside the step. It then goes on working, and leads to
    wherever the descriptor leads.
    """
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[arg-type]


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def _flush() -> None:
    """Write out what Python's streams and those of C hold, before the descriptors lead elsewhere."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


@contextmanager
def _log_records_printed() -> Iterator[None]:
    """Log records go to the redirected standard error instead of to files, databases or services."""
    printing = logging.StreamHandler(sys.stderr)
    named = list(logging.root.manager.loggerDict.values())
    loggers = [logging.root, *(logger for logger in named if isinstance(logger, logging.Logger) and logger.handlers)]
    kept = [(logger, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.handlers = [printing]
    try:
        yield
    finally:
        for logger, handlers in kept:
            logger.handlers = [*handlers, *(added for added in logger.handlers if added is not printing)]


@contextmanager
def _warnings_printed() -> Iterator[None]:
    """Warnings go to the redirected standard error, whoever collects them otherwise."""
    with warnings.catch_warnings(record=True) as caught:
        try:
            yield
        finally:
            with suppress(Exception):  # the text of a warning may be anything, its own failure included
                for warning in caught:
                    print(f"{warning.category.__name__}: {warning.message}", file=sys.stderr)


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Python's temporary files are made in `folder`."""
    former, tempfile.tempdir = tempfile.tempdir, str(private_folder(folder))
    try:
        yield
    finally:
        tempfile.tempdir = former
