"""What a step says while it reads private rows goes to the private log: prints, log records, warnings.

Taken over are the descriptors of standard output and standard error (so compiled libraries, child processes and
`faulthandler` are covered), Python's two streams, the handlers of every logger, warnings, and the folder of Python's
temporary files. Progress of public quantities stays visible on the old standard error.

Left out: what a compiled library keeps in a buffer of its own and prints later, and handlers that a library adds inside
the step to write elsewhere than to the two streams. Polars chooses where to spill rows at its first spill in a process,
which a public step may cause, so the code location calls `keep_spilled_rows_private` when it loads.
"""

import ctypes
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

import polars as pl

from dp_assets.progress import shown_on
from resources.storage.zones import PRIVATE_FILE_MODE, private_folder

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
SPILL_FOLDER = "POLARS_OOC_SPILL_DIR"


def log_file(private_root: Path) -> Path:
    return private_root / "log" / "errors.log"


def temporary_folder(private_root: Path) -> Path:
    return private_root / "tmp"


def keep_spilled_rows_private(private_root: Path) -> None:
    """Let Polars put what does not fit into memory under the private root, and not into the system's `/var/tmp`."""
    os.environ[SPILL_FOLDER] = str(temporary_folder(private_root))
    pl.Config.reload_env_vars()


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
