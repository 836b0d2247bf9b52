"""The cards of an export: README.md files with the front matter that the Hugging Face hub reads, and the guarantee.

`huggingface_hub` writes the front matter, so that no name can break its syntax. A card repeats what the privacy
statement and the ledger say, the cohort's figure first, and adds no claim of its own.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import DatasetCardData, ModelCardData

from dp_assets.export.parts import STATEMENT, ExportRefused, Kind, Part
from dp_assets.export.release import Release
from dp_assets.privacy.units import relation_in_words
from dp_assets.statements.pages import number
from dp_assets.vocabulary import Partition

SPLIT = "train"
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
TAGS = ["differential-privacy", "synthetic", "instructions"]
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
PACKAGED_NOTE = (
    "It was trained on the packaged 4-bit weights of this model, which differ a little from the hub's full-precision"
    " ones."
)


@dataclass(frozen=True)
class CardSettings:
    """What a card cannot take from the release.

    license_id, languages   the user's choice, as ids of the hub
    renamed                 whether paths of this machine were replaced by public names
    packaged_base           whether the base model is the packaged one

    Raises:
      ExportRefused: a license or a language is not an id of the hub.
    """

    license_id: str | None
    languages: tuple[str, ...]
    renamed: bool
    packaged_base: bool

    def __post_init__(self) -> None:
        for name, value in (("license", self.license_id), *(("language", language) for language in self.languages)):
            if value is not None and not HUB_ID.fullmatch(value):
                raise ExportRefused(
                    f"--{name} must be an id of the hub, such as cc-by-4.0 or en: letters, digits, . and -"
                )

    @staticmethod
    def of(form: Mapping[str, Any]) -> "CardSettings":
        """Read the settings from a manifest, which may come from anybody.

        Raises:
          ExportRefused: they have another form.
        """
        settings = CardSettings(**{**form, "languages": tuple(form["languages"])})
        if type(settings.renamed) is not bool or type(settings.packaged_base) is not bool:
            raise ExportRefused("the manifest holds invalid settings for the cards; export again")
        return settings


@dataclass(frozen=True)
class Contents:
    """Rows and columns of each table of an export, in the order of its configs."""

    rows: Mapping[str, int]
    columns: Mapping[str, Sequence[str]]


def dataset_card(release: Release, contents: Contents, settings: CardSettings, *, base_model: str) -> str:
    """Return the README.md of the whole folder."""
    title = f"Synthetic instructions, {_scope(release)}"
    front = DatasetCardData(
        pretty_name=title,
        license=settings.license_id,
        language=list(settings.languages) or None,
        task_categories=["text-generation"] if contents.rows else None,
        size_categories=_size(max(contents.rows.values())) if contents.rows else None,
        tags=TAGS,
        configs=_configs(contents) or None,
    )
    sections = [
        f"# {title}",
        f"Made by dp-instructions from real instructions under differential privacy, with `{base_model}` as the base"
        " model. The instructions are samples of a generator: whoever wrote the real ones appears here only through the"
        " mechanisms that the statement accounts for.",
        *_guarantee(release, release.together["lineage_epsilon"], "Everything in this folder together"),
        *_tables(release, contents),
        *_models(release),
        *_reports(release),
        *_not_covered(release),
        *_notes(release, settings),
        "## Checking what you got\n\n    sha256sum -c SHA256SUMS\n    dp-instructions verify"
        f" {STATEMENT}/document.json\n\nThe first command finds files that were changed, the second one recomputes the"
        " figures of the statement from its events, offline.",
    ]
    return _page(front.to_yaml(), sections)


def model_card(release: Release, part: Part, settings: CardSettings, *, base_model: str, merged: bool) -> str:
    """Return the README.md of an adapter, or of a base model with the adapter merged into it."""
    front = ModelCardData(
        base_model=base_model,
        base_model_relation="finetune" if merged else "adapter",
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-classification" if part.is_scorer else "text-generation",
        license=settings.license_id,
        language=list(settings.languages) or None,
        tags=[*TAGS[:2], *([] if merged else ["lora"])],
    )
    form = "a full model, merged from a LoRA adapter and its base" if merged else "a LoRA adapter"
    note = f" {PACKAGED_NOTE}" if settings.packaged_base else ""
    sections = [
        f"# {part.name}, {_scope(release)}",
        f"{_sentence(part.meaning)}: {form}. Base model: `{base_model}`.{note}",
        f"```python\n{_loading(part, base_model, merged)}\n```",
        *_guarantee(release, release.costs[part]["lineage_epsilon"], "This model alone"),
        *_not_covered(release),
        f"The whole statement is in [{STATEMENT}](../../{STATEMENT}/document.md).",
        *_notes(release, settings),
    ]
    return _page(front.to_yaml(), sections)


def _scope(release: Release) -> str:
    partition = Partition.named(release.partition)
    return f"cohort {partition.cohort}, level {partition.level}"


def _configs(contents: Contents) -> list[dict[str, Any]]:
    """Return one config for each table. The first is the default."""
    return [
        {
            "config_name": name,
            "data_files": [{"split": SPLIT, "path": f"{Kind.TABLE}/{name}/{SPLIT}-*.parquet"}],
            **({"default": True} if number == 0 else {}),
        }
        for number, name in enumerate(contents.rows)
    ]


def _size(rows: int) -> str:
    """Return the hub's category for a number of rows."""
    return SIZES[min(len(SIZES) - 1, max(0, len(str(rows)) - 3))]


