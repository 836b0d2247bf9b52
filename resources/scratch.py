"""Folders of the private zone for rows on their way, which are gone when the step is.

A process that is killed cannot remove its folder. The next one does: a folder in use is locked by the operating system,
and a lock ends with the process that holds it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.private_output import temporary_folder
from resources.zones import private_folder

PREFIX = "rows-"


@contextmanager
def scratch_folder(private_root: str) -> Iterator[Path]:
    """An empty folder for private rows, and those that ended processes left behind are removed."""
    place = private_folder(temporary_folder(Path(private_root)))
    _remove_abandoned(place)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(descriptor)


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
