"""A digest says whether the content of a file is the same, wherever it lies."""

import os
import shutil
from pathlib import Path

import pytest

from resources.storage.digests import code_digest, file_digests, files_under


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.parquet").write_bytes(b"rows")
    (folder / "inner" / "b.json").write_text("{}")
    return folder


def test_a_copy_with_other_times_and_modes_has_the_same_digests(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    os.utime(copy / "a.parquet", (1, 1))
    (copy / "a.parquet").chmod(0o600)
    (copy / ".hidden").touch()
    assert file_digests(copy, below=copy) == file_digests(folder, below=folder)
    assert list(file_digests(folder, below=tmp_path)) == ["artifact/a.parquet", "artifact/inner/b.json"]


def test_every_change_of_a_byte_changes_the_digest_of_its_file(folder: Path) -> None:
    before = file_digests(folder, below=folder)
    (folder / "a.parquet").write_bytes(b"rowz")
    after = file_digests(folder, below=folder)
    assert before["a.parquet"] != after["a.parquet"]
    assert before["inner/b.json"] == after["inner/b.json"]


def test_a_link_is_named_but_is_no_file_of_a_release(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "a.parquet")
    (folder / "loop").symlink_to(folder)
    assert {path.name for path in files_under(folder)} == {"a.parquet", "b.json", "link", "loop"}
    assert set(file_digests(folder, below=folder)) == {"a.parquet", "inner/b.json"}


def test_the_code_is_named_with_its_version_and_one_digest_of_all_sources() -> None:
    code = code_digest()
    assert code["package"] == "dp-instructions"
    assert code["version"]
    assert len(code["sha256"]) == 64
    assert code == code_digest()
