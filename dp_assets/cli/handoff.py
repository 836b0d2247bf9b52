"""`dp-instructions handoff`: write released rows as tasks for Label Studio, and check what people return.

Only artifacts of the released zone are handed out, and only while they are up to date, so that nobody works on rows
that the next run replaces. The assets themselves take in what comes back, from the path that the profile names.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import polars as pl
import typer

from dp_assets.artifacts import Adapter, Table, union_of_ids
from dp_assets.cli._console import AsJson, HandoffRefused, out, print_json, refusals
from dp_assets.cli._tables import print_table
from dp_assets.cli.pipeline import stale_assets
from dp_assets.privacy.labels import Label, Zone, zone
from dp_assets.settings.named import selected_profile
from dp_assets.vocabulary import Partition
from resources.build import build_resources
from resources.storage.artifact_files import read_artifact
from resources.storage.stores import artifact_folder
from resources.storage.zones import atomic_file, data_home

if TYPE_CHECKING:
    from dp_assets.alignment.handoff import Taken

handoff_app = typer.Typer(no_args_is_help=True, help="Hand released rows to people, and look at what comes back.")


class Kind(StrEnum):
    """The kind of tasks."""

    INSTRUCTIONS = "instructions"
    PAIRS = "pairs"


HANDED_OUT = {Kind.INSTRUCTIONS: ("filtered_instructions",), Kind.PAIRS: ("annotated_instructions", "sft_model")}
"""The assets that tasks are made from. The returned tasks are compared with the rows of the first."""

SETTINGS = {Kind.INSTRUCTIONS: "annotation", Kind.PAIRS: "preferences"}

Released = TypeVar("Released", Table, Adapter)
HandedOut = tuple[list[dict[str, dict[str, str]]], dict[str, int], tuple[str, ...]]
"""Tasks, the number of omitted pairs by reason, and the charges that the tasks descend from."""

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
    """Write tasks and the labeling configuration for a Label Studio project, and the provenance of the tasks."""
    _check_released(kind, partition)
    tasks, left_out, charge_ids = _instructions(partition) if kind is Kind.INSTRUCTIONS else _pairs(partition)
    files = _write(to, kind, partition, tasks, charge_ids)
    if as_json:
        print_json({"tasks": len(tasks), "left_out": left_out, "files": [str(path) for path in files]})
        return
    out.print(f"{len(tasks)} tasks of {partition}")
    for reason, number in left_out.items():
        out.print(f"{number} pairs left out: {reason}")
    out.print(*(f"  {path}" for path in files), sep="\n")


@handoff_app.command("check")
@refusals
def check(
    kind: KindArgument,
    partition: PartitionOption,
    file: Annotated[Path | None, typer.Option(help="The export to look at, instead of the profile's path.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what the asset would take from an export of Label Studio, and what it would drop and why. Stores nothing."""
    _check_released(kind, partition)
    taken = _take(kind, partition, _path(kind, file), _read(HANDED_OUT[kind][0], partition, Table).collect())
    if as_json:
        drops = [{"reason": drop.reason, "synthetic_id": drop.synthetic_id} for drop in taken.dropped]
        print_json({"taken": taken.rows.height, "annotators": taken.num_annotators, "dropped": drops})
        return
    out.print(f"{taken.rows.height} rows can be taken")
    rows = [(reason, number, ", ".join(taken.ids.get(reason, []))) for reason, number in taken.counts.items()]
    if rows:
        print_table(out, ("dropped", "how many", "first ids"), rows, folding=("first ids",))


def _check_released(kind: Kind, partition: str) -> None:
    """Check that the sources of tasks of this kind may be handed out, and are what a run would keep.

    Raises:
      HandoffRefused: a source lies in the private zone, or is missing or out of date.
      typer.BadParameter: there is no such partition.
    """
    from dp_assets.pipeline.partitions import COHORTS_BY_LEVELS
    from dp_assets.pipeline.running import persistent_instance

    if not COHORTS_BY_LEVELS.has_partition_key(partition):
        known = ", ".join(COHORTS_BY_LEVELS.get_partition_keys())
        raise typer.BadParameter(f"partition {partition!r} is none of {known}")
    if zone(Label.RELEASED, Partition.named(partition).level) is not Zone.RELEASED:
        raise HandoffRefused(
            f"{partition} lies in the private zone, because it is made without noise; hand out another level"
        )
    with persistent_instance() as instance:
        stale = {key.to_user_string() for key in stale_assets(instance, partition)}
    if missing := [asset for asset in HANDED_OUT[kind] if asset in stale]:
        raise HandoffRefused(
            f"{' and '.join(missing)} of {partition} are missing or out of date; run `dp-instructions run"
            f" '{partition}'` first"
        )


def _read(asset: str, partition: str, kind: type[Released]) -> Released:
    """Return the newest artifact of a released asset.

    Raises:
      HandoffRefused: the artifact is of another kind.
    """
    artifact = read_artifact(artifact_folder(data_home(), [asset], Label.RELEASED, partition))
    if not isinstance(artifact, kind):
        raise HandoffRefused(f"{asset} of {partition} is no {kind.__name__}; materialize it again")
    return artifact


def _instructions(partition: str) -> HandedOut:
    """Return a task for each filtered instruction."""
    from dp_assets.alignment.handoff import instruction_tasks

    filtered = _read("filtered_instructions", partition, Table)
    return instruction_tasks(filtered.collect(), partition=partition), {}, filtered.charge_ids


def _pairs(partition: str) -> HandedOut:
    """Return a task for each prompt with two comparable answers of the policy: those that a judge would see.

    Raises:
      HandoffRefused: another run is sampling the answers.
    """
    from dp_assets.alignment.handoff import pair_tasks
    from dp_assets.alignment.samples import answers_to_compare
    from dp_assets.stages.preferences import kept_samples, sample_kept

    annotated = _read("annotated_instructions", partition, Table)
    policy, profile = _read("sft_model", partition, Adapter), selected_profile()
    language_model, settings = build_resources(profile)["language_model"], profile.preferences
    with kept_samples(data_home(), partition, language_model, policy, profile) as samples:
        compared = answers_to_compare(
            annotated.collect(),
            sample=partial(sample_kept, samples),
            num_pairs=settings.num_pairs,
            seed=settings.seed,
        )
    left_out = dict(compared["unfit"].drop_nulls().value_counts().iter_rows())
    return pair_tasks(compared, partition=partition), left_out, union_of_ids(annotated, policy)


def _write(
    folder: Path, kind: Kind, partition: str, tasks: Sequence[Mapping[str, Any]], charge_ids: tuple[str, ...]
) -> list[Path]:
    """Write the files of a project, each replaced as a whole, and return their paths."""
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
    from dp_assets.alignment.handoff import take_responses, take_verdicts

    take: Callable[..., Taken] = take_responses if kind is Kind.INSTRUCTIONS else take_verdicts
    return take(path, rows, partition=partition, setting=f"{SETTINGS[kind]}.path")
