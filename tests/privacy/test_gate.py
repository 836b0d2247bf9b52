"""The gate compares exactly: the least bit over the budget is refused, at registration and later."""

import math
from dataclasses import replace
from typing import Any

import pytest
from dp_accounting import ComposedDpEvent, GaussianDpEvent, NonPrivateDpEvent, SelfComposedDpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.events import DiscreteGaussianDpEvent
from dp_assets.privacy.gate import (
    BudgetExceeded,
    CohortClosed,
    ContinuationRefused,
    admit,
    check_continuation,
    check_overlap,
    check_plans_fit,
)
from dp_assets.privacy.ledger_state import ChargeRecord, LedgerState
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM, DpSgdPlan, VotesPlan
from dp_assets.privacy.registration import RegistrationError
from dp_assets.privacy.units import PrivacyUnit, WithoutUser
from tests.privacy.plans import small_plan
from tests.statements.statements import CORPUS, PLAN, charged, state_of

DELTA, ORDER = CORPUS.delta, CORPUS.gate_order


def record(mechanism: str = GENERATOR, **changed: Any) -> ChargeRecord:
    return ChargeRecord(**charged(mechanism, booked=False, **changed))


def needed(*records: ChargeRecord) -> float:
    """What the adaptive gate takes these charges to cost."""
    return accounting.rdp_to_epsilon(
        sum(accounting.rdp(PLAN.events[one.mechanism], ORDER) for one in records), ORDER, DELTA
    )


def with_budget(budget: float, *bodies: Any) -> LedgerState:
    return state_of(*bodies, corpus=replace(CORPUS, budget_epsilon=budget), plans=())


def test_plans_that_need_the_whole_budget_are_booked_and_the_least_bit_more_is_refused() -> None:
    events = list(PLAN.events.values())
    total = accounting.epsilon(accounting.compose(events), DELTA)
    check_plans_fit(replace(CORPUS, budget_epsilon=total), "all", events)
    with pytest.raises(BudgetExceeded):
        check_plans_fit(replace(CORPUS, budget_epsilon=math.nextafter(total, 0)), "all", events)


def test_both_mechanisms_of_a_plan_count_at_registration() -> None:
    events = list(PLAN.events.values())
    alone, both = (accounting.epsilon(accounting.compose(some), DELTA) for some in (events[:1], events))
    for budget in (alone, (alone + both) / 2):
        with pytest.raises(BudgetExceeded):
            check_plans_fit(replace(CORPUS, budget_epsilon=budget), "all", events)


def test_a_later_charge_that_needs_the_whole_budget_is_admitted_and_the_least_bit_more_is_refused() -> None:
    request = record()
    assert admit(with_budget(needed(request)), request, to_come=[]) == request
    with pytest.raises(BudgetExceeded):
        admit(with_budget(math.nextafter(needed(request), 0)), request, to_come=[])


def test_what_is_still_to_come_of_a_plan_has_to_fit_to_the_last_bit() -> None:
    request, votes = record(), record(HISTOGRAM)
    both = needed(request, votes)
    assert admit(with_budget(both), request, to_come=[votes]) == request
    with pytest.raises(BudgetExceeded):
        admit(with_budget(math.nextafter(both, 0)), request, to_come=[votes])


def test_what_was_charged_before_counts_to_the_last_bit() -> None:
    first = ("charged", charged(GENERATOR, booked=False))
    request = record(HISTOGRAM)
    both = needed(record(), request)
    assert admit(with_budget(both, first), request, to_come=[]) == request
    with pytest.raises(BudgetExceeded):
        admit(with_budget(math.nextafter(both, 0), first), request, to_come=[])


@pytest.mark.parametrize("booked", [True, False])
def test_a_voided_charge_gives_back_what_it_took_and_nothing_else(booked: bool) -> None:
    entries = [("charged", charged(GENERATOR, booked=booked)), ("voided", {"charge_id": GENERATOR, "reason": "-"})]
    assert state_of(*entries).cohort_epsilon("corpus", "all") == state_of().cohort_epsilon("corpus", "all")


def test_the_cost_of_a_supplement_counts_though_its_charge_was_booked() -> None:
    extra = charged(GENERATOR, charge_id="extra", booked=False, event={"type": "non_private"}, supplement_of=GENERATOR)
    state = state_of(("charged", charged(GENERATOR)), ("charged", extra))
    assert state.cohort_epsilon("corpus", "all") == math.inf