def _guarantee(release: Release, lineage_epsilon: float | None, alone: str) -> list[str]:
    """Return the guarantee of the folder or of one part, the cohort's figure first."""
    statement = release.statement
    guarantee, terms, budget = statement["guarantee"], statement["terms"], statement["budget"]["epsilon"]
    headline = f"epsilon {number(guarantee['headline_epsilon'])} at delta {number(terms['delta'])}"
    items = [
        f"**Cohort (the headline): {headline}**. It rests on: {guarantee['headline_basis']}. Budget of the cohort:"
        f" epsilon {number(budget)}.",
        f"{alone}: epsilon {number(lineage_epsilon)}, if what was run and released was fixed before anybody saw a"
        " result. Only the headline allows for choices made after that.",
        f"Delta: {number(terms['delta'])}, the chance that epsilon fails to hold.",
        f"Unit: one {terms['unit_in_words']}, with at most {terms['max_rows_per_unit']} rows.",
        f"Relation: {relation_in_words(terms['relation'])}, one unit more or less, so how many units there are"
        " is hidden too.",
    ]
    return ["## The guarantee", "\n".join(f"- {item}" for item in items)]


def _not_covered(release: Release) -> list[str]:
    return ["## Not covered", "\n".join(f"- {item}" for item in release.statement["not_covered"])]


def _tables(release: Release, contents: Contents) -> list[str]:
    if not contents.rows:
        return []
    parts = {part.name: part for part in release.folders}
    lines = ["| config | rows | columns | what it is | epsilon of its lineage |", "| --- | ---: | --- | --- | --- |"]
    for name, rows in contents.rows.items():
        columns = ", ".join(f"`{column}`" for column in contents.columns[name])
        cost = number(release.costs[parts[name]]["lineage_epsilon"])
        lines.append(f"| `{name}` | {rows:,} | {columns} | {parts[name].meaning} | {cost} |")
    first = next(iter(contents.rows))
    code = (
        f'```python\nfrom datasets import load_dataset\n\nrows = load_dataset("path/of/this/folder", "{first}",'
        f' split="{SPLIT}")\n```'
    )
    return ["## Tables", "\n".join(lines), f"Without a name, `{first}` is opened. There is one split.", code]


def _models(release: Release) -> list[str]:
    models = [part for part in release.folders if part.kind is Kind.MODEL]
    lines = [
        f"- [{Kind.MODEL}/{part.name}]({Kind.MODEL}/{part.name}): {part.meaning}; epsilon of its lineage"
        f" {number(release.costs[part]['lineage_epsilon'])}"
        for part in models
    ]
    return ["## Models", "\n".join(lines)] if lines else []


def _reports(release: Release) -> list[str]:
    lines = [
        f"- [{part.asset}]({part.asset}/document.md): {part.meaning}"
        for part in release.folders
        if part.kind is Kind.DOCUMENT
    ]
    statement = f"- [{STATEMENT}]({STATEMENT}/document.md): the guarantee in full, for people and for programs"
    return ["## Reports", "\n".join([statement, *lines])]


def _notes(release: Release, settings: CardSettings) -> list[str]:
    """Return the notes on this export, if there are any."""
    notes = []
    if release.out_of_date:
        notes.append(
            f"Exported as it was stored: {', '.join(release.out_of_date)} would be made anew under the present"
            " configuration."
        )
    if settings.renamed:
        notes.append(
            "Paths of the machine that made this were replaced by public names, in the statement too; its digests over"
            " those names were taken anew, its facts and figures are the same."
        )
    if settings.license_id is None:
        notes.append("No licence was stated; ask whoever gave you this before you use it.")
    return ["## Notes", "\n".join(f"- {note}" for note in notes)] if notes else []


def _loading(part: Part, base_model: str, merged: bool) -> str:
    """Return the code that opens a model with the usual libraries."""
    automatic = "AutoModelForSequenceClassification" if part.is_scorer else "AutoModelForCausalLM"
    labels = ", num_labels=1" if part.is_scorer and not merged else ""
    folder = f"path/of/the/export/{'merged' if merged else Kind.MODEL}/{part.name}"
    if merged:
        return f'from transformers import {automatic}\n\nmodel = {automatic}.from_pretrained("{folder}")'
    return (
        f"from peft import PeftModel\nfrom transformers import {automatic}\n\n"
        f"base = {automatic}.from_pretrained({json.dumps(base_model)}{labels})\n"
        f'model = PeftModel.from_pretrained(base, "{folder}")'
    )


def _page(front: str, sections: Sequence[str]) -> str:
    return f"---\n{front.strip()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
