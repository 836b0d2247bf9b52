"""A digest says whether the content of a folder is the same, wherever it lies."""

import os
import shutil
from pathlib import Path

import pytest

from resources.digests import code_digest, folder_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.parquet").write_bytes(b"rows")
    (folder / "inner" / "b.json").write_text("{}")
    return folder


def test_a_copy_with_other_times_and_modes_has_the_same_digest(folder: Path, tmp_path: Path) -> None:
    before = folder_digest(folder)
    shutil.copytree(folder, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "a.parquet", (1, 1))
    (tmp_path / "copy" / "a.parquet").chmod(0o600)
    (tmp_path / "copy" / ".hidden").touch()
    assert folder_digest(tmp_path / "copy") == before


def test_every_change_of_a_name_or_a_byte_changes_the_digest(folder: Path) -> None:
    seen = {folder_digest(folder)}
    (folder / "a.parquet").write_bytes(b"rowz")
    seen.add(folder_digest(folder))
    (folder / "a.parquet").rename(folder / "c.parquet")
    seen.add(folder_digest(folder))
    (folder / "inner" / "b.json").unlink()
    seen.add(folder_digest(folder))
    (folder / "empty").touch()
    seen.add(folder_digest(folder))
    assert len(seen) == 5


def test_the_code_is_named_with_its_version_and_one_digest_of_all_sources() -> None:
    code = code_digest()
    assert code["package"] == "dp-instructions"
    assert code["version"]
    assert len(code["sha256"]) == 64
    assert code == code_digest()