@pytest.mark.parametrize(
    "changed",
    [{"level": "eps-1"}, {"cohort": "late"}, {"plan_digest": "another"}, {"event": {"type": "non_private"}}],
)
def test_a_charge_that_differs_from_the_booking_anywhere_draws_on_none(changed: dict[str, Any]) -> None:
    corpus = replace(CORPUS, cohorts=("all", "late"), budget_epsilon=1e9)
    state = state_of(corpus=replace(corpus, cohorts=("all",)), plans=(PLAN,))
    state.registrations["corpus"] = corpus
    assert admit(state, record(), to_come=[]).booking_id is not None
    if changed.get("event"):
        with pytest.raises(BudgetExceeded):
            admit(state, record(**changed), to_come=[])
    else:
        assert admit(state, record(**changed), to_come=[]).booking_id is None


def test_a_booking_pays_once() -> None:
    used = state_of(("charged", charged(GENERATOR)), corpus=replace(CORPUS, budget_epsilon=100.0))
    assert admit(used, record(charge_id="again"), to_come=[]).booking_id is None
    assert admit(used, record(HISTOGRAM), to_come=[]).booking_id is not None


def test_a_closed_cohort_takes_not_even_what_was_booked() -> None:
    closed = state_of(("closed", {"corpus_id": "corpus", "cohort": "all", "reasons": []}))
    with pytest.raises(CohortClosed):
        admit(closed, record(), to_come=[])


@pytest.mark.parametrize("cohort", ["", "al", "all "])
def test_a_cohort_that_was_not_registered_takes_no_charge(cohort: str) -> None:
    with pytest.raises(RegistrationError, match="not one of the registered"):
        admit(state_of(), record(cohort=cohort), to_come=[])


def test_as_many_continuations_as_spare_steps_and_none_more() -> None:
    spare = record(spare_steps=2)
    check_continuation(replace(spare, continuations=("a",)), "b")
    for again in (replace(spare, continuations=("a", "b")), replace(spare, spare_steps=0)):
        with pytest.raises(ContinuationRefused):
            check_continuation(again, "c")
    with pytest.raises(ContinuationRefused):
        check_continuation(replace(spare, continuations=("a",)), "a")


@pytest.mark.parametrize(
    "event",
    [
        VotesPlan(num_bins=8, noise_stddev=0).event,
        DpSgdPlan(0.25, 4, 2, 0.5, 0.0, 16).event,
        DiscreteGaussianDpEvent(0.0),
        SelfComposedDpEvent(NonPrivateDpEvent(), 3),
        ComposedDpEvent([GaussianDpEvent(10.0), NonPrivateDpEvent()]),
    ],
    ids=str,
)
def test_what_runs_without_noise_is_accounted_as_unbounded(event: Any) -> None:
    assert accounting.epsilon(event, DELTA) == math.inf
    assert accounting.rdp(event, ORDER) == math.inf
    assert accounting.epsilon(accounting.compose([event, PLAN.event]), DELTA) == math.inf


@pytest.mark.parametrize("changed", [{"delta": 1e-6}, {"max_rows_per_unit": 3}])
def test_a_plan_for_another_delta_or_bound_is_not_booked(changed: dict[str, Any]) -> None:
    CORPUS.check_plan(PLAN)
    with pytest.raises(RegistrationError, match="delta"):
        CORPUS.check_plan(replace(PLAN, **changed))


def test_a_plan_spends_its_spare_steps_and_its_histogram_beforehand() -> None:
    plan = small_plan()
    spared = replace(plan.dpsgd, spare_steps=plan.dpsgd.spare_steps + 8)
    assert accounting.rdp(spared.event, ORDER) > accounting.rdp(plan.dpsgd.event, ORDER)
    longer = replace(plan.dpsgd, steps=plan.dpsgd.steps + 8)
    assert accounting.rdp(longer.event, ORDER) == accounting.rdp(spared.event, ORDER)
    assert accounting.rdp(plan.event, ORDER) == pytest.approx(
        sum(accounting.rdp(e, ORDER) for e in plan.events.values())
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"unit": PrivacyUnit.INSTRUCTION},
        {"without_user": WithoutUser.DROP},
        {"relation": "REPLACE_ONE"},
        {"delta": 1e-6},
        {"budget_epsilon": 9.0},
    ],
)
def test_corpora_that_differ_in_what_a_guarantee_means_get_no_budget_in_common(changed: dict[str, Any]) -> None:
    state = state_of(plans=())
    state.registrations["other"] = replace(CORPUS, corpus_id="other")
    check_overlap(state, "corpus", "other")
    state.registrations["other"] = replace(CORPUS, corpus_id="other", **changed)
    with pytest.raises(RegistrationError, match=next(iter(changed))):
        check_overlap(state, "corpus", "other")
