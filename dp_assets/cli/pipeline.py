"""`dp-instructions run`, `demo` and `home`: run the asset graph from the command line."""

from typing import TYPE_CHECKING, Annotated

import typer

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
from dp_assets.cli._homes import remember_home, warn_of_other_corpora, warn_of_other_homes
from dp_assets.cli.catalog import refresh
from dp_assets.pipeline.corpus import register_corpus, snapshot_of
from dp_assets.settings.named import selected_profile
from resources.build import build_resources
from resources.storage.zones import data_home

if TYPE_CHECKING:
    from dagster import AssetKey, DagsterInstance

    from dp_assets.pipeline.running import Outcome


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
    from dp_assets.pipeline.partitions import UnknownPartition, known_partition
    from dp_assets.pipeline.running import persistent_instance

    try:
        known_partition(partition)
    except UnknownPartition as unknown:
        complain("refused", str(unknown))
        return WRONG_USAGE
    with persistent_instance() as instance:
        outcome = run_on(instance, partition, everything=everything)
    if as_json:
        print_json(summary_of(outcome, partition))
    return exit_code(outcome)


def run_on(instance: "DagsterInstance", partition: str, *, everything: bool = False) -> "Outcome":
    """Materialize what is missing or out of date of a known partition, or everything.

    Raises:
      ChargeRefused: the corpus is not registered, or with other terms.
      NotReady: an endpoint, a key, a model or a file that the run will need is missing; nothing was spent.
    """
    from dp_assets.definitions import defs
    from dp_assets.pipeline.running import Outcome, materialize
    from dp_assets.stages.preflight import check_outside

    stale, profile = stale_assets(instance, partition), selected_profile()
    assets = list(defs.resolve_asset_graph().get_all_asset_keys()) if everything else stale
    names = {key.to_user_string() for key in assets}
    check_outside(profile, build_resources(profile), data_home(), partition, names)
    if assets:
        warn_of_other_homes(profile)
        remember_home(profile)
        warn_of_other_corpora(profile)
        outcome = materialize(defs, instance, partition=partition, assets=assets)
        refresh()
        return outcome
    err.print(f"{partition} is up to date")
    return Outcome(success=True, interrupted=False, made=(), failed=())


def stale_assets(instance: "DagsterInstance", partition: str) -> "list[AssetKey]":
    """Return the assets that must run for a partition under the selected profile."""
    from dp_assets.definitions import defs
    from dp_assets.pipeline.running import out_of_date

    profile, ledger = selected_profile(), open_ledger()
    return out_of_date(
        defs,
        instance,
        home=data_home(),
        partition=partition,
        profile=profile.digest,
        corpora=ledger.state().registrations,
        snapshot=snapshot_of(ledger, profile),
        own_settings=profile.own_digest,
    )


def summary_of(outcome: "Outcome", partition: str) -> dict[str, object]:
    """Return what a run made and what failed, for scripts."""
    return {
        "partition": partition,
        "success": outcome.success,
        "interrupted": outcome.interrupted,
        "made": list(outcome.made),
        "failed": [{"asset": asset, "reason": reason} for asset, reason in outcome.failed],
    }


def exit_code(outcome: "Outcome") -> int:
    """Report failures on standard error and return the exit code of a run."""
    for asset, reason in outcome.failed:
        if outcome.interrupted:
            complain(f"{asset} was interrupted", "run the same command again to go on from here")
        else:
            complain(f"{asset} {'was refused' if outcome.refused else 'failed'}", reason)
    return INTERRUPTED if outcome.interrupted else int(not outcome.success)


@refusals
def demo() -> None:
    """Register the packaged sample, run the whole graph for all|eps-8, and show the results."""
    from dp_assets.cli.summary import print_summary

    profile, partition = selected_profile(), "all|eps-8"
    registration = register_corpus(open_ledger(), profile, declared_public=False)
    code = run_partition(partition, everything=False)
    if code == 0:
        print_summary(out, data_home(), profile, registration, open_ledger().state(), partition)
    raise typer.Exit(code)


@refusals
def home(as_json: AsJson = False) -> None:
    """Create the Dagster home of the data folder, if it is missing."""
    from dp_assets.pipeline.running import persistent_instance

    with persistent_instance() as instance:
        folder = instance.root_directory
    if as_json:
        print_json({"data_home": str(data_home()), "dagster_home": folder})
        return
    err.print(f"Dagster home: {folder}")
