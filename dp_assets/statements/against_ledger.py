"""Compares a statement with the ledger: whether it was true when it was made, and whether it still is.

A statement says what was spent or booked for a cohort and which budget bounds it. A raised budget, a further charge, a
closed cohort or a voided charge makes it outdated, which the document itself cannot show.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dp_assets.privacy.chain import Entry, entries_after
from dp_assets.privacy.ledger_state import ChargeRecord, LedgerState
from dp_assets.statements.pages import number
from dp_assets.statements.reading import canonical
from dp_assets.statements.statement import of_ledger
from dp_assets.statements.verification import Finding, Outcome

ORIGIN, NOW = "ledger when it was made", "ledger now"


def ledger_findings(statement: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[Finding]:
    """Compare a statement, built anew from its declared facts, with the entries of a verified ledger."""
    since = entries_after(entries, statement["ledger"]["head"])
    if since is None:
        what = "the statement was made from another ledger, or from a newer copy of this one"
        yield Finding(ORIGIN, Outcome.DIFFERS, what)
        return
    then = entries[: len(entries) - since]
    for name, state in ((ORIGIN, LedgerState.of(then)), (NOW, LedgerState.of(entries))):
        wrong = "; ".join(untrue(statement, state))
        yield Finding(name, Outcome.DIFFERS if wrong else Outcome.AGREES, wrong)


def untrue(statement: Mapping[str, Any], state: LedgerState) -> Iterator[str]:
    """Yield what a statement says of its corpus, cohorts and charges and a state of the ledger contradicts."""
    corpus_id, ids = statement["ledger"]["corpus_id"], statement["ledger"]["charge_ids"]
    charges = [state.charges[charge_id] for charge_id in ids if charge_id in state.charges]
    if len(charges) < len(ids) or any(charge.voided or charge.corpus_id != corpus_id for charge in charges):
        yield "a charge of the release is unknown, voided or of another corpus"
        return
    registration = state.registrations[corpus_id]
    listed, stated = of_ledger(state, registration, charges), statement["budget"]["epsilon"]
    if stated != registration.budget_epsilon:
        yield f"the budget of each cohort is epsilon {number(registration.budget_epsilon)}, and not {number(stated)}"
    elif canonical(listed["budget"]) != canonical(statement["budget"]):
        yield "the budget was raised in other steps"
    if canonical(listed["cohorts"]) != canonical(statement["cohorts"]):
        yield "other runs are booked or charged for the cohort, or it was closed"
    for part in ("terms", "charges"):
        if canonical(listed[part]) != canonical(_shared(statement[part], listed[part])):
            yield f"the {part} are others"
    if statement["source"]["declared_public"] != registration.is_public:
        yield f"the source is registered as {'public' if registration.is_public else 'private'}"
    if any(not _is_charged(form, state.charges[form["charge_id"]]) for form in statement["charges"]):
        yield "a charge was made for another event or plan"


def _is_charged(form: Mapping[str, Any], charge: ChargeRecord) -> bool:
    return canonical([form["event"], form["plan_digest"]]) == canonical([charge.event, charge.plan_digest])


def _shared(stated: Any, listed: Any) -> Any:
    """Return the stated values under the names for which the ledger has one."""
    if isinstance(listed, list):
        return [_shared(*pair) for pair in zip(stated, listed, strict=True)]
    return {name: stated[name] for name in listed}
