"""`dp-instructions run`, `demo`, `home` and `graph`: the asset graph from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_assets.assets._corpus import register_corpus, snapshot_of
from dp_assets.cli._console import (
    INTERRUPTED,
    WRONG_USAGE,
    AsJson,
    complain,
    err,
    open_ledger,
    out,
    print_json,
    refusals,
)
from dp_assets.privacy.labels import TAG
from dp_assets.profiles import selected_profile
from resources.zones import data_home

if TYPE_CHECKING:
    from dp_assets.running import Outcome


@refusals
def run(
    partition: Annotated[str, typer.Argument(help="cohort|level, for example 'all|eps-8'")],
    everything: Annotated[bool, typer.Option("--all", help="Run assets that are up to date as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Materialize what is missing or out of date for one partition, in this process."""
    raise typer.Exit(run_partition(partition, everything=everything, as_json=as_json))


def run_partition(partition: str, *, everything: bool, as_json: bool = False) -> int:
    """Run a partition and return the exit code."""
    from dp_assets.definitions import defs
    from dp_assets.partitions import RELEASES
    from dp_assets.running import Outcome, materialize, out_of_date, persistent_instance

    if not RELEASES.has_partition_key(partition):
        known = ", ".join(RELEASES.get_partition_keys())
        complain("refused", f"partition {partition!r} is none of {known}")
        return WRONG_USAGE
    snapshot, profile = snapshot_of(open_ledger(), selected_profile()), selected_profile().digest
    with persistent_instance() as instance:
        stale = out_of_date(defs, instance, home=data_home(), partition=partition, profile=profile, snapshot=snapshot)
        wanted = list(defs.resolve_asset_graph().get_all_asset_keys()) if everything else stale
        if wanted:
            outcome = materialize(defs, instance, partition=partition, assets=wanted)
        else:
            err.print(f"{partition} is up to date")
            outcome = Outcome(success=True, interrupted=False, made=(), failed=())
    if as_json:
        print_json(summary_of(outcome, partition))
    return exit_code(outcome)


def summary_of(outcome: "Outcome", partition: str) -> dict[str, object]:
    """What a run made and what failed, for scripts."""
    return {
        "partition": partition,
        "success": outcome.success,
        "interrupted": outcome.interrupted,
        "made": list(outcome.made),
        "failed": [{"asset": asset, "reason": reason} for asset, reason in outcome.failed],
    }


def exit_code(outcome: "Outcome") -> int:
    """The code that a run ends with; what failed is said on standard error."""
    for asset, reason in outcome.failed:
        if outcome.interrupted:
            complain(f"{asset} was interrupted", "run the same command again to go on from here")
        else:
            complain(f"{asset} failed", reason)
    return INTERRUPTED if outcome.interrupted else int(not outcome.success)


@refusals
def demo() -> None:
    """Register the packaged sample, run the whole graph for all|eps-8, and show what came out."""
    from dp_assets.summary import print_summary

    profile, partition = selected_profile(), "all|eps-8"
    registration = register_corpus(open_ledger(), profile, declared_public=False)
    code = run_partition(partition, everything=False)
    if code == 0:
        print_summary(out, data_home(), profile, registration, open_ledger().state(), partition)
    raise typer.Exit(code)


@refusals
def home(as_json: AsJson = False) -> None:
    """Make the Dagster home of the data folder, if it is missing."""
    from dp_assets.running import persistent_instance

    with persistent_instance() as instance:
        folder = instance.root_directory
    if as_json:
        print_json({"data_home": str(data_home()), "dagster_home": folder})
        return
    err.print(f"Dagster home: {folder}", highlight=False)


@refusals
def graph(path: Annotated[Path, typer.Argument(help="Where the PNG goes.")]) -> None:
    """Draw the asset graph of the code."""
    from dp_assets.definitions import ALL_ASSETS, defs
    from dp_assets.evaluation.asset_graph import draw_asset_graph
    from dp_assets.evaluation.plot_style import to_png

    nodes = [(spec.key.to_user_string(), spec.tags[TAG]) for asset in ALL_ASSETS for spec in asset.specs]
    groups = {spec.key.to_user_string(): spec.group_name or "" for asset in ALL_ASSETS for spec in asset.specs}
    resolved = defs.resolve_asset_graph()
    edges = [
        (parent.to_user_string(), key.to_user_string())
        for key in resolved.get_all_asset_keys()
        for parent in resolved.get(key).parent_keys
    ]
    to_png(draw_asset_graph(nodes, edges, groups), path)
