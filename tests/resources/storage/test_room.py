"""A full disk is one message with the remedy, and no other error is taken for it."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from resources.storage.room import LEAST_BYTES, NoRoom, require_room, room_in


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError(f"ComputeError: {os.strerror(errno.ENOSPC)} (os error 28)"),
    ],
    ids=["full", "quota", "said by a library"],
)
def test_a_full_disk_is_told_with_the_data_folder_whichever_library_met_it(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(NoRoom) as refusal, room_in(tmp_path):
        raise error
    assert f"no room left for the data folder {tmp_path}" in str(refusal.value.description)
    assert refusal.value.allow_retries is False


def test_another_error_passes_as_it_is(tmp_path: Path) -> None:
    error = OSError(errno.EACCES, "Permission denied")
    with pytest.raises(OSError, match="Permission denied") as passed, room_in(tmp_path):
        raise error
    assert passed.value is error


def test_too_little_room_is_found_without_making_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, usage = tmp_path / "not" / "there", shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=LEAST_BYTES))
    require_room(home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=LEAST_BYTES - 1))
    with pytest.raises(ValueError, match=r"256 MiB left .*free some"):
        require_room(home)
    assert list(tmp_path.iterdir()) == []
