"""`dp-instructions handoff`: released rows out to people as tasks for Label Studio, and a look at what comes back.

Only what lies in the released zone is handed out, and only while it is up to date, so that nobody works on rows that
the next run replaces. What comes back is taken in by the assets themselves, from the path that the profile names.
"""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer
from rich.table import Table as RichTable

from dp_assets.artifacts import Adapter, Table, union_of_ids
from dp_assets.assets._preferring import kept_samples, sample_kept
from dp_assets.cli._console import AsJson, HandoffRefused, out, print_json, refusals
from dp_assets.cli.pipeline import stale_assets
from dp_assets.privacy.labels import Label, Zone, zone
from dp_assets.profiles import selected_profile
from resources.artifact_files import read_artifact
from resources.build import build_resources
from resources.profile import Profile
from resources.stores import artifact_folder
from resources.zones import atomic_file, data_home

if TYPE_CHECKING:
    from dp_assets.alignment.handoff import Taken

handoff_app = typer.Typer(no_args_is_help=True, help="Hand released rows to people, and look at what comes back.")


class Kind(StrEnum):
    """What is handed out."""

    INSTRUCTIONS = "instructions"
    PAIRS = "pairs"


HANDED_OUT = {Kind.INSTRUCTIONS: ("filtered_instructions",), Kind.PAIRS: ("annotated_instructions", "sft_model")}
"""The assets that tasks are made from; the first holds the rows that what comes back is held against."""

SETTINGS = {Kind.INSTRUCTIONS: "annotation", Kind.PAIRS: "preferences"}

KindArgument = Annotated[Kind, typer.Argument(help="instructions to be answered, or pairs of answers to be compared")]
PartitionOption = Annotated[str, typer.Option("--partition", help="cohort|level, for example 'all|eps-8'")]


@handoff_app.command("export")
@refusals
def export(
    kind: KindArgument,
    partition: PartitionOption,
    to: Annotated[Path, typer.Option("--to", file_okay=False, help="The folder for tasks and configuration.")],
    as_json: AsJson = False,
) -> None:
    """Write tasks and the labelling configuration for a Label Studio project, and what the tasks descend from."""
    artifacts = _released(kind, partition)
    tasks, left_out = _tasks(kind, partition, artifacts)
    files = _write(to, kind, partition, tasks, union_of_ids(*artifacts))
    if as_json:
        print_json({"tasks": len(tasks), "left_out": left_out, "files": [str(path) for path in files]})
        return
    out.print(f"{len(tasks)} tasks of {partition}", highlight=False)
    for reason, number in left_out.items():
        out.print(f"{number} pairs left out: {reason}", highlight=False)
    out.print(*(f"  {path}" for path in files), sep="\n", highlight=False, soft_wrap=True)


