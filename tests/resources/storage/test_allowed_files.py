"""A released folder holds the files of its kind and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table
from resources.storage.adapter_io import CONFIG_FILE, PROVENANCE_FILE, WEIGHTS_FILE
from resources.storage.allowed_files import (
    ALLOWED,
    UnexpectedContent,
    UnexpectedFile,
    check_files,
    require_declared_content,
)
from resources.storage.artifact_files import DOCUMENT, PROVENANCE, SHARDS, Artifact, write_artifact

LAYER = "base_model.model.layers.0.q_proj"
SHAPES = {"A": (2, 3), "B": (5, 2)}
COLUMNS = {"bin_id": "Int64"}
ARTIFACTS: dict[str, Artifact] = {
    "table": Table(pl.LazyFrame({"bin_id": [1]})),
    "adapter": Adapter(
        {
            f"{LAYER}.lora_A.weight": np.zeros((2, 3), np.float32),
            f"{LAYER}.lora_B.weight": np.zeros((5, 2), np.float32),
        },
        {"r": 2, "target_modules": ["q_proj"], "modules_to_save": None},
        "base",
    ),
    "document": Document({}, "text"),
}


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_what_our_writers_write_is_allowed(tmp_path: Path, kind: str) -> None:
    write_artifact(tmp_path, ARTIFACTS[kind])
    check_files(tmp_path, type(ARTIFACTS[kind]))
    require_declared_content(tmp_path, type(ARTIFACTS[kind]), asset="asset", columns=COLUMNS)


def test_the_list_of_what_is_published_is_this_one() -> None:
    """A further file is a decision about privacy, not one about files, so the list stands here once more."""
    assert {
        Table: (r"part-\d{5,}-[0-9a-f]{16}\.parquet",),
        Adapter: (r"adapter_config\.json", r"adapter_model\.safetensors", r"provenance\.json"),
        Document: (r"document\.json", r"document\.md", r"document\.html"),
        PrivateTable: (),
    } == ALLOWED


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


def add_key(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {"num_units": 4929}))

    return change


def add_tensors(**tensors: npt.NDArray[Any]) -> Callable[[Path], None]:
    """Store an adapter with further tensors, or other ones; `__` stands for a dot."""

    def change(folder: Path) -> None:
        named = {name.replace("__", ".").replace("LAYER", LAYER): tensor for name, tensor in tensors.items()}
        save_file(load_file(folder / WEIGHTS_FILE) | named, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    return change


def add_to_the_header(folder: Path) -> None:
    metadata = {"format": "pt", "largest_norm": "4929.5"}
    save_file(load_file(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE, metadata=metadata)


def rewrite_shard(metadata: Callable[[dict[str, str]], dict[str, str]]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (shard,) = folder.glob(SHARDS)
        former = {PROVENANCE: pl.read_parquet_metadata(shard)[PROVENANCE]}
        pl.read_parquet(shard).write_parquet(shard, metadata=metadata(former))

    return change


HIDDEN: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "in the footer of a table": ("table", rewrite_shard(lambda kept: kept | {"exact": "4929"}), "exact"),
    "in the provenance of a table": (
        "table",
        rewrite_shard(lambda kept: {PROVENANCE: json.dumps(json.loads(kept[PROVENANCE]) | {"num_units": 4929})}),
        "num_units",
    ),
    "in the provenance of an adapter": ("adapter", add_key(PROVENANCE_FILE), "num_units"),
    "in the configuration of an adapter": ("adapter", add_key(CONFIG_FILE), "num_units"),
    "in the header of its tensors": ("adapter", add_to_the_header, "largest_norm"),
    "a state of the optimizer": (
        "adapter",
        add_tensors(LAYER__lora_A__weight__exp_avg=np.zeros((2, 3), np.float32)),
        "exp_avg",
    ),
    "a factor of another layer": ("adapter", add_tensors(other__lora_A__weight=np.zeros((2, 3), np.float32)), "other"),
    "a factor of another rank": ("adapter", add_tensors(LAYER__lora_A__weight=np.zeros((4, 3), np.float32)), "lora_A"),
    "numbers of another type": ("adapter", add_tensors(LAYER__lora_A__weight=np.zeros((2, 3))), "not float32"),
    "a head that is not configured": ("adapter", add_tensors(score__weight=np.zeros((1, 3), np.float32)), "score"),
    "beside the data of a document": ("document", add_key(DOCUMENT), "num_units"),
}


@pytest.mark.parametrize("place", HIDDEN)
def test_what_is_not_declared_is_refused_wherever_it_is_hidden_and_its_value_is_not_told(
    tmp_path: Path, place: str
) -> None:
    kind, hide, name = HIDDEN[place]
    write_artifact(tmp_path, ARTIFACTS[kind])
    hide(tmp_path)
    with pytest.raises(UnexpectedContent, match=name) as refused:
        require_declared_content(tmp_path, type(ARTIFACTS[kind]), asset="asset", columns=COLUMNS)
    assert "4929" not in str(refused.value)
    assert refused.value.allow_retries is False


def test_every_file_of_a_table_has_the_declared_columns(tmp_path: Path) -> None:
    write_artifact(tmp_path, ARTIFACTS["table"])
    (shard,) = tmp_path.glob(SHARDS)
    further = pl.read_parquet(shard).with_columns(exact_votes=1)
    metadata = {PROVENANCE: pl.read_parquet_metadata(shard)[PROVENANCE]}
    further.write_parquet(tmp_path / "part-00001-0123456789abcdef.parquet", metadata=metadata)
    check_files(tmp_path, Table)
    with pytest.raises(UnexpectedContent, match="exact_votes"):
        require_declared_content(tmp_path, Table, asset="asset", columns=COLUMNS)
