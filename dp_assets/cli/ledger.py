"""`dp-instructions ledger`: show and check the ledger, raise a budget, void an unused charge."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dp_assets.cli._console import AsJson, open_ledger, out, print_json, refusals
from dp_assets.cli._ledger_tables import overview, print_tables
from dp_assets.privacy.chain import LedgerTampered, entries_after
from dp_assets.privacy.registration import RegistrationError
from resources.ledger.ledger_file import LedgerFile
from resources.ledger.ledger_resource import Ledger

ledger_app = typer.Typer(
    no_args_is_help=True, help="Look at the ledger, check it, raise a budget, void an unused charge."
)
Reason = Annotated[str, typer.Option(prompt=True, help="Kept in the ledger, and shown with it.")]
NOT_SHOWN = (
    "This shows that the ledger is the one that was written. It cannot show a run that never asked it, nor an owner of"
    " key and anchors who wrote everything anew; published statements hold its head, to compare with."
)


@ledger_app.command("show")
@refusals
def show(as_json: AsJson = False) -> None:
    """Show corpora, what each cohort has spent or booked of its budget, every charge, and the ledger's head."""
    shown = overview(open_ledger().state())
    if as_json:
        print_json(shown)
    else:
        print_tables(out, shown)


@ledger_app.command("check")
@refusals
def check(
    head: Annotated[list[str] | None, typer.Option(help="The ledger's head as a published statement has it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify the chain of entries, the key, both anchors and published heads. Fails if any does not match."""
    checked = verified(open_ledger(), head or ())
    if as_json:
        print_json(checked)
        return
    out.print(
        f"entries: {checked['length']}, each follows from the one before; the last is {checked['head']}",
        "key: it is the one that the first entry commits to",
        *(
            f"head {published['head']}: the ledger holds it, and {published['behind']} later entries"
            for published in checked["heads"]
        ),
        *(f"anchor {anchor['file']}: {anchor_in_words(anchor)}" for anchor in checked["anchors"]),
        NOT_SHOWN,
        sep="\n",
    )


def verified(ledger: Ledger, heads: Sequence[str] = ()) -> dict[str, Any]:
    """Return length and head of a verified ledger, and how many entries the anchors and `heads` have not seen.

    Raises:
      LedgerTampered: a check fails, or the ledger lacks the entry with one of these heads.
      RegistrationError: there is no ledger yet.
    """
    file = LedgerFile(Path(ledger.private_root))
    if not file.is_used():
        raise RegistrationError(f"there is no ledger in {file.folder}; `dp-instructions register` makes it")
    state = file.state()
    anchors = [{"file": str(path), "behind": behind} for path, behind in file.lags().items()]
    published = [{"head": head, "behind": entries_after(file.entries(), head)} for head in heads]
    if any(entry["behind"] is None for entry in published):
        raise LedgerTampered(
            "the ledger lacks an entry with that head, so charges are missing; restore the newest copy"
        )
    return {"length": state.anchor.length, "head": state.anchor.head, "anchors": anchors, "heads": published}


def anchor_in_words(anchor: dict[str, Any]) -> str:
    """What the anchor says of the ledger."""
    match anchor["behind"]:
        case None:
            return "not there, so a private folder restored from a backup would not show; the next entry writes it"
        case 0:
            return "has seen the last entry"
        case behind:
            return f"fits and lags {behind} behind, as after a crash; the next entry brings it up to date"


@ledger_app.command("raise")
@refusals
def raise_budget(corpus_id: str, budget_epsilon: float, reason: Reason, as_json: AsJson = False) -> None:
    """Raise a corpus's budget. The raised budget is its guarantee from then on, and the event is logged."""
    ledger = open_ledger()
    ledger.raise_budget(corpus_id, budget_epsilon, reason)
    if as_json:
        raised = [entry for entry in ledger.state().raises if entry.corpus_id == corpus_id]
        print_json(vars(raised[-1]))
        return
    out.print(f"the budget, and so the guarantee, is now epsilon {budget_epsilon:g}")


@ledger_app.command("void")
@refusals
def void(charge_id: str, reason: Reason, as_json: AsJson = False) -> None:
    """Void a charge under which nothing was read."""
    open_ledger().void(charge_id, reason)
    if as_json:
        print_json({"charge_id": charge_id, "state": "voided", "reason": reason})
        return
    out.print("voided")
