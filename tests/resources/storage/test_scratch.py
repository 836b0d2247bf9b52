"""Rows on their way lie in the private zone, closed to others, and go whatever happens to the process."""

import stat
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from dp_assets.artifacts import PrivateTable
from resources.storage.scratch import Scratch


def scratches(root: Path) -> list[Path]:
    return list((root / "tmp").iterdir())


def test_a_folder_is_closed_to_others_and_goes_with_whoever_holds_it(tmp_path: Path) -> None:
    root = tmp_path / "private"
    scratch = Scratch(str(root))
    (scratch.folder / "rows").write_text("a row")
    assert scratch.folder.parent == root / "tmp"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in (scratch.folder, scratch.folder.parent, root))
    del scratch
    assert scratches(root) == []


def test_a_failure_removes_the_folder_at_once(tmp_path: Path) -> None:
    root = tmp_path / "private"
    with pytest.raises(RuntimeError, match="broken"), Scratch(str(root)):
        raise RuntimeError("broken")
    assert scratches(root) == []


def test_rows_stay_as_long_as_a_table_or_one_made_from_it(tmp_path: Path) -> None:
    root = tmp_path / "private"
    scratch = Scratch(str(root))
    pl.DataFrame({"text": ["a row"]}).write_parquet(scratch.folder / "rows.parquet")
    rows = pl.scan_parquet(scratch.folder / "rows.parquet")
    table = PrivateTable(rows, corpus_id="corpus", snapshot="1", held=scratch)
    longer = table.map(lambda rows: rows.with_columns(length=pl.lit(5)))
    del scratch, table
    read: list[pl.DataFrame] = []
    longer.store(lambda rows: read.append(rows.collect()))
    assert read[0].rows() == [("a row", 5)]
    del longer
    assert scratches(root) == []


def test_what_a_killed_process_left_goes_with_the_next_folder_and_what_is_in_use_stays(tmp_path: Path) -> None:
    root = tmp_path / "private"
    killed = (
        "import os, sys; from resources.storage.scratch import Scratch;"
        "used = Scratch(sys.argv[1]); (used.folder / 'rows').write_text('a row'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", killed, str(root)], check=False).returncode == 9
    assert len(scratches(root)) == 1
    first = Scratch(str(root))
    assert scratches(root) == [first.folder]
    second = Scratch(str(root))
    assert set(scratches(root)) == {first.folder, second.folder}


def test_a_process_that_ends_removes_its_folder_and_a_forked_one_leaves_it(tmp_path: Path) -> None:
    root = tmp_path / "private"
    program = (
        "import os, sys; from resources.storage.scratch import Scratch; used = Scratch(sys.argv[1])\n"
        "if os.fork() == 0: sys.exit()\n"
        "os.wait(); assert used.folder.exists()"
    )
    subprocess.run([sys.executable, "-c", program, str(root)], check=True)
    assert scratches(root) == []