@handoff_app.command("check")
@refusals
def check(
    kind: KindArgument,
    partition: PartitionOption,
    file: Annotated[Path | None, typer.Option(help="The export to look at, instead of the profile's path.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what the asset would take from an export of Label Studio, and what not and why. Stores nothing."""
    rows = _released(kind, partition)[0]
    assert isinstance(rows, Table)
    taken = _take(kind, partition, _path(kind, file), rows.collect())
    if as_json:
        drops = [{"reason": drop.reason, "synthetic_id": drop.synthetic_id} for drop in taken.dropped]
        print_json({"taken": taken.rows.height, "annotators": taken.num_annotators, "dropped": drops})
        return
    out.print(f"{taken.rows.height} rows can be taken", highlight=False)
    table = RichTable("dropped", "how many", "first ids")
    for reason, number in taken.counts.items():
        table.add_row(reason, str(number), ", ".join(taken.ids.get(reason, [])))
    if taken.dropped:
        out.print(table)


def _released(kind: Kind, partition: str) -> list[Table | Adapter]:
    """The artifacts that tasks of this kind are made from.

    Raises:
      HandoffRefused: they lie in the private zone, or are missing or out of date.
      typer.BadParameter: there is no such partition.
    """
    from dp_assets.partitions import RELEASES
    from dp_assets.running import persistent_instance

    if not RELEASES.has_partition_key(partition):
        known = ", ".join(RELEASES.get_partition_keys())
        raise typer.BadParameter(f"partition {partition!r} is none of {known}")
    if zone(Label.RELEASED, partition.split("|")[-1]) is not Zone.RELEASED:
        raise HandoffRefused(
            f"{partition} lies in the private zone, because it is made without noise; hand out another level"
        )
    with persistent_instance() as instance:
        stale = {key.to_user_string() for key in stale_assets(instance, partition)}
    if missing := [asset for asset in HANDED_OUT[kind] if asset in stale]:
        raise HandoffRefused(
            f"{' and '.join(missing)} of {partition} are missing or out of date; run dp-instructions run"
            f" '{partition}' first"
        )
    folders = [artifact_folder(data_home(), [asset], Label.RELEASED, partition) for asset in HANDED_OUT[kind]]
    return [_handed_out(read_artifact(folder)) for folder in folders]


def _handed_out(artifact: Any) -> Table | Adapter:
    if not isinstance(artifact, Table | Adapter):
        raise HandoffRefused("only released tables and models are handed out")
    return artifact


def _tasks(
    kind: Kind, partition: str, artifacts: list[Table | Adapter]
) -> tuple[list[dict[str, dict[str, str]]], dict[str, int]]:
    """The tasks, and how many pairs cannot be compared, by reason."""
    from dp_assets.alignment.handoff import instruction_tasks, pair_tasks

    table, *models = artifacts
    assert isinstance(table, Table)
    if kind is Kind.INSTRUCTIONS:
        return instruction_tasks(table.collect(), partition=partition), {}
    (policy,) = models
    assert isinstance(policy, Adapter)
    compared = _compared(selected_profile(), partition, table.collect(), policy)
    unfit = compared["unfit"].drop_nulls().value_counts()
    return pair_tasks(compared, partition=partition), dict(unfit.iter_rows())


def _compared(profile: Profile, partition: str, annotated: pl.DataFrame, policy: Adapter) -> pl.DataFrame:
    """Two answers of the policy to each prompt: those that a judge would see."""
    from dp_assets.alignment.samples import answers_to_compare

    language_model, settings = build_resources(profile)["language_model"], profile.preferences
    with kept_samples(data_home(), partition, language_model, policy, profile) as samples:
        return answers_to_compare(
            annotated,
            sample=lambda texts: sample_kept(samples, texts),
            num_pairs=settings.num_pairs,
            seed=settings.seed,
        )


def _write(
    folder: Path, kind: Kind, partition: str, tasks: list[dict[str, dict[str, str]]], charge_ids: tuple[str, ...]
) -> list[Path]:
    """The files of a project, each replaced as a whole."""
    from dp_assets.alignment.label_studio import INSTRUCTIONS_CONFIG, PAIRS_CONFIG

    provenance = {"made_from": HANDED_OUT[kind], "partition": partition, "charge_ids": charge_ids}
    contents = {
        f"{kind}-tasks.json": json.dumps(tasks, indent=1, ensure_ascii=False),
        f"{kind}-labels.xml": INSTRUCTIONS_CONFIG if kind is Kind.INSTRUCTIONS else PAIRS_CONFIG,
        f"{kind}-provenance.json": json.dumps(provenance, indent=1),
    }
    for name, content in contents.items():
        with atomic_file(folder / name, Zone.RELEASED) as path:
            path.write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def _path(kind: Kind, file: Path | None) -> Path:
    path = file or getattr(selected_profile(), SETTINGS[kind]).path
    if path is None:
        raise HandoffRefused(f"{SETTINGS[kind]}.path is not set in the profile; set it, or name a file with --file")
    return Path(path)


def _take(kind: Kind, partition: str, path: Path, rows: pl.DataFrame) -> "Taken":
    from dp_assets.alignment.handoff import NothingUsable, take_responses, take_verdicts
    from dp_assets.alignment.label_studio import ExportError

    take: Callable[..., Taken] = take_responses if kind is Kind.INSTRUCTIONS else take_verdicts
    try:
        return take(path, rows, partition=partition, setting=f"{SETTINGS[kind]}.path")
    except (ExportError, NothingUsable) as refusal:
        raise HandoffRefused(str(refusal)) from None
