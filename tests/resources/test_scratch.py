"""Rows on their way lie in the private zone, closed to others, and go whatever happens to the process."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from resources.scratch import scratch_folder


def scratches(root: Path) -> list[Path]:
    return list((root / "tmp").iterdir())


def test_a_folder_is_closed_to_others_and_removed_at_the_end_and_at_a_failure(tmp_path: Path) -> None:
    root = tmp_path / "private"
    with scratch_folder(str(root)) as folder:
        (folder / "rows").write_text("a row")
        assert folder.parent == root / "tmp"
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in (folder, folder.parent, root))
    assert scratches(root) == []
    with pytest.raises(RuntimeError, match="broken"), scratch_folder(str(root)):
        raise RuntimeError("broken")
    assert scratches(root) == []


def test_what_a_killed_process_left_goes_with_the_next_folder_and_what_is_in_use_stays(tmp_path: Path) -> None:
    root = tmp_path / "private"
    killed = (
        "import os, sys; from resources.scratch import scratch_folder;"
        "used = scratch_folder(sys.argv[1]); (used.__enter__() / 'rows').write_text('a row'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", killed, str(root)], check=False).returncode == 9
    assert len(scratches(root)) == 1
    with scratch_folder(str(root)) as first:
        assert scratches(root) == [first]
        with scratch_folder(str(root)) as second:
            assert set(scratches(root)) == {first, second}
    assert scratches(root) == []
