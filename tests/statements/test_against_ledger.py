"""What the ledger says of a statement: true when it was made, and true now."""

from collections.abc import Sequence
from typing import Any

import pytest

from dp_assets.privacy.chain import Anchor, Entry, chain
from dp_assets.privacy.ledger_state import LedgerState, booking_bodies
from dp_assets.privacy.plan import HISTOGRAM
from dp_assets.statements.against_ledger import NOW, ORIGIN, ledger_findings, untrue
from dp_assets.statements.verification import Outcome
from tests.statements.statements import CORPUS, PLAN, both, charged, planned, state_of, statement_of

LATER = ("charged", charged(HISTOGRAM, charge_id="later", booked=False))
RAISED = ("raised", {"corpus_id": "corpus", "budget_epsilon": 12.0, "reason": "-"})


def entries_of(*bodies: tuple[str, dict[str, Any]]) -> list[Entry]:
    """A ledger with the corpus, its bookings, and these entries."""
    bookings = [("planned", booking) for booking in booking_bodies("corpus", CORPUS.cohorts, (PLAN,))]
    return list(chain(Anchor(), "2026-11-24", [("registered", CORPUS.to_json()), *bookings, *bodies]))


def outcomes(statement: dict[str, Any], entries: Sequence[Entry]) -> dict[str, Outcome]:
    return {finding.check: finding.outcome for finding in ledger_findings(statement, entries)}


def test_a_statement_agrees_with_the_ledger_that_it_was_made_from() -> None:
    entries = entries_of(*both())
    statement = statement_of(LedgerState.of(entries))
    assert outcomes(statement, entries) == {ORIGIN: Outcome.AGREES, NOW: Outcome.AGREES}


@pytest.mark.parametrize("entry", [LATER, RAISED], ids=["a further charge", "a raised budget"])
def test_what_the_ledger_booked_later_makes_a_statement_untrue_now_and_not_when_it_was_made(
    entry: tuple[str, dict[str, Any]],
) -> None:
    entries = entries_of(*both(), entry)
    statement = statement_of(LedgerState.of(entries[:-1]))
    assert outcomes(statement, entries) == {ORIGIN: Outcome.AGREES, NOW: Outcome.DIFFERS}


def test_a_statement_of_another_ledger_is_told_apart_and_not_compared() -> None:
    assert outcomes(planned(), entries_of(*both(charge_id="another"))) == {ORIGIN: Outcome.DIFFERS}


def test_a_charge_that_was_voided_since_is_named() -> None:
    voided = ("voided", {"charge_id": HISTOGRAM, "reason": "-"})
    assert list(untrue(planned(), state_of(*both()))) == []
    assert "a charge of the release is unknown, voided" in next(untrue(planned(), state_of(*both(), voided)))
