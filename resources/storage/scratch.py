"""Temporary folders of the private zone for rows in transit, removed when nothing refers to the rows any more.

A process that is killed cannot remove its folder. The next process does: a folder in use holds an operating-system
lock, which ends with the process.
"""

import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from resources.private.private_step import temporary_folder
from resources.storage.zones import private_folder

PREFIX = "rows-"


class Scratch:
    """A new, empty `folder` for private rows. Creating it removes the folders that ended processes left behind.

    The folder is removed when nothing refers to this object any more, at the latest when the process ends, and as a
    context manager when the block fails. Code that passes on rows in the folder passes on this object too.
    """

    def __init__(self, private_root: str) -> None:
        parent = private_folder(temporary_folder(Path(private_root)))
        with _opened(parent) as in_turn:  # no other process looks between creation and locking of the folder
            fcntl.flock(in_turn, fcntl.LOCK_EX)
            _remove_abandoned(parent)
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            descriptor = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.remove = weakref.finalize(self, _remove, self.folder, descriptor, owner=os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is not None:
            self.remove()


def _remove(folder: Path, descriptor: int, *, owner: int) -> None:
    if os.getpid() == owner:  # a forked process may end before the process that needs the folder
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        # The owner may remove the folder meanwhile.
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
