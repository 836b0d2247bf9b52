"""How the epsilon of each cohort grew, entry by entry of the ledger.

The history is made of plans, of which mechanism was charged when, to the day, and of nothing that depends on a row. Two
lines tell it: what the charges so far add up to, and what the cohort answers for, bookings included, which is the
headline.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dp_accounting import DpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.chain import Entry, canonical
from dp_assets.privacy.events import event_from_json
from dp_assets.privacy.ledger import ChargeRecord, LedgerState, rdp_of_form

BOOKED = "booked"


@dataclass
class CohortHistory:
    """The steps of one cohort: what happened, and both epsilons from then on; infinity where nothing bounds them."""

    cohort: str
    labels: list[str] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)


def cohort_histories(entries: Sequence[Entry], corpus_id: str) -> list[CohortHistory]:
    """The histories of the cohorts of a corpus that have a booking or a charge, in the order of the ledger.

    Args:
      entries: the whole ledger, verified.
    """
    histories: dict[str, CohortHistory] = {}
    state, read = LedgerState(), 0
    for end, cohort, label in _steps(entries, corpus_id):
        state, read = state.after(entries[read:end]), end
        history = histories.setdefault(cohort, CohortHistory(cohort))
        history.labels.append(label)
        history.spent.append(_spent(state, corpus_id, cohort))
        history.answered.append(state.cohort_epsilon(corpus_id, cohort))
    return list(histories.values())


def _steps(entries: Sequence[Entry], corpus_id: str) -> Iterator[tuple[int, str, str]]:
    """After how many entries a cohort's account changed, whose, and by what. All bookings of a moment are one step."""
    charges: dict[str, ChargeRecord] = {}
    for number, entry in enumerate(entries):
        body, day = entry.body, entry.at[:10]
        if entry.kind == "planned" and body["corpus_id"] == corpus_id:
            if not _books_more(entries[number + 1 :], body["cohort"], entry.at):
                yield number + 1, body["cohort"], f"{BOOKED}\n{day}"
        elif entry.kind == "charged":
            charge = ChargeRecord(**{**body, "continuations": ()})
            charges[charge.charge_id] = charge
            if charge.counts and charge.corpus_id == corpus_id:
                yield number + 1, charge.cohort, f"{charge.mechanism}\n{charge.level}\n{day}"
        elif entry.kind == "voided" and charges[body["charge_id"]].corpus_id == corpus_id:
            charge = charges[body["charge_id"]]
            if charge.counts:
                yield number + 1, charge.cohort, f"voided\n{charge.level}\n{day}"


def _books_more(following: Sequence[Entry], cohort: str, at: str) -> bool:
    """Whether the same registration goes on booking for this cohort."""
    for entry in following:
        if entry.kind != "planned" or entry.at != at:
            return False
        if entry.body["cohort"] == cohort:
            return True
    return False


def _spent(state: LedgerState, corpus_id: str, cohort: str) -> float:
    """The epsilon of the charges so far, by the account that the ledger itself uses for the cohort."""
    registration, charges = state.registrations[corpus_id], state.charges_of(corpus_id, cohort)
    if state.is_planned(corpus_id, cohort):
        events: list[DpEvent] = [event_from_json(charge.event) for charge in charges]
        return accounting.epsilon(accounting.compose(events), registration.delta) if events else 0.0
    order = registration.gate_order
    rdp = sum(rdp_of_form(canonical(charge.event), order) for charge in charges)
    return accounting.rdp_to_epsilon(rdp, order, registration.delta)
