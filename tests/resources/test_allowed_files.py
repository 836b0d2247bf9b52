"""A released folder holds the files of its kind and nothing else."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table
from resources.allowed_files import UnexpectedFile, check_files
from resources.artifact_files import Artifact, write_artifact

ARTIFACTS: dict[str, Artifact] = {
    "table": Table(pl.LazyFrame({"bin_id": [1]})),
    "adapter": Adapter({"a": np.zeros(2, np.float32)}, {}, "base"),
    "document": Document({}, "text"),
}


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_what_our_writers_write_is_allowed(tmp_path: Path, kind: str) -> None:
    write_artifact(tmp_path, ARTIFACTS[kind])
    check_files(tmp_path, type(ARTIFACTS[kind]))


@pytest.mark.parametrize("name", ["optimizer.pt", ".hidden", "part-00000.parquet.tmp", "document.json", "README.md"])
def test_another_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write_artifact(tmp_path, ARTIFACTS["table"])
    (tmp_path / name).touch()
    with pytest.raises(UnexpectedFile, match=name) as refused:
        check_files(tmp_path, Table)
    assert refused.value.allow_retries is False


def test_a_folder_and_a_link_are_refused_whatever_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "folder" / "part-00000-0123456789abcdef.parquet").mkdir(parents=True)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "part-00000-0123456789abcdef.parquet").symlink_to("/etc/hostname")
    for name in ("folder", "link"):
        with pytest.raises(UnexpectedFile):
            check_files(tmp_path / name, Table)


def test_nothing_is_allowed_of_a_private_table(tmp_path: Path) -> None:
    write_artifact(tmp_path, PrivateTable(pl.LazyFrame({"text": ["a"]}), corpus_id="corpus", snapshot="1"))
    with pytest.raises(UnexpectedFile):
        check_files(tmp_path, PrivateTable)
