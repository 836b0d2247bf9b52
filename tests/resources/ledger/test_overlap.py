"""Corpora that share units: sketches that tell the owner, and declarations that make one budget of two corpora."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from dp_assets.privacy import accounting
from dp_assets.privacy.claim import ClaimRefused, Discrepancy
from dp_assets.privacy.gate import BudgetExceeded
from dp_assets.privacy.headline import Basis
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.privacy.registration import RegistrationError
from resources.ledger.ledger_resource import ChargeRefused, Ledger, SnapshotConflict
from resources.ledger.overlap import SIZE, Sketch, Sketches, sketch_hash
from tests.privacy.plans import small_plan
from tests.resources.ledgers import charge, register, terms


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(private_root=str(tmp_path / "data/private"))


def pair(ledger: Ledger, *levels: str, budget: float = 20.0) -> tuple[str, str]:
    """Two corpora, of which the first has booked these levels."""
    first = register(ledger, *levels, budget=budget)
    return first.corpus_id, register(ledger, budget=budget, locator="elsewhere").corpus_id


def at_the_gate(state: LedgerState, corpus_id: str, *levels: str) -> float:
    """What the adaptive gate takes all of these plans to cost together."""
    order = state.gate_order(corpus_id)
    rdp = sum(accounting.rdp(small_plan(level).event, order) for level in levels)
    return accounting.rdp_to_epsilon(rdp, order, 1e-5)


def test_prepared_rows_that_are_the_same_are_refused_whatever_the_source_holds_besides(ledger: Ledger) -> None:
    first, second = pair(ledger)
    ledger.bind_rows(first, "1", rows="rows", texts="texts", preparation="settings")
    with pytest.raises(SnapshotConflict, match="another source"):
        ledger.bind_rows(second, "1", rows="rows", texts="texts and a blank", preparation="settings")


def test_the_same_texts_of_the_same_units_are_refused_whatever_cohort_or_split_they_are_in(ledger: Ledger) -> None:
    first, second = pair(ledger)
    ledger.bind_rows(first, "1", rows="rows", texts="texts", preparation="settings", content="content")
    with pytest.raises(SnapshotConflict, match="another source"):
        ledger.bind_rows(second, "1", rows="in cohorts", texts="with a blank", preparation="other", content="content")


def test_rows_that_an_older_snapshot_held_are_refused_too(ledger: Ledger) -> None:
    first, second = pair(ledger)
    ledger.bind_rows(first, "1", rows="rows", texts="texts", preparation="settings")
    ledger.bind_rows(first, "2", rows="more rows", texts="more texts", preparation="settings")
    with pytest.raises(SnapshotConflict, match="another source"):
        ledger.bind_rows(second, "1", rows="rows", texts="with a blank", preparation="settings")


def test_corpora_of_one_budget_may_hold_the_same_rows(ledger: Ledger) -> None:
    first, second = pair(ledger)
    ledger.declare_overlap(first, second, "the same people")
    for corpus_id in (first, second):
        ledger.bind_rows(corpus_id, "1", rows="rows", texts="texts", preparation="settings")


def test_what_either_corpus_spends_counts_in_the_account_of_both(ledger: Ledger) -> None:
    first, second = pair(ledger)
    ledger.declare_overlap(first, second, "the same people")
    for corpus_id, level in ((first, "eps-1.5"), (second, "eps-2.86")):
        for mechanism in (GENERATOR, HISTOGRAM):
            charge(ledger, corpus_id, level, mechanism, key=f"{corpus_id} {mechanism}")
    state = ledger.state()
    both = at_the_gate(state, first, "eps-1.5", "eps-2.86")
    assert both > at_the_gate(state, first, "eps-2.86")
    for corpus_id in (first, second):
        assert state.cohort_epsilon(corpus_id, "all") == pytest.approx(both, abs=1e-3)
        assert state.guarantee(corpus_id, ["all"], without_noise=False).basis is Basis.BUDGET


def test_the_gate_refuses_what_fits_one_corpus_alone_but_not_both_together(ledger: Ledger) -> None:
    alone = pair(ledger, "eps-5.94", budget=9.0)[1]
    for mechanism in (GENERATOR, HISTOGRAM):
        charge(ledger, alone, "eps-5.94", mechanism, key=mechanism)
    other = Ledger(private_root=str(Path(ledger.private_root).parents[1] / "other/private"))
    first, second = pair(other, "eps-5.94", budget=9.0)
    other.declare_overlap(first, second, "the same people")
    with pytest.raises(ChargeRefused, match="spent or booked"):
        charge(other, second, "eps-5.94", GENERATOR)


def test_a_declaration_that_does_not_fit_the_budget_changes_nothing(ledger: Ledger) -> None:
    first, second = pair(ledger, "eps-5.94", budget=9.0)
    for mechanism in (GENERATOR, HISTOGRAM):
        charge(ledger, second, "eps-5.94", mechanism, key=mechanism)
    before = ledger.entries()
    with pytest.raises(BudgetExceeded, match="Nothing was declared"):
        ledger.declare_overlap(first, second, "the same people")
    assert ledger.entries() == before
    for corpus_id in (first, second):
        ledger.raise_budget(corpus_id, 20.0, "room for both")
    ledger.declare_overlap(first, second, "the same people")
    assert ledger.state().together(second) == (first, second)


@pytest.mark.parametrize("closed", [0, 1])
def test_a_closed_cohort_leaves_nothing_to_declare(ledger: Ledger, closed: int) -> None:
    corpora = pair(ledger)
    with pytest.raises(ClaimRefused):
        charge(ledger, corpora[closed], "eps-1.5").settle({}, [Discrepancy("steps", 4, 5)])
    with pytest.raises(BudgetExceeded, match="closed"):
        ledger.declare_overlap(*corpora, "the same people")


def test_a_run_that_differs_closes_the_cohorts_of_both_corpora(ledger: Ledger) -> None:
    first, second = pair(ledger)
    ledger.declare_overlap(first, second, "the same people")
    with pytest.raises(ClaimRefused):
        charge(ledger, first, "eps-1.5").settle({}, [Discrepancy("steps", 4, 5)])
    assert ledger.state().guarantee(second, ["all"], without_noise=False).epsilon == math.inf
    with pytest.raises(ChargeRefused, match="closed"):
        charge(ledger, second, "eps-1.5")


def test_a_charge_that_waits_in_one_corpus_is_refused_once_a_run_of_the_other_closed_both(ledger: Ledger) -> None:
    first, second = pair(ledger)
    ledger.declare_overlap(first, second, "the same people")
    waiting = charge(ledger, second, "eps-1.5")
    with pytest.raises(ClaimRefused):
        charge(ledger, first, "eps-1.5").settle({}, [Discrepancy("steps", 4, 5)])
    for use in (waiting.mark_opened, lambda: waiting.continued("checkpoint"), lambda: waiting.settle({}, [])):
        with pytest.raises(ChargeRefused, match="closed"):
            use()


def test_terms_that_one_budget_cannot_have_are_refused_by_name(ledger: Ledger) -> None:
    first = register(ledger, budget=20.0).corpus_id
    second = register(ledger, budget=8.0, locator="elsewhere").corpus_id
    with pytest.raises(RegistrationError, match="budget_epsilon"):
        ledger.declare_overlap(first, second, "the same people")
    ledger.raise_budget(second, 20.0, "one budget")
    ledger.declare_overlap(first, second, "the same people")


@pytest.mark.parametrize("other", ["unknown", None])
def test_an_overlap_is_of_two_registered_corpora(ledger: Ledger, other: str | None) -> None:
    first, _ = pair(ledger)
    with pytest.raises(RegistrationError, match="two registered"):
        ledger.declare_overlap(first, other or first, "a slip")


def test_one_budget_is_raised_for_all_that_share_it(ledger: Ledger) -> None:
    first, second = pair(ledger)
    ledger.declare_overlap(first, second, "the same people")
    ledger.raise_budget(second, 30.0, "agreed on")
    assert {one.budget_epsilon for one in ledger.state().registrations.values()} == {30.0}


def test_overlaps_join_and_a_second_declaration_adds_nothing(ledger: Ledger) -> None:
    first, second = pair(ledger)
    third = register(ledger, budget=20.0, locator="a third place").corpus_id
    ledger.declare_overlap(first, second, "-")
    ledger.declare_overlap(third, second, "-")
    length = len(ledger.entries())
    ledger.declare_overlap(first, third, "-")
    assert len(ledger.entries()) == length
    assert ledger.state().together(third) == (first, second, third)
    assert ledger.state().apart_from(first) == ()


def test_the_gate_of_one_budget_keeps_the_order_of_the_corpus_that_was_registered_first(ledger: Ledger) -> None:
    first = register(ledger, "eps-1.5", budget=20.0)
    second = register(ledger, budget=20.0, locator="elsewhere")
    assert first.gate_order != second.gate_order
    ledger.declare_overlap(second.corpus_id, first.corpus_id, "-")
    assert ledger.state().gate_order(second.corpus_id) == first.gate_order


def test_of_the_other_corpus_the_cohort_that_spent_most_counts(ledger: Ledger) -> None:
    first = register(ledger, budget=20.0).corpus_id
    two = replace(terms(budget=20.0), cohorts=("early", "late"), cohort_function="two")
    second = ledger.register(locator="elsewhere", terms=two, plans=[]).corpus_id
    ledger.declare_overlap(first, second, "-")
    asked = {"corpus_id": second, "cohort": "late", "snapshot": "1", "reuse_key": "key"}
    ledger.charge(plan=small_plan("eps-1.5"), mechanism=HISTOGRAM, **asked)
    state = ledger.state()
    assert state.cohort_epsilon(first, "all") == state.cohort_epsilon(second, "late") > 0
    assert state.cohort_epsilon(second, "early") == 0


KEY = b"k" * 32


def hashes(*numbers: int) -> list[str]:
    return [sketch_hash(f"user:{number}", key=KEY) for number in numbers]


def test_the_sketch_of_a_small_corpus_tells_the_shared_part_exactly() -> None:
    one, other = Sketch.of(hashes(*range(100))), Sketch.of(hashes(*range(75, 125)))
    assert one.part_shared_with(other) == 0.25
    assert other.part_shared_with(one) == 0.5
    assert one.part_shared_with(Sketch.of(hashes(*range(200, 300)))) == 0
    assert Sketch().part_shared_with(one) == 0


def test_the_sketch_of_a_large_corpus_tells_about_the_shared_part() -> None:
    one, other = Sketch.of(hashes(*range(6000))), Sketch.of(hashes(*range(3000, 9000)))
    assert len(one.hashes) == SIZE
    assert one.part_shared_with(other) == pytest.approx(0.5, abs=0.1)
    small = Sketch.of(hashes(*range(500)))
    assert small.part_shared_with(one) == 1.0


def test_a_sketch_covers_every_snapshot_and_forgets_whoever_was_erased(tmp_path: Path) -> None:
    sketches = Sketches(tmp_path / "private")
    for numbers in (range(10), range(5, 15)):
        sketches.add("corpus", Sketch.of(hashes(*numbers)))
    assert sketches.read("corpus") == Sketch(frozenset(hashes(*range(15))))
    sketches.forget("corpus", hashes(7)[0])
    assert hashes(7)[0] not in (tmp_path / "private/overlap/corpus.json").read_text()
    assert (tmp_path / "private/overlap/corpus.json").stat().st_mode & 0o777 == 0o600
