"""The command `dp-instructions`.

Exit codes: 0 done, 1 refused or failed (the reason is printed), 2 wrong usage, 130 interrupted.
"""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import duckdb
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column
from rich.table import Table as RichTable

from dp_assets.assets._corpus import register_corpus
from dp_assets.corpus.cohorts import CohortError
from dp_assets.corpus.sources import SourceError
from dp_assets.privacy.labels import TAG, Zone
from dp_assets.privacy.ledger import BudgetExceeded, LedgerTampered, VoidRefused
from dp_assets.privacy.plan import UnreachableTarget, target_of
from dp_assets.privacy.registration import RegistrationError
from dp_assets.privacy.statement import StatementError, verify
from dp_assets.profiles import ProfileError, selected_profile
from dp_assets.quiet import quiet_process
from resources.ledger import ChargeRefused, Ledger
from resources.zones import data_home

WRONG_USAGE, INTERRUPTED = 2, 130
EXPECTED = (
    BudgetExceeded,
    CohortError,
    LedgerTampered,
    ProfileError,
    RegistrationError,
    SourceError,
    StatementError,
    UnreachableTarget,
    VoidRefused,
    duckdb.Error,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
ledger_app = typer.Typer(no_args_is_help=True, help="Look at the ledger, raise a budget, void an unused charge.")
app.add_typer(ledger_app, name="ledger")
out = Console()
err = Console(stderr=True)


def refusals(command: Callable[..., None]) -> Callable[..., None]:
    """Print an expected refusal as one message and exit with 1; anything else is a defect and keeps its traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ChargeRefused as refusal:
            complain("refused", refusal.description or "")
            raise typer.Exit(1) from None
        except EXPECTED as refusal:
            complain("refused", str(refusal))
            raise typer.Exit(1) from None

    return run


def complain(what: str, reason: str) -> None:
    """One message on standard error. Brackets in a reason are not markup, and long lines stay whole for scripts."""
    err.print(f"[bold red]{what}[/]: {escape(reason)}", highlight=False, soft_wrap=True)


def check_levels(levels: list[str] | None) -> list[str] | None:
    """Levels as given on the command line, refused as wrong usage if they are none."""
    try:
        for level in levels or ():
            target_of(level)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return levels


def open_ledger() -> Ledger:
    return Ledger(private_root=str(data_home() / Zone.PRIVATE))


@app.command()
@refusals
def register(
    public: Annotated[bool, typer.Option(help="Declare the source public, which permits no-dp. Logged.")] = False,
) -> None:
    """Register the profile's corpus with its unit, bounds and budget, and book its planned levels."""
    registration = register_corpus(open_ledger(), selected_profile(), declared_public=public)
    out.print(
        f"corpus {registration.corpus_id}: unit {registration.unit}, at most {registration.max_rows_per_unit} rows,"
        f" budget epsilon {registration.budget_epsilon:g} at delta {registration.delta:g} for each cohort\n"
        f"ledger: {data_home() / Zone.PRIVATE / 'ledger'}",
        highlight=False,
    )


@app.command()
@refusals
def plan(
    levels: Annotated[
        list[str] | None, typer.Argument(callback=check_levels, help="Such as eps-8; default: the planned ones.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """What each level needs, before anything is spent and without reading private data."""
    profile = selected_profile()
    plans = [profile.plan(level) for level in levels or profile.corpus.planned_levels]
    if as_json:
        out.print_json(json.dumps([plan.to_json() | {"epsilon": plan.epsilon} for plan in plans]))
        return
    columns = ("level", "epsilon", "delta", "noise multiplier", "histogram noise", "steps", "batch")
    table = RichTable(*columns, title="plans")
    for one in plans:
        dpsgd = one.dpsgd
        table.add_row(
            one.level,
            f"{one.epsilon:.4f}",
            f"{one.delta:g}",
            f"{dpsgd.noise_multiplier:.4f}",
            f"{one.votes.noise_stddev:g}",
            f"{dpsgd.steps} + {dpsgd.spare_steps} spare",
            f"{dpsgd.expected_batch_size}",
        )
    out.print(table)


@app.command()
@refusals
def run(
    partition: Annotated[str, typer.Argument(help="cohort|level, for example 'all|eps-8'")],
    everything: Annotated[bool, typer.Option("--all", help="Run assets that are up to date as well.")] = False,
) -> None:
    """Materialize what is missing or out of date for one partition, in this process."""
    raise typer.Exit(run_partition(partition, everything=everything))


def run_partition(partition: str, *, everything: bool) -> int:
    """Run a partition and return the exit code."""
    from dp_assets.definitions import defs
    from dp_assets.partitions import RELEASES
    from dp_assets.running import materialize, out_of_date, persistent_instance

    if not RELEASES.has_partition_key(partition):
        known = ", ".join(RELEASES.get_partition_keys())
        complain("refused", f"partition {partition!r} is none of {known}")
        return WRONG_USAGE
    with persistent_instance() as instance:
        profile = selected_profile().digest
        stale = out_of_date(defs, instance, home=data_home(), partition=partition, profile=profile)
        wanted = list(defs.resolve_asset_graph().get_all_asset_keys()) if everything else stale
        if not wanted:
            err.print(f"{partition} is up to date")
            return 0
        outcome = materialize(defs, instance, partition=partition, assets=wanted)
    for asset, reason in outcome.failed:
        if outcome.interrupted:
            complain(f"{asset} was interrupted", "run the same command again to go on from here")
        else:
            complain(f"{asset} failed", reason)
    return INTERRUPTED if outcome.interrupted else int(not outcome.success)


@app.command()
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


@app.command()
@refusals
def home() -> None:
    """Make the Dagster home of the data folder, if it is missing."""
    from dp_assets.running import persistent_instance

    with persistent_instance() as instance:
        err.print(f"Dagster home: {instance.root_directory}", highlight=False)


@app.command()
@refusals
def graph(path: Annotated[Path, typer.Argument(help="Where the PNG goes.")]) -> None:
    """Draw the asset graph of the code."""
    from dp_assets.definitions import ALL_ASSETS, defs
    from dp_assets.evaluation.asset_graph import draw_asset_graph
    from dp_assets.evaluation.plots import to_png

    nodes = [(spec.key.to_user_string(), spec.tags[TAG]) for asset in ALL_ASSETS for spec in asset.specs]
    groups = {spec.key.to_user_string(): spec.group_name or "" for asset in ALL_ASSETS for spec in asset.specs}
    resolved = defs.resolve_asset_graph()
    edges = [
        (parent.to_user_string(), key.to_user_string())
        for key in resolved.get_all_asset_keys()
        for parent in resolved.get(key).parent_keys
    ]
    to_png(draw_asset_graph(nodes, edges, groups), path)


@app.command()
@refusals
def sql(query: Annotated[str, typer.Argument(help="A query, for example 'from metrics'.")]) -> None:
    """Ask the catalog: a view over every released table, and the tables lineage, costs and metrics."""
    from resources.catalog import rebuild

    path = rebuild(data_home(), open_ledger().state())
    with duckdb.connect(str(path), read_only=True) as connection:
        result = connection.execute(query)
        table = RichTable(*(Column(column[0], overflow="fold") for column in result.description or []))
        for row in result.fetchall():
            table.add_row(*(escape(str(value)) for value in row))
    out.print(table)


@app.command("verify")
@refusals
def verify_statement(
    statement: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A statement's document.json")],
) -> None:
    """Recompute a statement's figures from its events, offline. Proves arithmetic, not that the events are what ran."""
    try:
        verify(json.loads(statement.read_text())["data"])
    except StatementError:
        raise
    except (KeyError, TypeError, ValueError):
        raise StatementError(f"{statement} is not the document.json of a privacy statement, or lacks a part") from None
    out.print("every figure follows from the statement's events; that these are the ones which ran is not proved here")


@ledger_app.command("show")
@refusals
def ledger_show(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Registered corpora, what each cohort has spent or booked, and every charge."""
    state = open_ledger().state()
    totals = [
        (registration, cohort, state.cohort_epsilon(registration.corpus_id, cohort))
        for registration in state.registrations.values()
        for cohort in registration.cohorts
    ]
    if as_json:
        rows = [corpus.to_json() | {"cohort": cohort, "epsilon": total} for corpus, cohort, total in totals]
        out.print_json(json.dumps(rows))
        return
    table = RichTable("corpus", "cohort", "unit", "delta", "spent or booked", "budget", title="cohorts")
    for registration, cohort, total in totals:
        budget = f"{registration.budget_epsilon:g}"
        corpus = registration.corpus_id[:8]
        table.add_row(corpus, cohort, registration.unit, f"{registration.delta:g}", f"{total:.4f}", budget)
    out.print(table)
    charges = RichTable(
        Column("charge", no_wrap=True), Column("mechanism", no_wrap=True), "cohort", "level", "state", title="charges"
    )
    for charge in state.charges.values():
        flags = [name for name in ("opened", "settled", "voided") if getattr(charge, name)]
        charges.add_row(charge.charge_id, charge.mechanism, charge.cohort, charge.level, ", ".join(flags) or "booked")
    out.print(charges)


@ledger_app.command("raise")
@refusals
def ledger_raise(corpus_id: str, budget_epsilon: float, reason: Annotated[str, typer.Option(prompt=True)]) -> None:
    """Raise a corpus's budget. The raised budget is its guarantee from then on, and the event is logged."""
    open_ledger().raise_budget(corpus_id, budget_epsilon, reason)
    out.print(f"the budget, and so the guarantee, is now epsilon {budget_epsilon:g}")


@ledger_app.command("void")
@refusals
def ledger_void(charge_id: str, reason: Annotated[str, typer.Option(prompt=True)]) -> None:
    """Void a charge under which nothing was read."""
    open_ledger().void(charge_id, reason)
    out.print("voided")


def main() -> None:
    """The entry point. An interrupt outside a run ends with the same code as one inside."""
    quiet_process()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
