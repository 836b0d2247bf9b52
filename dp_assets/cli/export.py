"""`dp-instructions export`: write one partition's released artifacts as a folder for the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dp_assets.cli._console import WRONG_USAGE, AsJson, complain, open_ledger, out, print_json, refusals
from dp_assets.cli._tables import print_table
from dp_assets.cli.pipeline import stale_assets
from dp_assets.cli.statements import checked_statement
from dp_assets.export.parts import NAMES, STATEMENT, ExportRefused, Kind, Part, chosen_parts
from dp_assets.privacy.labels import Zone
from dp_assets.settings.named import selected_profile
from dp_assets.statements.reading import StatementError
from resources.storage.artifact_files import DOCUMENT
from resources.storage.zones import data_home

if TYPE_CHECKING:
    from dp_assets.export.folder import Merge
    from dp_assets.export.release import Release


@refusals
def export(
    partition: Annotated[str, typer.Argument(help="cohort|level, for example 'all|eps-8'")],
    to: Annotated[Path, typer.Option(help="A new or empty folder, or an earlier export that nobody changed.")],
    only: Annotated[list[str] | None, typer.Option(help=f"A part; may be repeated: {', '.join(NAMES)}.")] = None,
    merge_models: Annotated[bool, typer.Option("--merge-models", help="Write full models too.")] = False,
    license_id: Annotated[str | None, typer.Option("--license", help="The hub's id, such as cc-by-4.0.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="A code such as en; may be repeated.")] = None,
    base_model: Annotated[str | None, typer.Option(help="The public id of a base model that is a folder here.")] = None,
    as_stored: Annotated[bool, typer.Option("--as-stored", help="Export what is out of date, and say so.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export released tables, adapters, statement and reports with cards and checksums; spends nothing."""
    from dp_assets.export.cards import CardSettings
    from dp_assets.export.folder import write_export
    from dp_assets.export.names import public_names
    from dp_assets.export.target import check_target

    parts, target = chosen_parts(only or []), to.absolute()
    _check_partition(partition)
    check_target(target, data_home())
    release = _release(partition, parts, as_stored=as_stored)
    names = public_names(release.statement, base_model)
    settings = CardSettings(
        license_id=license_id,
        languages=tuple(language or ()),
        renamed=bool(names),
        packaged_base=selected_profile().language_model == "packaged",
    )
    write_export(target, release, settings, names=names, merge=_merging() if merge_models else None)
    if as_json:
        print_json({"folder": str(target), "parts": [part.name for part in parts], "together": release.together})
    else:
        _print(target, parts, release.together["lineage_epsilon"], len(release.together["charge_ids"]))


def _check_partition(partition: str) -> None:
    """Exit with the code of wrong usage if there is no such partition."""
    from dp_assets.pipeline.partitions import COHORTS_BY_LEVELS

    if not COHORTS_BY_LEVELS.has_partition_key(partition):
        complain("refused", f"partition {partition!r} is none of {', '.join(COHORTS_BY_LEVELS.get_partition_keys())}")
        raise typer.Exit(WRONG_USAGE)


def _release(partition: str, parts: Sequence[Part], *, as_stored: bool) -> "Release":
    """Return what is exported, or raise the refusal of `gather`."""
    from dp_assets.export.release import gather

    return gather(
        data_home(),
        open_ledger().state(),
        partition,
        parts,
        stale=_stale(partition),
        as_stored=as_stored,
        verified=partial(_verified, partition=partition),
    )


def _stale(partition: str) -> set[str]:
    """Return the assets that a run of this partition would make again."""
    from dp_assets.pipeline.running import persistent_instance

    with persistent_instance() as instance:
        return {key.to_user_string() for key in stale_assets(instance, partition)}


def _verified(folder: Path, partition: str) -> Mapping[str, Any]:
    """Return the statement in a folder, rebuilt from what it declares.

    Raises:
      ExportRefused: it does not verify, or was made for other artifacts; the message names every difference.
    """
    from dp_assets.export.release import remake

    try:
        checked = checked_statement(folder / DOCUMENT, data_home() / Zone.RELEASED / "artifacts")
    except StatementError as error:
        raise ExportRefused(f"the {STATEMENT} does not verify ({error}); {remake(folder, partition)}") from None
    if checked.wrong or checked.rebuilt is None:
        raise ExportRefused(
            f"the {STATEMENT} does not verify ({'; '.join(checked.wrong)}); {remake(folder, partition)}"
        )
    return checked.rebuilt


def _merging() -> "Merge":
    """Return a writer of full models, which uses the base model of the profile."""
    from dp_assets.export.merging import write_merged
    from resources.build import build_resources

    profile = selected_profile()
    return partial(
        write_merged,
        language_model=build_resources(profile, data_home())["language_model"],
        dtype="bfloat16" if profile.dtype == "bfloat16" else "float32",
    )


def _print(target: Path, parts: Sequence[Part], epsilon: float | None, charges: int) -> None:
    rows = [
        (part.name, part.asset if part.kind is Kind.DOCUMENT else f"{part.kind}/{part.name}", part.meaning)
        for part in parts
    ]
    print_table(out, ("part", "where", "what it is"), rows, folding=("part", "where"))
    shown = "unbounded" if epsilon is None else f"{epsilon:.4f}"
    out.print(f"All of it together descends from {charges} charges: lineage epsilon {shown}.")
    out.print(f"exported to {target}")
