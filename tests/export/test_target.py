"""Where an export may go: nothing of the user's is lost, and nothing lands among the stores."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dp_assets.export.parts import ExportRefused
from dp_assets.export.target import MANIFEST, MARK, check_target, write_checksums


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "data/released").mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """An earlier export."""
    folder = tmp_path / "earlier"
    (folder / "data/pool").mkdir(parents=True)
    (folder / "data/pool/train.parquet").write_bytes(b"rows")
    (folder / MANIFEST).write_text(json.dumps({"kind": MARK}))
    write_checksums(folder)
    return folder


def test_a_new_an_empty_and_an_unchanged_folder_are_taken(home: Path, earlier: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty", "earlier"):
        check_target(tmp_path / name, home)


CHANGES: dict[str, Callable[[Path], object]] = {
    "edited": lambda folder: (folder / "data/pool/train.parquet").write_bytes(b"other rows"),
    "added": lambda folder: (folder / "notes.txt").write_text("mine"),
    "hidden": lambda folder: (folder / ".gitattributes").write_text("mine"),
    "removed": lambda folder: (folder / "data/pool/train.parquet").unlink(),
    "linked": lambda folder: (folder / "link").symlink_to(folder / "data"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_earlier_export_that_somebody_changed_is_kept(
    home: Path, earlier: Path, change: Callable[[Path], object]
) -> None:
    change(earlier)
    with pytest.raises(ExportRefused, match="changed since"):
        check_target(earlier, home)


@pytest.mark.parametrize("manifest", ["", "[]", '{"kind": "another"}'])
def test_a_folder_with_something_else_in_it_is_kept(home: Path, tmp_path: Path, manifest: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MANIFEST).write_text(manifest)
    with pytest.raises(ExportRefused, match="neither empty nor"):
        check_target(tmp_path / "other", home)


@pytest.mark.parametrize("place", ["data", "data/released/export", "data/private/export", "."])
def test_the_data_folder_is_no_target(home: Path, tmp_path: Path, place: str) -> None:
    with pytest.raises(ExportRefused, match="data folder"):
        check_target(tmp_path / place, home)


def test_a_file_or_a_link_is_no_target(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("file", "link"):
        with pytest.raises(ExportRefused, match="not a folder"):
            check_target(tmp_path / name, home)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_usual_program_checks_the_checksums(earlier: Path) -> None:
    def checked() -> int:
        return subprocess.run(
            ["sha256sum", "-c", "SHA256SUMS"], cwd=earlier, capture_output=True, check=False
        ).returncode

    assert checked() == 0
    (earlier / "data/pool/train.parquet").write_bytes(b"other rows")
    assert checked() == 1
