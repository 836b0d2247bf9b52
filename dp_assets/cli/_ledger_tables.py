"""The output of `dp-instructions ledger show`: one JSON value, and the same as tables.

Everything here is public or a keyed hash. For a closed cohort, the failed checks and the planned values are shown. A
value that ran may be a number that follows from private rows, so it stays in the ledger's entry, in the private zone.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from dp_assets.cli._tables import print_table
from dp_assets.privacy import accounting
from dp_assets.privacy.events import event_from_json
from dp_assets.privacy.headline import Basis
from dp_assets.privacy.ledger_state import Booking, ChargeRecord, LedgerState
from dp_assets.privacy.metadata import headline_form
from dp_assets.privacy.units import relation_in_words

Row = dict[str, Any]
Columns = Mapping[str, Callable[[Mapping[str, Any]], object]]


def overview(state: LedgerState) -> Row:
    """Return the whole ledger as one JSON value. An unbounded epsilon is null."""
    return {
        "corpora": [registration.to_json() for registration in state.registrations.values()],
        "cohorts": _cohorts(state),
        "budget_raises": [vars(raised) for raised in state.raises],
        "bookings": [_booking(state, booking) for booking in state.bookings.values()],
        "charges": [_charge(state, charge) for charge in state.charges.values()],
        "closings": [
            {"corpus_id": corpus_id, "cohort": cohort, "failed": [_without_what_ran(reason) for reason in reasons]}
            for (corpus_id, cohort), reasons in state.closed.items()
        ],
        "overlaps": [list(state.together(corpus_id)) for corpus_id in _first_of_each_overlap(state)],
        "erasures": [{"corpus_id": corpus_id, "units": list(units)} for corpus_id, units in state.erasures.items()],
        "length": state.anchor.length,
        "head": state.anchor.head,
    }


def _first_of_each_overlap(state: LedgerState) -> list[str]:
    return [corpus_id for corpus_id in state.overlaps if state.together(corpus_id)[0] == corpus_id]


def _cohorts(state: LedgerState) -> list[Row]:
    return [
        {
            "corpus_id": corpus_id,
            "cohort": cohort,
            "unit": registration.unit,
            "delta": registration.delta,
            **headline_form(state.guarantee(corpus_id, [cohort], without_noise=False)),
            "closed": state.is_closed(corpus_id, cohort),
        }
        for corpus_id, registration in state.registrations.items()
        for cohort in registration.cohorts
    ]


def _booking(state: LedgerState, booking: Booking) -> Row:
    return {
        "booking_id": booking.booking_id,
        "corpus_id": booking.corpus_id,
        "cohort": booking.cohort,
        "level": booking.level,
        "mechanism": booking.mechanism,
        "epsilon_alone": _alone(state, booking),
        "used": booking.booking_id in state.used_bookings(),
    }


def _charge(state: LedgerState, charge: ChargeRecord) -> Row:
    return {
        "charge_id": charge.charge_id,
        "corpus_id": charge.corpus_id,
        "cohort": charge.cohort,
        "level": charge.level,
        "mechanism": charge.mechanism,
        "snapshot": charge.snapshot,
        "state": _state_of(charge),
        "epsilon_alone": _alone(state, charge),
        "booking_id": charge.booking_id,
        "supplement_of": charge.supplement_of,
        "continuations": len(charge.continuations),
        "spare_steps": charge.spare_steps,
    }


def _state_of(charge: ChargeRecord) -> str:
    """Return the state of a charge in one word."""
    if charge.voided:
        return "voided"
    if charge.settled:
        return "settled"
    return "opened" if charge.opened else "booked"


def _alone(state: LedgerState, spent: ChargeRecord | Booking) -> float | None:
    """Return the epsilon of one charge or booking by itself, at its corpus's delta."""
    return _finite(accounting.epsilon(event_from_json(spent.event), state.registrations[spent.corpus_id].delta))


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


def _without_what_ran(reason: str) -> str:
    return reason.partition(", ran ")[0]


def epsilon_in_words(epsilon: float | None) -> str:
    return "unbounded" if epsilon is None else f"{epsilon:.4f}"


