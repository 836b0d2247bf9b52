"""How each kind of artifact looks as a folder. The same form serves the IO manager and the store of releases.

Table, PrivateTable   part-*.parquet, with provenance in the Parquet key-value metadata
Adapter               a PEFT adapter folder plus provenance.json
Document              document.json, document.md, and document.html if it has one
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dp_assets.artifacts import UNKNOWN_PREPARATION, Adapter, Document, PrivateTable, Table
from resources.adapter_io import CONFIG_FILE, PROVENANCE_FILE, load_adapter, save_adapter

MAX_ROWS_PER_SHARD = 100_000
PROVENANCE = "dp_instructions"
SHARDS = "part-*.parquet"
DOCUMENT, MARKDOWN_PAGE, HTML_PAGE = "document.json", "document.md", "document.html"

Artifact = Table | PrivateTable | Adapter | Document


class UnreadableArtifact(ValueError):
    """A folder that holds no known artifact."""


def write_artifact(folder: Path, artifact: Artifact) -> None:
    """Write an artifact into an empty folder."""
    match artifact:
        case Table():
            _write_shards(folder, artifact.rows, {"charge_ids": artifact.charge_ids, "record": dict(artifact.record)})
        case PrivateTable():
            provenance = {name: getattr(artifact, name) for name in ("corpus_id", "snapshot", "preparation")}
            artifact.store(lambda rows: _write_shards(folder, rows, provenance))
        case Adapter():
            save_adapter(artifact, folder)
        case Document():
            content = {"charge_ids": artifact.charge_ids, "data": artifact.data}
            (folder / DOCUMENT).write_text(json.dumps(content, indent=2))
            (folder / MARKDOWN_PAGE).write_text(artifact.markdown)
            if artifact.html is not None:
                (folder / HTML_PAGE).write_text(artifact.html)


def read_artifact(folder: Path) -> Artifact:
    """The artifact in a folder; tables are scanned lazily.

    Raises:
      UnreadableArtifact: the folder is missing or holds no artifact.
    """
    if (folder / CONFIG_FILE).exists():
        return load_adapter(folder)
    if (folder / DOCUMENT).exists():
        return _read_document(folder)
    shards = _shards(folder)
    provenance = json.loads(pl.read_parquet_metadata(shards[0])[PROVENANCE])
    rows = pl.scan_parquet(shards)
    if "corpus_id" in provenance:
        preparation = provenance.get("preparation", UNKNOWN_PREPARATION)  # an earlier version wrote none
        return PrivateTable(
            rows, corpus_id=provenance["corpus_id"], snapshot=provenance["snapshot"], preparation=preparation
        )
    return Table(rows, tuple(provenance["charge_ids"]), provenance.get("record", {}))


def stored_charge_ids(folder: Path) -> tuple[str, ...]:
    """The charge ids stored with a released artifact, wherever its folder was copied to; no rows or tensors are read.

    Raises:
      UnreadableArtifact: the folder holds no artifact, or a private one, which is no release.
    """
    provenances = list(_provenances(folder))
    if any("charge_ids" not in provenance for provenance in provenances):
        raise UnreadableArtifact(f"{folder} does not say what it descends from: it is private, or no release of ours")
    return tuple(sorted({charge_id for provenance in provenances for charge_id in provenance["charge_ids"]}))


def _provenances(folder: Path) -> Iterator[Mapping[str, Any]]:
    """What each part of an artifact says about where it comes from."""
    for file in (PROVENANCE_FILE, DOCUMENT):
        if (folder / file).exists():
            yield json.loads((folder / file).read_text())
            return
    for shard in _shards(folder):
        yield json.loads(pl.read_parquet_metadata(shard).get(PROVENANCE, "{}"))


def _read_document(folder: Path) -> Document:
    content = json.loads((folder / DOCUMENT).read_text())
    html = (folder / HTML_PAGE).read_text() if (folder / HTML_PAGE).exists() else None
    return Document(content["data"], (folder / MARKDOWN_PAGE).read_text(), tuple(content["charge_ids"]), html)


def _shards(folder: Path) -> list[Path]:
    shards = sorted(folder.glob(SHARDS))
    if not shards:
        raise UnreadableArtifact(f"no artifact in {folder}; it was deleted or never made")
    return shards


def _write_shards(folder: Path, rows: pl.LazyFrame, provenance: Mapping[str, Any]) -> None:
    """Stream rows into numbered shards. An empty table still gets one, so that its schema is kept."""
    shards = pl.PartitionBy(
        folder,
        file_path_provider=lambda shard: f"part-{shard.index_in_partition:05d}.parquet",
        max_rows_per_file=MAX_ROWS_PER_SHARD,
    )
    metadata = {PROVENANCE: json.dumps(provenance)}
    rows.sink_parquet(shards, metadata=metadata, mkdir=True)
    if not list(folder.glob(SHARDS)):
        rows.sink_parquet(folder / "part-00000.parquet", metadata=metadata)
