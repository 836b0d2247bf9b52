"""Which files of a folder are opened or read meanwhile, by whatever library.

The operating system tells (inotify), so that a library which opens files without Python is seen as well.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

READ, OPENED, IS_FOLDER, OVERFLOWN = 0x1, 0x20, 0x40000000, 0x4000
EVENT = struct.Struct("iIII")


@contextmanager
def opened_files(root: Path) -> Iterator[set[Path]]:
    """The set yielded holds, after the block, every file below `root` that was opened or read in it.

    Watched are the folders and files that exist when the block begins; the latter under whatever name they are opened,
    such as a second one elsewhere.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    try:
        paths = [root, *root.rglob("*")]
        watched = {libc.inotify_add_watch(descriptor, os.fsencode(path), READ | OPENED): path for path in paths}
        assert all(number > 0 for number in watched), "inotify watches no more files"
        opened: set[Path] = set()
        yield opened
        for number, mask, name in _events(descriptor):
            assert not mask & OVERFLOWN, "inotify lost events"
            if number in watched and not mask & IS_FOLDER:
                opened.add(watched[number] / name if name else watched[number])
    finally:
        os.close(descriptor)


def _events(descriptor: int) -> Iterator[tuple[int, int, str]]:
    while True:
        try:
            content = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        while content:
            number, mask, _, length = EVENT.unpack_from(content)
            name, content = content[EVENT.size : EVENT.size + length], content[EVENT.size + length :]
            yield number, mask, os.fsdecode(name.rstrip(b"\0"))
