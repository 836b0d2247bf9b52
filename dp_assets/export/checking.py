"""Checks that an export agrees with its statement: its manifest, its cards, and what each part descends from.

All of these are built anew from the statement and from the charge ids stored with the files, by the code that writes an
export, and compared with the files. Not checked are the texts of reports, and what the user chose for the cards.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dp_assets.export.cards import CardSettings, Contents, dataset_card, model_card
from dp_assets.export.folder import EXPORTED_SHARDS, contents_of, manifest_of
from dp_assets.export.parts import PARTS, STATEMENT, ExportRefused, Kind, Part, lacking
from dp_assets.export.release import Release, mechanisms_of_charges
from dp_assets.export.target import CARD, MANIFEST, MERGED
from dp_assets.privacy.labels import NO_DP
from dp_assets.statements.declared import Code, declared_as, model_name
from dp_assets.statements.figures import joint_figures
from dp_assets.statements.reading import MOST_BYTES, StatementError, strict_json
from dp_assets.statements.verification import DIFFERENCES_NAMED, differences
from resources.storage.adapter_io import CONFIG_FILE, PROVENANCE_FILE, WEIGHTS_FILE
from resources.storage.artifact_files import DOCUMENT, UNREADABLE, stored_charge_ids
from resources.storage.digests import holds, is_plain

TABLES, MODELS, DOCUMENTS = (
    "|".join(part.asset if kind is Kind.DOCUMENT else part.name for part in PARTS if part.kind is kind) for kind in Kind
)
MERGED_FILE = (
    rf"{CARD}|(generation_)?config\.json|(model|tf_model)\.safetensors(\.index\.json)?"
    r"|model-[0-9]+-of-[0-9]+\.safetensors|(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json"
    r"|(vocab|merges)\.txt|(tokenizer|spiece|sentencepiece\.bpe)\.model|chat_template\.(jinja|json)"
)
"""The files that transformers writes for a model and its tokenizer."""
EXPORTED_FILE = re.compile(
    rf"{CARD}|{re.escape(MANIFEST)}|{Kind.TABLE}/({TABLES})/train-[0-9]+-of-[0-9]+\.parquet|{MERGED}/({MODELS})/({MERGED_FILE})"
    rf"|{Kind.MODEL}/({MODELS})/(adapter_model\.safetensors|adapter_config\.json|provenance\.json|{CARD})"
    rf"|({DOCUMENTS})/document\.(json|md|html)"
)


def problems_of_export(root: Path, statement: Mapping[str, Any]) -> list[str]:
    """Return the differences between an export and its statement. The export's files are those that it names."""
    if foreign := sorted(name for name in statement["files"] if not EXPORTED_FILE.fullmatch(name)):
        return [f"{foreign[0]} is not a file of an export"]
    try:
        return list(_differences(root, statement))[:DIFFERENCES_NAMED]
    except (StatementError, ExportRefused) as error:
        return [str(error)]
    except UNREADABLE:
        return ["a part or its manifest cannot be read, or does not say what it descends from"]


def _differences(root: Path, statement: Mapping[str, Any]) -> Iterator[str]:
    manifest = _json(root / MANIFEST)
    folders = {part: folder for part in PARTS if (folder := folder_of(root, part)).is_dir()}
    for part, folder in folders.items():
        yield from _texts(part, folder, statement["base_model"])
    ids = {part: stored_charge_ids(folder, shards=EXPORTED_SHARDS) for part, folder in folders.items()}
    for part, own in ids.items():
        if set(own) - set(statement["ledger"]["charge_ids"]):
            yield f"{part.name} descends from charges that the statement lacks"
        if lacks := lacking(part.asset, mechanisms_of_charges(statement, own)):
            yield f"{part.name} names no charge of {', '.join(lacks)}, from which every artifact of it descends"
    release = _release(folders, ids, statement, manifest["out_of_date"])
    settings, contents = CardSettings.of(manifest["card"]), contents_of(folders, shards=EXPORTED_SHARDS)
    merged = {path.name for path in (root / MERGED).glob("*")}
    for name in sorted(merged - {part.name for part in folders if part.kind is Kind.MODEL}):
        yield f"{MERGED}/{name} is not a model of the export"
    code = declared_as(Code, manifest["code"])
    expected = manifest_of(release, contents, settings, merged=merged, code=code)
    yield from differences(manifest, json.loads(json.dumps(expected)), MANIFEST)
    yield from _cards(root, release, contents, settings, merged)


def _json(file: Path) -> Any:
    with file.open("rb") as stream:
        return strict_json(stream.read(MOST_BYTES + 1))


def _texts(part: Part, folder: Path, base_model: str) -> Iterator[str]:
    """Yield what the JSON files of a model or a report hold beyond their purpose, or say of another base model."""
    if part.kind is Kind.DOCUMENT:
        yield from _further(part, DOCUMENT, _json(folder / DOCUMENT), {"charge_ids", "data"})
    if part.kind is not Kind.MODEL:
        return
    from peft import LoraConfig

    config, provenance = _json(folder / CONFIG_FILE), _json(folder / PROVENANCE_FILE)
    yield from _further(part, CONFIG_FILE, config, set(LoraConfig.__dataclass_fields__))
    yield from _further(part, PROVENANCE_FILE, provenance, {"base_model", "charge_ids", "record"})
    for file, named in ((CONFIG_FILE, config["base_model_name_or_path"]), (PROVENANCE_FILE, provenance["base_model"])):
        if model_name(named) != base_model:
            yield f"{file} of {part.name} names another base model than the statement"
    if not is_plain(folder / WEIGHTS_FILE):
        yield f"{part.name} has no {WEIGHTS_FILE}"


def _further(part: Part, file: str, found: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    if set(found) - known:
        yield f"{file} of {part.name} holds more than {', '.join(sorted(known & set(found)))}"


def folder_of(root: Path, part: Part) -> Path:
    """Return the folder of a part in an export."""
    return root / part.asset if part.kind is Kind.DOCUMENT else root / part.kind / part.name


def _release(
    folders: Mapping[Part, Path], ids: Mapping[Part, tuple[str, ...]], statement: Mapping[str, Any], out_of_date: Any
) -> Release:
    """Return the release behind an export, as its statement and parts describe it."""
    named = statement["release"]
    (cohort,), (level,) = named["cohorts"], named["levels"]
    known = {STATEMENT, *(part.asset for part in PARTS)}
    if level == NO_DP or not isinstance(out_of_date, list) or not set(out_of_date) <= known:
        raise ExportRefused(f"{MANIFEST} names unknown assets, or the level is {NO_DP}")
    return Release(
        partition=f"{cohort}|{level}",
        folders=folders,
        statement=statement,
        costs={part: joint_figures(statement, own) for part, own in ids.items()},
        together=joint_figures(statement, statement["ledger"]["charge_ids"]),
        out_of_date=tuple(out_of_date),
        found={},
    )


def _cards(root: Path, release: Release, contents: Contents, settings: CardSettings, merged: set[str]) -> Iterator[str]:
    base_model = release.statement["base_model"]
    cards = {root / CARD: dataset_card(release, contents, settings, base_model=base_model)}
    for part in (part for part in release.folders if part.kind is Kind.MODEL):
        cards[root / Kind.MODEL / part.name / CARD] = model_card(
            release, part, settings, base_model=base_model, merged=False
        )
        if part.name in merged:
            cards[root / MERGED / part.name / CARD] = model_card(
                release, part, settings, base_model=base_model, merged=True
            )
    for file, card in cards.items():
        if not holds(file, card.encode()):
            yield f"{file.relative_to(root).as_posix()} does not say what the statement says"
