"""A lock per release, so that two runs that start together do not both pay for it.

The ledger limits what is spent; the lock only saves budget. It is an operating-system lock on a file of the private
root. It ends with the process that holds it, so a crashed run blocks nobody.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.ledger.ledger_resource import ChargeRefused
from resources.storage.zones import PRIVATE_FILE_MODE, private_folder

IN_PROGRESS = "another run makes this release; wait for it to end, then run again to use what it made"


@contextmanager
def only_run_making(private_root: str, reuse_key: str) -> Iterator[None]:
    """Hold the lock of the release that `reuse_key` names.

    Raises:
      ChargeRefused: another run holds it; nothing was charged.
    """
    path = private_folder(Path(private_root) / "ledger" / "in_progress") / reuse_key
    with open(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE_MODE), "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ChargeRefused(IN_PROGRESS) from None
        yield
