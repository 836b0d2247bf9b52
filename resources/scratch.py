"""Folders of the private zone for rows on their way, which are gone when the step is.

A process that is killed cannot remove its folder. The next one does: a folder in use is locked by the operating system,
and a lock ends with the process that holds it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resources.private_output import temporary_folder
from resources.zones import private_folder

PREFIX = "rows-"


@contextmanager
def scratch_folder(private_root: str) -> Iterator[Path]:
    """An empty folder for private rows, and those that ended processes left behind are removed."""
    place = private_folder(temporary_folder(Path(private_root)))
    with _opened(place) as in_turn:  # nobody else looks between making a folder and locking it
        fcntl.flock(in_turn, fcntl.LOCK_EX)
        _remove_abandoned(place)
        made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        descriptor = os.open(made, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(descriptor)


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        # Its owner may remove it meanwhile.
        with suppress(FileNotFoundError), _opened(folder) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
