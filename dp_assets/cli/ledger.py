"""`dp-instructions ledger`: look at the ledger, raise a budget, void an unused charge."""

from typing import Annotated

import typer
from rich.table import Column
from rich.table import Table as RichTable

from dp_assets.cli._console import AsJson, open_ledger, out, print_json, refusals

ledger_app = typer.Typer(no_args_is_help=True, help="Look at the ledger, raise a budget, void an unused charge.")


@ledger_app.command("show")
@refusals
def show(as_json: AsJson = False) -> None:
    """Registered corpora, what each cohort has spent or booked, and every charge."""
    state = open_ledger().state()
    totals = [
        (registration, cohort, state.cohort_epsilon(registration.corpus_id, cohort))
        for registration in state.registrations.values()
        for cohort in registration.cohorts
    ]
    if as_json:
        rows = [corpus.to_json() | {"cohort": cohort, "epsilon": total} for corpus, cohort, total in totals]
        print_json(rows)
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
def raise_budget(corpus_id: str, budget_epsilon: float, reason: Annotated[str, typer.Option(prompt=True)]) -> None:
    """Raise a corpus's budget. The raised budget is its guarantee from then on, and the event is logged."""
    open_ledger().raise_budget(corpus_id, budget_epsilon, reason)
    out.print(f"the budget, and so the guarantee, is now epsilon {budget_epsilon:g}")


@ledger_app.command("void")
@refusals
def void(charge_id: str, reason: Annotated[str, typer.Option(prompt=True)]) -> None:
    """Void a charge under which nothing was read."""
    open_ledger().void(charge_id, reason)
    out.print("voided")
