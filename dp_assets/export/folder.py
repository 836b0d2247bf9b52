"""Writes an export: tables, models, documents, cards, manifest and checksums, in one folder that appears as a whole.

README.md                       data set card
data/<config>/train-*.parquet   tables, one config each
models/<name>/                  PEFT adapters with model cards
merged/<name>/                  full models, on request
privacy_statement/              document.json, .md, .html
quality_report/                 document.json, .md
export.json                     what was exported, its charges and their cost, for programs
SHA256SUMS                      of every other file
"""

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from dp_assets.artifacts import Document
from dp_assets.export.cards import SPLIT, CardSettings, Contents, dataset_card, model_card
from dp_assets.export.names import Names, renamed
from dp_assets.export.parts import STATEMENT, ExportRefused, Kind, Part
from dp_assets.export.release import Release, identities
from dp_assets.export.target import CARD, MANIFEST, MARK, MERGED, write_checksums
from dp_assets.privacy.labels import Zone
from dp_assets.statements.statement import restated
from dp_assets.statements.statement_pages import to_html, to_markdown
from resources.storage.adapter_io import CONFIG_FILE, PROVENANCE_FILE, WEIGHTS_FILE
from resources.storage.artifact_files import DOCUMENT, HTML_PAGE, MARKDOWN_PAGE, PROVENANCE, SHARDS, write_artifact
from resources.storage.digests import code_digest, file_digests
from resources.storage.zones import atomic_folder

FORMAT = 2
NAMING_COLUMN = "annotator"
EXPORTED_SHARDS = f"{SPLIT}-*.parquet"

Merge = Callable[[Part, Path, Path], None]
"""Writes a full model: the part, the folder of its adapter, and where the model goes."""


def write_export(
    target: Path, release: Release, settings: CardSettings, *, names: Names, merge: Merge | None = None
) -> None:
    """Write a release to `target`, which either becomes the whole export or stays unchanged.

    Args:
      target: the folder to write.
      release: what to export.
      settings: the user's choices for the cards.
      names: public names that replace paths of this machine.
      merge: writes full models; None writes none.

    Raises:
      ExportRefused: a run replaced an artifact meanwhile, or a column has a name that no asset uses.
    """
    base_model = names.get(release.statement["base_model"], release.statement["base_model"])
    with atomic_folder(target, Zone.RELEASED) as folder:
        _write_tables(folder, release, names)
        contents = contents_of(release.folders, shards=SHARDS)
        for part, source in _of_kind(release, Kind.MODEL):
            card = partial(model_card, release, part, settings, base_model=base_model)
            _write_adapter(source, folder / Kind.MODEL / part.name, names, card(merged=False))
            if merge is not None:
                merge(part, source, folder / MERGED / part.name)
                (folder / MERGED / part.name / CARD).write_text(card(merged=True), encoding="utf-8")
        for part, source in _of_kind(release, Kind.DOCUMENT):
            _copy_document(source, folder / part.asset)
        (folder / CARD).write_text(dataset_card(release, contents, settings, base_model=base_model), encoding="utf-8")
        merged = {part.name for part, _ in _of_kind(release, Kind.MODEL)} if merge is not None else set()
        manifest = manifest_of(release, contents, settings, merged=merged, code=code_digest())
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        _write_statement(release, folder, names)
        write_checksums(folder)
        if identities(release.found) != release.found:
            raise ExportRefused("a run replaced an artifact during the export; export again once the run has ended")


def _of_kind(release: Release, kind: Kind) -> list[tuple[Part, Path]]:
    return [(part, folder) for part, folder in release.folders.items() if part.kind is kind]


def _write_tables(folder: Path, release: Release, names: Names) -> None:
    for part, source in _of_kind(release, Kind.TABLE):
        shards = sorted(source.glob(SHARDS))
        config_folder = folder / Kind.TABLE / part.name
        config_folder.mkdir(parents=True)
        for number, shard in enumerate(shards):
            _write_shard(shard, config_folder / f"{SPLIT}-{number:05d}-of-{len(shards):05d}.parquet", names)


def contents_of(folders: Mapping[Part, Path], *, shards: str) -> Contents:
    """Return the rows and columns of the tables among these parts.

    Args:
      folders: the folder of each part.
      shards: the pattern of the files of a table there.
    """
    rows, columns = {}, {}
    for part, folder in folders.items():
        if part.kind is not Kind.TABLE:
            continue
        scanned = pl.scan_parquet(sorted(folder.glob(shards)))
        rows[part.name] = scanned.select(pl.len()).collect().item()
        columns[part.name] = _columns(part, scanned)
    return Contents(rows, columns)


def _columns(part: Part, table: pl.LazyFrame) -> list[str]:
    """Return the names of a table's columns. The card shows them unescaped, so only letters, digits and _ may occur."""
    names = table.collect_schema().names()
    if not all(re.fullmatch("[A-Za-z0-9_]+", name) for name in names):
        raise ExportRefused(
            f"{part.asset} has a column whose name holds more than letters, digits and _; materialize it again"
        )
    return names


def _write_shard(source: Path, target: Path, names: Names) -> None:
    """Copy a shard; replace the name of an annotator that is a folder of this machine."""
    if not names or NAMING_COLUMN not in pl.read_parquet_schema(source):
        shutil.copyfile(source, target)
        return
    named = pl.read_parquet(source).with_columns(pl.col(NAMING_COLUMN).replace(dict(names)))
    named.write_parquet(target, metadata={PROVENANCE: pl.read_parquet_metadata(source)[PROVENANCE]})


def _write_adapter(source: Path, target: Path, names: Names, card: str) -> None:
    target.mkdir(parents=True)
    shutil.copyfile(source / WEIGHTS_FILE, target / WEIGHTS_FILE)
    for name in (CONFIG_FILE, PROVENANCE_FILE):
        value = renamed(json.loads((source / name).read_text(encoding="utf-8")), names)
        (target / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (target / CARD).write_text(card, encoding="utf-8")


def _copy_document(source: Path, target: Path) -> None:
    """Copy the files of a document, and no other file beside them."""
    target.mkdir()
    for name in (DOCUMENT, MARKDOWN_PAGE, HTML_PAGE):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


def _write_statement(release: Release, folder: Path, names: Names) -> None:
    """Write the statement with public names, and with the digest of every file that is in the folder so far."""
    statement = restated(renamed(dict(release.statement), names), files=file_digests(folder, below=folder))
    ids = tuple(statement["ledger"]["charge_ids"])
    (folder / STATEMENT).mkdir()
    write_artifact(folder / STATEMENT, Document(statement, to_markdown(statement), ids, to_html(statement)))


def manifest_of(
    release: Release, contents: Contents, settings: CardSettings, *, merged: Collection[str], code: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the manifest. All but `code`, `card` and `out_of_date` follows from the statement and the parts.

    Args:
      release: what is exported.
      contents: the rows and columns of its tables.
      settings: the user's choices for the cards.
      merged: the parts that are exported as full models too.
      code: the source code that made the export.
    """
    parts = {
        part.name: {
            "asset": part.asset,
            "rows": contents.rows.get(part.name),
            "merged": part.name in merged,
            "charge_ids": cost["charge_ids"],
            "lineage_epsilon": cost["lineage_epsilon"],
        }
        for part, cost in release.costs.items()
    }
    return {
        "kind": MARK,
        "format": FORMAT,
        "code": dict(code),
        "partition": release.partition,
        "parts": parts,
        "together": release.together,
        "out_of_date": list(release.out_of_date),
        "card": asdict(settings),
    }
