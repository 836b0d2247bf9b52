"""When the disk is full: one message with the remedy, whichever library ran into it.

Writers put things in place as a whole (`zones.py`), so what was stored before is still there. Writing private rows is
left out: how much room they take depends on them, so that failure shows the constant message.
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
"""How the system puts it. Polars, DuckDB and safetensors pass that on, but not the number."""


LEAST_BYTES = 256 * 2**20
"""What a small run writes; what a large one does depends on more than is known beforehand."""


def require_room(home: Path) -> None:
    """Find out, without writing, whether the data folder can be written to and some room is left.

    Raises:
      ValueError: it cannot be written to, or nearly nothing is left.
    """
    there = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(
            f"the data folder {home} cannot be written to; check DP_INSTRUCTIONS_HOME and who may write there"
        )
    free = shutil.disk_usage(there).free
    if free < LEAST_BYTES:
        raise ValueError(
            f"there are {free / 2**20:.0f} MiB left for the data folder {home}, and a run needs at least"
            f" {LEAST_BYTES / 2**20:.0f}; free some"
        )


class NoRoom(PublicFailure):
    """Something could not be written because the disk, the quota or the largest size of a file is reached."""

    def __init__(self, home: Path) -> None:
        super().__init__(
            f"there is no room left for the data folder {home}: the disk is full, or a quota or the largest"
            " size of a file is reached. Free some, then run the same command again. What was stored before is whole"
        )


@contextmanager
def room_in(home: Path) -> Iterator[None]:
    """Turn the errors of a full disk into `NoRoom`.

    Raises:
      NoRoom: a library said that there is no room.
    """
    try:
        yield
    except Exception as error:
        if _says_no_room(error):
            raise NoRoom(home) from None
        raise


def _says_no_room(error: Exception) -> bool:
    return getattr(error, "errno", None) in NO_ROOM or any(saying in str(error) for saying in SAYINGS)
