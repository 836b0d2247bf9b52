"""The history of each cohort's epsilon, entry by entry of the ledger.

It is made of plans and of which mechanism was charged on which day, and of nothing that depends on a row. It has two
lines: the composition of the charges so far, and the same with bookings included. Where a run was chosen after results,
neither is the guarantee, but the budget is (`privacy/headline.py`).
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dp_accounting import DpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.chain import Entry, canonical
from dp_assets.privacy.events import event_from_json
from dp_assets.privacy.ledger_state import ChargeRecord, LedgerState, rdp_of_form

BOOKED = "booked"


@dataclass
class CohortHistory:
    """The steps of one cohort: what happened, and both epsilons after it; infinity if unbounded."""

    cohort: str
    labels: list[str] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)


@dataclass
class _Account:
    """A cohort while the ledger is read: its history, and the number of its charges so far by form of event."""

    history: CohortHistory
    charged: Counter[str] = field(default_factory=Counter)


def cohort_histories(entries: Sequence[Entry], corpus_id: str) -> list[CohortHistory]:
    """Return the histories of a corpus's cohorts that have a booking or a charge, in the order of the ledger.

    Each entry is read once and equal events are counted. So the time for an entry grows with the number of different
    events of its cohort, and not with how often they were charged.

    Args:
      entries: the whole ledger, verified.
    """
    accounts: dict[str, _Account] = {}
    state, last_bookings = LedgerState(), _last_bookings(entries, corpus_id)
    for number, entry in enumerate(entries):
        state.append(entry)
        charge = _changed_charge(entry, state, corpus_id)
        if charge is None and number not in last_bookings:
            continue
        cohort = entry.body["cohort"] if charge is None else charge.cohort
        account = accounts.setdefault(cohort, _Account(CohortHistory(cohort)))
        if charge is not None:
            account.charged[canonical(charge.event)] += 1 if entry.kind == "charged" else -1
        account.history.labels.append(_label(entry, charge))
        account.history.spent.append(_spent(state, account.charged, corpus_id, cohort))
        account.history.answered.append(state.cohort_epsilon(corpus_id, cohort))
    return [account.history for account in accounts.values()]


def _last_bookings(entries: Sequence[Entry], corpus_id: str) -> set[int]:
    """Return the numbers of the entries that end a cohort's bookings of one moment, which form one step."""
    numbered = [(number, entry) for number, entry in enumerate(entries) if entry.kind == "planned"]
    last = {
        (entry.at, entry.body["cohort"]): number for number, entry in numbered if entry.body["corpus_id"] == corpus_id
    }
    return set(last.values())


def _changed_charge(entry: Entry, state: LedgerState, corpus_id: str) -> ChargeRecord | None:
    """Return the charge of this corpus by which the entry changed its cohort's account, if there is one."""
    if entry.kind not in ("charged", "voided"):
        return None
    charge = state.charges[entry.body["charge_id"]]
    counted = replace(charge, voided=False).counts
    return charge if counted and charge.corpus_id == corpus_id else None


def _label(entry: Entry, charge: ChargeRecord | None) -> str:
    day = entry.at[:10]
    if charge is None:
        return f"{BOOKED}\n{day}"
    return f"{charge.mechanism if entry.kind == 'charged' else entry.kind}\n{charge.level}\n{day}"


def _spent(state: LedgerState, charged: Counter[str], corpus_id: str, cohort: str) -> float:
    """Return the epsilon of the charges so far, by the accountant that the ledger uses for the cohort."""
    registration = state.registrations[corpus_id]
    if state.is_planned(corpus_id, cohort):
        events: list[DpEvent] = [event_from_json(json.loads(form)) for form in charged.elements()]
        return accounting.epsilon(accounting.compose(events), registration.delta) if events else 0.0
    order = state.gate_order(corpus_id)
    rdp = sum(count * rdp_of_form(form, order) for form, count in charged.items() if count)
    return accounting.rdp_to_epsilon(rdp, order, registration.delta)
