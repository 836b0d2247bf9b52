"""A step that reads or writes private rows, and what excludes all of them.

Any number of steps run side by side; an erasure runs alone, so that none of them holds a unit's rows in memory and
writes them down again afterwards. The lock is one of the operating system on a file of the private root: it ends with
the process that holds it, however that ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.private.private_log import private_errors
from resources.storage.zones import PRIVATE_FILE_MODE, private_folder


class StepsRunning(RuntimeError):
    """A step that reads private rows is running."""


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
