"""How each kind of artifact looks as a folder. The same form serves the IO manager and the store of releases.

Table, PrivateTable   part-*.parquet, with provenance in the Parquet key-value metadata
Adapter               a PEFT adapter folder plus provenance.json
Document              document.json and document.md
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table
from resources.adapter_io import CONFIG_FILE, load_adapter, save_adapter

MAX_ROWS_PER_SHARD = 100_000
PROVENANCE = "dp_instructions"
SHARDS = "part-*.parquet"
DOCUMENT = "document.json"

Artifact = Table | PrivateTable | Adapter | Document


class UnreadableArtifact(ValueError):
    """A folder that holds no known artifact."""


def write_artifact(folder: Path, artifact: Artifact) -> None:
    """Write an artifact into an empty folder."""
    match artifact:
        case Table():
            _write_shards(folder, artifact.rows, {"charge_ids": artifact.charge_ids})
        case PrivateTable():
            provenance = {"corpus_id": artifact.corpus_id, "snapshot": artifact.snapshot}
            artifact.store(lambda rows: _write_shards(folder, rows, provenance))
        case Adapter():
            save_adapter(artifact, folder)
        case Document():
            content = {"charge_ids": artifact.charge_ids, "data": artifact.data}
            (folder / DOCUMENT).write_text(json.dumps(content, indent=2))
            (folder / "document.md").write_text(artifact.markdown)


def read_artifact(folder: Path) -> Artifact:
    """The artifact in a folder; tables are scanned lazily.

    Raises:
      UnreadableArtifact: the folder is missing or holds no artifact.
    """
    if (folder / CONFIG_FILE).exists():
        return load_adapter(folder)
    if (folder / DOCUMENT).exists():
        content = json.loads((folder / DOCUMENT).read_text())
        return Document(content["data"], (folder / "document.md").read_text(), tuple(content["charge_ids"]))
    shards = sorted(folder.glob(SHARDS))
    if not shards:
        raise UnreadableArtifact(f"no artifact in {folder}; materialize the asset {folder.parent.name} first")
    provenance = json.loads(pl.read_parquet_metadata(shards[0])[PROVENANCE])
    rows = pl.scan_parquet(shards)
    if "corpus_id" in provenance:
        return PrivateTable(rows, corpus_id=provenance["corpus_id"], snapshot=provenance["snapshot"])
    return Table(rows, tuple(provenance["charge_ids"]))


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