def _history(charge: Mapping[str, Any]) -> str:
    """Return the state of a charge, how often its run was resumed, and the charge that it supplements."""
    history = [charge["state"]]
    if charge["continuations"]:
        spare = "" if charge["spare_steps"] is None else f" of {charge['spare_steps']}"
        history.append(f"continued {charge['continuations']}{spare}")
    if charge["supplement_of"]:
        history.append(f"beside {charge['supplement_of'][:8]}")
    return ", ".join(history)


def _corpus(row: Mapping[str, Any]) -> str:
    """Return enough of a corpus's id to distinguish it from others."""
    return str(row["corpus_id"][:8])


def _guaranteed(row: Mapping[str, Any]) -> str:
    if row["headline_epsilon"] is None:
        return "none"
    rests_on = "the plans" if row["headline_basis"] == Basis.FIXED_BEFOREHAND else "the budget"
    return f"{row['headline_epsilon']:.4f}, {rests_on}"


def _partition(row: Mapping[str, Any]) -> str:
    return f"{row['cohort']}|{row['level']}"


# Title, the part of the overview, and each column with a function from a row to its cell.
TABLES: tuple[tuple[str, str, Columns], ...] = (
    (
        "corpora",
        "corpora",
        {
            "corpus": lambda row: row["corpus_id"],
            "unit": lambda row: f"{row['unit']}, {row['max_rows_per_unit']} rows",
            "relation": lambda row: relation_in_words(row["relation"]),
            "delta": lambda row: f"{row['delta']:g}",
            "order": lambda row: row["gate_order"],
            "public": lambda row: "yes" if row["is_public"] else "no",
        },
    ),
    (
        "cohorts: the guarantee; what was spent is accounting",
        "cohorts",
        {
            "of": _corpus,
            "cohort": lambda row: row["cohort"],
            "guarantee": _guaranteed,
            "spent or booked": lambda row: epsilon_in_words(row["spent_epsilon"]),
            "budget": lambda row: f"{row['budget_epsilon']:g}",
            "takes charges": lambda row: "no, closed" if row["closed"] else "yes",
        },
    ),
    (
        "budget raises: each is the guarantee from then on",
        "budget_raises",
        {
            "of": _corpus,
            "at": lambda row: row["at"],
            "from": lambda row: f"{row['before']:g}",
            "to": lambda row: f"{row['after']:g}",
            "reason": lambda row: row["reason"],
        },
    ),
    (
        "bookings: planned before any output",
        "bookings",
        {
            "of": _corpus,
            "mechanism": lambda row: row["mechanism"],
            "partition": _partition,
            "epsilon alone": lambda row: epsilon_in_words(row["epsilon_alone"]),
            "used": lambda row: "yes" if row["used"] else "no",
        },
    ),
    (
        "charges",
        "charges",
        {
            "charge": lambda row: row["charge_id"],
            "mechanism": lambda row: row["mechanism"],
            "partition": _partition,
            "alone": lambda row: epsilon_in_words(row["epsilon_alone"]),
            "state": _history,
        },
    ),
    (
        "closed cohorts",
        "closings",
        {"of": _corpus, "cohort": lambda row: row["cohort"], "failed": lambda row: "\n".join(row["failed"])},
    ),
    (
        "corpora of one budget: the charges of each count in the account of all",
        "overlaps",
        {"corpora": lambda row: "\n".join(row)},
    ),
    ("erasures", "erasures", {"of": _corpus, "erased units": lambda row: len(row["units"])}),
)
WHOLE = ("corpus", "charge", "mechanism", "alone")  # columns that are never wrapped, so that they can be copied


def print_tables(out: Console, shown: Mapping[str, Any]) -> None:
    """Print the tables of an `overview`, except those of empty parts."""
    for title, part, columns in TABLES:
        if shown[part]:
            rows = [[say(row) for say in columns.values()] for row in shown[part]]
            print_table(out, list(columns), rows, title=title, whole=WHOLE)
            out.print()
    out.print(f"{shown['length']} entries, head {shown['head']}")
