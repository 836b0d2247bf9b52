"""Private steps, which read or write private rows. Their output, errors and temporary files stay in the private zone.

- Prints, log records and warnings are redirected to the private log. Redirected are the descriptors of standard output
  and standard error (so compiled libraries, child processes and `faulthandler` are covered), Python's two streams, the
  handlers of every logger, warnings, and the folder of Python's temporary files. Progress of public quantities stays
  visible on the original standard error.
- An error that may depend on private rows is replaced by one constant message. Its details go to the private log.
- Any number of steps run concurrently. An erasure runs alone, so that no step holds a unit's rows in memory and writes
  them again afterwards. The lock is an operating system lock on a file of the private root, so it is released when the
  process that holds it ends, for whatever reason.

Not covered: output that a compiled library buffers itself and prints later, and handlers that a library adds inside the
step and that write elsewhere than to the two streams. Polars chooses its spill folder at the first spill in a process,
which a public step may cause. So the code location calls `keep_spilled_rows_private` when it loads.
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
    """Return the path of the private log."""
    return private_root / "log" / "errors.log"


def temporary_folder(private_root: Path) -> Path:
    """Return the folder of the private zone for temporary files."""
    return private_root / "tmp"


def keep_spilled_rows_private(private_root: Path) -> None:
    """Let Polars spill rows that do not fit in memory to the private root instead of the system's `/var/tmp`."""
    os.environ[SPILL_FOLDER] = str(temporary_folder(private_root))
    pl.Config.reload_env_vars()


@contextmanager
def private_step(private_root: str) -> Iterator[None]:
    """Open a context in which private rows may be read. Output and errors stay inside (`private_errors`).

    Waits while an erasure runs.
    """
    with _locked(private_root, fcntl.LOCK_SH), private_errors(private_root):
        yield


@contextmanager
def no_private_step(private_root: str) -> Iterator[None]:
    """Open a context in which no private step runs. A step that starts meanwhile waits.

    Raises:
      StepsRunning: a step is running already.
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
    """Replace every exception by the constant message, except a `PublicError` and an interrupt.

    - A `PublicError` passes without notes, cause and context, an interrupt without arguments.
    - Every `BaseException` is caught, because some libraries raise one that is no `Exception` (a panic of Polars).
    - Prints, log records and warnings are redirected to the private log.
    """
    with output_kept_inside(Path(private_root)):
        try:
            yield
        except BaseException as error:
            outward = _outward(error)
            try:
                raise outward from None
            finally:
                outward.__context__ = None  # `from None` hides it from tracebacks only; code could still read it


def _outward(error: BaseException) -> BaseException:
    """Return the exception that may leave the step. The original one is logged if it holds more than that."""
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
    """Print an error to the redirected standard error. A failure to print must not put the error into a chain again."""
    with suppress(Exception):
        print(datetime.now(UTC).isoformat(timespec="seconds"), file=sys.stderr)
        traceback.print_exception(error, file=sys.stderr)


@contextmanager
def output_kept_inside(private_root: Path) -> Iterator[None]:
    """Redirect standard output, standard error, logging and warnings to the private log.

    Python's temporary files are created in the private zone.

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
    """Open a private file for appending and yield its descriptor."""
    private_folder(file.parent)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE_FILE_MODE)
    try:
        os.fchmod(descriptor, PRIVATE_FILE_MODE)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _descriptors_leading_to(log: int) -> Iterator[TextIO]:
    """Redirect both standard descriptors to `log`, and yield a stream to the original standard error."""
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
    """Return an unbuffered stream over a descriptor that it does not own.

    A library that is first imported inside the step may keep such a stream. It stays usable after the step, and writes
    to whatever the descriptor refers to by then.
    """
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[arg-type]


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def _flush() -> None:
    """Flush the streams of Python and of C before the descriptors are redirected or restored."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


@contextmanager
def _log_records_printed() -> Iterator[None]:
    """Send log records to the redirected standard error instead of to files, databases or services."""
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
    """Send warnings to the redirected standard error, even if other code records them."""
    with warnings.catch_warnings(record=True) as caught:
        try:
            yield
        finally:
            with suppress(Exception):  # a warning may hold any object, and printing that may fail
                for warning in caught:
                    print(f"{warning.category.__name__}: {warning.message}", file=sys.stderr)


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Create Python's temporary files in `folder`."""
    former, tempfile.tempdir = tempfile.tempdir, str(private_folder(folder))
    try:
        yield
    finally:
        tempfile.tempdir = former
