"""The layout of each kind of artifact as a folder, used by the IO manager and the store of releases.

    Table          part-<number>-<tag>.parquet, with provenance in the Parquet key-value metadata
    PrivateTable   part-<number>-<tag>.parquet, with provenance in provenance.json beside them
    Adapter        a PEFT adapter folder plus provenance.json
    Document       document.json, document.md, and document.html if it has one

A private table is passed to an asset before a charge is made, so its provenance lies outside the files of its rows:
none of them is opened until the rows are used.

The tag binds rows to provenance. A table is read twice: its provenance when it is passed to an asset, and its rows when
they are used. Its folder may be replaced in between. Two tables never share a file name, so the second read then fails
instead of reading rows of other charges or another corpus. `read_kept` keeps a private table readable in that case. The
tag of a released shard is a digest of its content, so that equal tables have equal folders. The tag of a private shard
is random, because a digest of private rows could be compared.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table
from dp_assets.privacy.errors import PublicError
from resources.storage.adapter_io import CONFIG_FILE, PROVENANCE_FILE, load_adapter, save_adapter
from resources.storage.scratch import Scratch

MAX_ROWS_PER_SHARD = 100_000
TAG_BYTES = 8
PROVENANCE = "dp_instructions"
SHARDS = "part-*.parquet"
PRIVATE_PROVENANCE = ("corpus_id", "snapshot", "preparation", "made_with", "empty_cohorts")
SHARD_NAMES, WIDTHS = "shards", "widths"
DOCUMENT, MARKDOWN_PAGE, HTML_PAGE = "document.json", "document.md", "document.html"

Artifact = Table | PrivateTable | Adapter | Document


class UnreadableArtifact(PublicError, ValueError):
    """A folder holds no known artifact."""


UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    pl.exceptions.PolarsError,
)
"""The errors of reading an artifact that another program may have written."""


def write_artifact(folder: Path, artifact: Artifact) -> None:
    """Write an artifact into an empty folder."""
    match artifact:
        case Table():
            provenance = {"charge_ids": artifact.charge_ids, "record": dict(artifact.record)}
            _write_shards(folder, artifact.rows, metadata={PROVENANCE: json.dumps(provenance)}, tag=_content_tag)
        case PrivateTable():
            known = {name: getattr(artifact, name) for name in PRIVATE_PROVENANCE}
            artifact.store(lambda rows: _write_private(folder, rows, known))
        case Adapter():
            save_adapter(artifact, folder)
        case Document():
            content = {"charge_ids": artifact.charge_ids, "data": artifact.data}
            (folder / DOCUMENT).write_text(json.dumps(content, indent=2), encoding="utf-8")
            (folder / MARKDOWN_PAGE).write_text(artifact.markdown, encoding="utf-8")
            if artifact.html is not None:
                (folder / HTML_PAGE).write_text(artifact.html, encoding="utf-8")


def read_kept(folder: Path, private_root: Path) -> Artifact:
    """Return the artifact in a folder. The rows of a private table stay readable when the folder is replaced.

    For this, its files are hard-linked into a scratch folder of this process, which takes no space and is removed with
    the table. On a file system without hard links, the rows of a replaced table can no longer be read.
    """
    if not (folder / PROVENANCE_FILE).exists() or (folder / CONFIG_FILE).exists():
        return read_artifact(folder)
    scratch = Scratch(str(private_root))
    try:
        for path in folder.iterdir():
            os.link(path, scratch.folder / path.name)
    except OSError:
        scratch.remove()
        return read_artifact(folder)
    return _read_private(scratch.folder, held=scratch)


def read_artifact(folder: Path) -> Artifact:
    """Return the artifact in a folder; tables are scanned lazily.

    Raises:
      UnreadableArtifact: the folder is missing, holds no artifact, or was replaced while it was read.
    """
    if (folder / CONFIG_FILE).exists():
        return _read_whole(folder, load_adapter)
    if (folder / DOCUMENT).exists():
        return _read_whole(folder, _read_document)
    if (folder / PROVENANCE_FILE).exists():
        return _read_private(folder)
    shards = _shards(folder)
    provenance = json.loads(pl.read_parquet_metadata(shards[0])[PROVENANCE])
    if "charge_ids" not in provenance:
        raise UnreadableArtifact(f"the private table in {folder} is of an earlier version; materialize it again")
    return Table(pl.scan_parquet(shards), tuple(provenance["charge_ids"]), provenance.get("record", {}))


def _read_private(folder: Path, *, held: object = None) -> PrivateTable:
    """Return the private table of a folder. Only its provenance is read; a shard is opened when its rows are."""
    provenance = json.loads((folder / PROVENANCE_FILE).read_text())
    rows = pl.scan_parquet([folder / name for name in provenance[SHARD_NAMES]])
    known = {name: provenance[name] for name in PRIVATE_PROVENANCE}
    return PrivateTable(rows, **known, widths=provenance[WIDTHS], held=held)


def _read_whole(folder: Path, read: Callable[[Path], Artifact]) -> Artifact:
    """Return an artifact of several files. Refuse one that was replaced meanwhile: it could mix two artifacts."""
    before = folder.stat()
    artifact = read(folder)
    if not os.path.samestat(before, folder.stat()):
        raise UnreadableArtifact(f"{folder} was replaced while it was read; run again")
    return artifact


def stored_charge_ids(folder: Path, *, shards: str = SHARDS) -> tuple[str, ...]:
    """Return the charge ids stored with a released artifact, also in a copy elsewhere. Reads no rows or tensors.

    Args:
      shards: pattern of the names of a table's files there.

    Raises:
      UnreadableArtifact: the folder holds no artifact, or a private one, which is no release.
    """
    provenances = list(_provenances(folder, shards))
    if any("charge_ids" not in provenance for provenance in provenances):
        raise UnreadableArtifact(f"{folder} does not say what it descends from: it is private, or no release of ours")
    return tuple(sorted({charge_id for provenance in provenances for charge_id in provenance["charge_ids"]}))


def stored_record(folder: Path) -> Mapping[str, Any]:
    """Return the public facts stored with a released table or adapter. Reads no rows or tensors.

    Raises:
      UnreadableArtifact: the folder holds no artifact.
    """
    record: Mapping[str, Any] = next(_provenances(folder)).get("record", {})
    return record


def _provenances(folder: Path, shards: str = SHARDS) -> Iterator[Mapping[str, Any]]:
    """Yield the provenance stored with each part of an artifact."""
    for file in (PROVENANCE_FILE, DOCUMENT):
        if (folder / file).exists():
            yield json.loads((folder / file).read_text())
            return
    for shard in _shards(folder, shards):
        yield json.loads(pl.read_parquet_metadata(shard).get(PROVENANCE, "{}"))


def _read_document(folder: Path) -> Document:
    content = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    html = (folder / HTML_PAGE).read_text(encoding="utf-8") if (folder / HTML_PAGE).exists() else None
    return Document(
        content["data"], (folder / MARKDOWN_PAGE).read_text(encoding="utf-8"), tuple(content["charge_ids"]), html
    )


def _shards(folder: Path, pattern: str = SHARDS) -> list[Path]:
    shards = sorted(folder.glob(pattern))
    if not shards:
        raise UnreadableArtifact(f"no artifact in {folder}; it was deleted or never made")
    return shards


def _write_private(folder: Path, rows: pl.LazyFrame, known: Mapping[str, Any]) -> None:
    """Write the rows of a private table, and the provenance that is known without reading them."""
    _write_shards(folder, rows, metadata={}, tag=_drawn_tag)
    widths = {name: kind.size for name, kind in rows.collect_schema().items() if isinstance(kind, pl.Array)}
    names = [shard.name for shard in _shards(folder)]
    (folder / PROVENANCE_FILE).write_text(json.dumps({**known, WIDTHS: widths, SHARD_NAMES: names}))


def _write_shards(folder: Path, rows: pl.LazyFrame, *, metadata: dict[str, str], tag: Callable[[Path], str]) -> None:
    """Stream rows into numbered and tagged shards. An empty table gets one shard too, which keeps its schema."""
    shards = pl.PartitionBy(
        folder,
        file_path_provider=lambda shard: f"part-{shard.index_in_partition:05d}.parquet",
        max_rows_per_file=MAX_ROWS_PER_SHARD,
    )
    rows.sink_parquet(shards, metadata=metadata, mkdir=True)
    if not list(folder.glob(SHARDS)):
        rows.sink_parquet(folder / "part-00000.parquet", metadata=metadata)
    for shard in list(folder.glob(SHARDS)):
        shard.rename(shard.with_stem(f"{shard.stem}-{tag(shard)}"))


def _content_tag(shard: Path) -> str:
    with shard.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[: 2 * TAG_BYTES]


def _drawn_tag(_: Path) -> str:
    return secrets.token_hex(TAG_BYTES)
