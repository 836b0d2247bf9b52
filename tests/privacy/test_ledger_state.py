"""What the entries of a ledger add up to."""

import pytest

from dp_assets.privacy.chain import LedgerTampered, chain
from dp_assets.privacy.plan import GENERATOR
from tests.statements.statements import PLAN, both, charged, state_of


def test_a_release_counts_as_paid_for_only_by_a_charge_that_was_settled_and_not_voided() -> None:
    begun = [("charged", charged(GENERATOR)), ("opened", {"charge_id": GENERATOR})]
    settled = ("settled", {"charge_id": GENERATOR, "evidence": {}})
    voided = ("voided", {"charge_id": GENERATOR, "reason": "-"})
    assert state_of(*begun).find_settled(GENERATOR) == frozenset()
    assert state_of(*begun, settled).find_settled("another release") == frozenset()
    assert state_of(*begun, settled, voided).find_settled(GENERATOR) == frozenset()
    assert state_of(*begun, settled).find_settled(GENERATOR) == {GENERATOR}


def test_a_booking_that_a_charge_draws_on_counts_once_and_a_charge_beyond_it_counts_besides() -> None:
    booked = state_of()
    assert booked.cohort_epsilon("corpus", "all") == PLAN.epsilon
    assert state_of(*both()).cohort_epsilon("corpus", "all") == PLAN.epsilon
    beyond = state_of(*both(), ("charged", charged(GENERATOR, charge_id="beyond", booked=False)))
    assert beyond.cohort_epsilon("corpus", "all") > PLAN.epsilon
    assert not beyond.is_planned("corpus", "all")


def test_entries_of_a_newer_version_are_refused() -> None:
    with pytest.raises(LedgerTampered, match=r"'promised'.*newer version"):
        state_of(("promised", {"corpus_id": "corpus"}))


def test_a_further_entry_leaves_the_state_before_it_as_it_was() -> None:
    before = state_of(*both())
    head, (entry,) = before.anchor, chain(before.anchor, "2026-11-25", [("opened", {"charge_id": GENERATOR})])
    assert before.after([entry]).charges[GENERATOR].opened
    assert not before.charges[GENERATOR].opened
    assert before.anchor == head
