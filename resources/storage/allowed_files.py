"""The allow-list for released artifacts: the files of each kind, and their declared content.

Without it, a library that one day adds a log, a cache or a training state to what it saves would publish it unnoticed,
and so would a change that adds a column of exact votes to a table. All checks read the files in the folder that is
about to be published, never the value that was written.

    Table      exactly the columns of its asset, with their types and in their order
    Adapter    float32 LoRA factors in pairs of the configured rank, and heads that the configuration names
    Document   its data, and the charges behind it

Besides these a file holds provenance with known keys only. The content of `record` and `data` is made from public
values and checked by the code that makes it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from safetensors import safe_open

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table, column_types
from resources.public_failure import PublicFailure
from resources.storage.adapter_io import CONFIG_FILE, PROVENANCE_FILE, WEIGHTS_FILE
from resources.storage.artifact_files import DOCUMENT, PROVENANCE

ALLOWED: dict[type, tuple[str, ...]] = {
    Table: (r"part-\d{5,}-[0-9a-f]{16}\.parquet",),
    Adapter: (r"adapter_config\.json", r"adapter_model\.safetensors", r"provenance\.json"),
    Document: (r"document\.json", r"document\.md", r"document\.html"),
    PrivateTable: (),
}


class UnexpectedFile(PublicFailure):
    """A released artifact was about to be published with a file that its kind does not have."""

    def __init__(self, kind: type, name: str) -> None:
        super().__init__(
            f"the folder of a released {kind.__name__} holds {name!r}, so it was not published; find out"
            " what writes it; list it in resources/storage/allowed_files.py only if it is made from released values"
        )


class UnexpectedContent(PublicFailure):
    """A released artifact was about to be published with content that is not declared."""

    def __init__(self, asset: str, problem: str) -> None:
        super().__init__(
            f"{asset} would be released with {problem}, so it was not published; declare it only if it is"
            " made from released values: the columns of a table in dp_assets/corpus/schemas.py, all else in"
            " resources/storage/allowed_files.py"
        )


def check_files(folder: Path, kind: type) -> None:
    """Refuse to publish a folder that holds anything but the files of its kind of artifact.

    Raises:
      UnexpectedFile: the folder holds another file; the message names the first one.
    """
    for path in unexpected_files(folder, kind):
        raise UnexpectedFile(kind, str(path.relative_to(folder)))


def unexpected_files(folder: Path, kind: type) -> Iterator[Path]:
    """Yield what a folder holds besides the files of this kind of artifact: other names, folders, links."""
    for path in sorted(folder.rglob("*")):
        plain = path.parent == folder and path.is_file() and not path.is_symlink()
        if not (plain and any(re.fullmatch(pattern, path.name) for pattern in ALLOWED[kind])):
            yield path


def require_declared_content(folder: Path, kind: type, *, asset: str, columns: Mapping[str, str] | None) -> None:
    """Refuse to publish files with undeclared content.

    `columns` are the types of a table's columns (`column_types`); None skips their comparison.

    Raises:
      UnexpectedContent: a column, tensor or key is not declared; the message names it and no value.
    """
    for problem in _problems(folder, kind, columns):
        raise UnexpectedContent(asset, problem)


def _problems(folder: Path, kind: type, columns: Mapping[str, str] | None) -> Iterator[str]:
    if kind is Table:
        for shard in sorted(folder.iterdir()):
            yield from _problems_of_shard(shard, columns)
    elif kind is Adapter:
        yield from _problems_of_adapter(folder)
    elif kind is Document:
        yield from _other_keys(DOCUMENT, json.loads((folder / DOCUMENT).read_text()), {"charge_ids", "data"})


def _problems_of_shard(shard: Path, columns: Mapping[str, str] | None) -> Iterator[str]:
    stored_columns = column_types(pl.Schema(pl.read_parquet_schema(shard)))
    if columns is not None and list(stored_columns.items()) != list(columns.items()):
        yield f"the columns {_named(stored_columns)} where {_named(columns)} are declared"
    metadata = pl.read_parquet_metadata(shard)
    yield from _other_keys("the metadata of its files", metadata, {PROVENANCE, "ARROW:schema"})
    yield from _other_keys("its provenance", json.loads(metadata[PROVENANCE]), {"charge_ids", "record"})


def _problems_of_adapter(folder: Path) -> Iterator[str]:
    from peft import LoraConfig

    config, provenance = (json.loads((folder / name).read_text()) for name in (CONFIG_FILE, PROVENANCE_FILE))
    yield from _other_keys(CONFIG_FILE, config, set(LoraConfig.__dataclass_fields__))
    yield from _other_keys(PROVENANCE_FILE, provenance, {"base_model", "charge_ids", "record"})
    with safe_open(folder / WEIGHTS_FILE, framework="numpy") as file:
        yield from _other_keys(f"the header of {WEIGHTS_FILE}", file.metadata() or {}, {"format"})
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        types = {file.get_slice(name).get_dtype() for name in shapes}
    if types - {"F32"}:
        yield "tensors that are not float32"
    for name in sorted(shapes):
        if not _is_factor(name, shapes, config) and not _is_head(name, config):
            yield f"the tensor {name}, which is no LoRA factor of its configuration"


def _is_factor(name: str, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> bool:
    """Return whether a tensor belongs to a pair of LoRA factors: A of shape (r, inputs), B of shape (outputs, r)."""
    layer, _, factor = name.rpartition(".lora_")
    if factor not in ("A.weight", "B.weight") or layer.rpartition(".")[2] not in config["target_modules"]:
        return False
    pair = shapes.get(f"{layer}.lora_A.weight", ()), shapes.get(f"{layer}.lora_B.weight", ())
    return tuple(map(len, pair)) == (2, 2) and pair[0][0] == pair[1][1] == config["r"]


def _is_head(name: str, config: Mapping[str, Any]) -> bool:
    return name.split(".")[-2:-1] in [[head] for head in config.get("modules_to_save") or ()]


def _other_keys(part: str, keys: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    further = sorted(set(keys) - known)
    if further:
        yield f"further keys in {part}: {', '.join(further)}"


def _named(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items()) or "(none)"
