"""Errors of a full disk: one message with the remedy, whichever library reports it.

Writers put files in place as a whole (`zones.py`), so earlier content is intact. Writing private rows is not covered:
the space that they need depends on the rows, so that failure shows the constant message.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.public_failure import PublicFailure

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SAYINGS = tuple(os.strerror(number) for number in NO_ROOM)
"""The messages of the system. Polars, DuckDB and safetensors pass on the message but not the number."""


LEAST_BYTES = 256 * 2**20
"""The free space that a run needs: what a small run writes. What a large run writes is not known beforehand."""


def require_room(home: Path) -> None:
    """Check, without writing, that the data folder is writable and has some space left.

    Raises:
      ValueError: the folder is not writable, or almost no space is left.
    """
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"the data folder {home} cannot be written to; check DP_INSTRUCTIONS_HOME and who may write there"
        )
    free = shutil.disk_usage(existing).free
    if free < LEAST_BYTES:
        raise ValueError(
            f"there are {free / 2**20:.0f} MiB left for the data folder {home}, and a run needs at least"
            f" {LEAST_BYTES / 2**20:.0f}; free some"
        )


class NoRoom(PublicFailure):
    """A write failed because the disk is full, or a quota or the largest file size is reached."""

    def __init__(self, home: Path) -> None:
        super().__init__(
            f"there is no room left for the data folder {home}: the disk is full, or a quota or the largest"
            " size of a file is reached. Free some, then run the same command again. What was stored before is whole"
        )


@contextmanager
def room_in(home: Path) -> Iterator[None]:
    """Turn the errors of a full disk into `NoRoom`.

    Raises:
      NoRoom: a library reported that there is no space.
    """
    try:
        yield
    except Exception as error:
        if _says_no_room(error):
            raise NoRoom(home) from None
        raise


def _says_no_room(error: Exception) -> bool:
    return getattr(error, "errno", None) in NO_ROOM or any(saying in str(error) for saying in SAYINGS)
