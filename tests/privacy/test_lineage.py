"""What charges cost together: the worst of disjoint cohorts, the sum within one, and never less than they were made."""

import random
from dataclasses import replace
from typing import Any

import pytest
from dp_accounting import DpEvent, GaussianDpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.labels import Label
from dp_assets.privacy.lineage import Spend, worst_case
from dp_assets.privacy.metadata import (
    COHORT_EPSILON,
    LABEL,
    LEDGER_IDS,
    LINEAGE_EPSILON,
    ForeignLineage,
    artifact_metadata,
    joint_metadata,
)
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from tests.privacy.plans import small_plan
from tests.statements.statements import CORPUS, PLAN, both, charged, state_of

COHORTS = replace(CORPUS, cohorts=("early", "late"), budget_epsilon=20.0)
UNPROTECTED = small_plan("no-dp")


def strength(event: DpEvent) -> float:
    """The sum of 1 / noise squared over all Gaussians: it adds up exactly, which no epsilon does."""
    parts = getattr(event, "events", None)
    if parts is not None:
        return sum(map(strength, parts))
    return event.count * strength(event.event) if hasattr(event, "count") else 1 / event.noise_multiplier**2


def spend(cohort: str, noise_multiplier: float, corpus_id: str = "corpus") -> Spend:
    return Spend(corpus_id, cohort, GaussianDpEvent(noise_multiplier))


def test_charges_of_one_cohort_add_up_and_equal_ones_count_as_often_as_they_were_made() -> None:
    assert worst_case([spend("a", 1.0), spend("a", 2.0)], strength) == 1.25
    assert worst_case([spend("a", 2.0)] * 3, strength) == 0.75


def test_of_disjoint_cohorts_the_worst_counts() -> None:
    spends = [spend("a", 2.0), spend("a", 2.0), spend("b", 1.0), spend("c", 4.0)]
    assert worst_case(spends, strength) == 1.0
    assert worst_case(spends, strength, cohorts_met=2) == 1.5
    assert worst_case(spends, strength, cohorts_met=8) == 1.5625


def test_corpora_may_share_people_so_theirs_add_up() -> None:
    spends = [spend("a", 1.0), spend("b", 2.0), spend("a", 1.0, "other"), spend("b", 0.5, "other")]
    assert worst_case(spends, strength) == 5.0


def test_no_charges_cost_nothing() -> None:
    assert worst_case([], lambda event: accounting.epsilon(event, 1e-5)) == 0


def test_the_figure_depends_on_neither_order_nor_names() -> None:
    choose = random.Random(4)
    for _ in range(50):
        spends = [spend(choose.choice("abc"), choose.choice([0.5, 1.0, 2.0, 4.0])) for _ in range(choose.randint(1, 6))]
        totals = {
            cohort: sum(strength(one.event) for one in spends if one.cohort == cohort) for cohort in "abc"
        }  # powers of two, so that sums are exact
        assert worst_case(spends, strength) == max(totals.values())
        assert worst_case(choose.sample(spends, len(spends)), strength) == max(totals.values())


def figures(
    *bodies: tuple[str, dict[str, Any]],
    cohort: str | None = "early",
    level: str | None = "eps-8",
    charge_ids: tuple[str, ...] = (GENERATOR,),
    plans: tuple[Any, ...] = (PLAN,),
) -> dict[str, Any]:
    """The metadata of a released artifact of two cohorts' ledger."""
    state = state_of(*bodies, corpus=COHORTS, plans=plans)
    return artifact_metadata(state, COHORTS, label=Label.RELEASED, cohort=cohort, level=level, charge_ids=charge_ids)


@pytest.mark.parametrize("changed", [{"corpus_id": "another"}, {"voided": True}, {"charge_id": "unknown"}])
def test_an_artifact_that_descends_from_elsewhere_gets_no_figures(changed: dict[str, Any]) -> None:
    with pytest.raises(ForeignLineage, match="another corpus"):
        figures(("charged", charged(GENERATOR, **{"cohort": "early", **changed})))


@pytest.mark.parametrize(("cohort", "level"), [(None, None), ("early", "eps-8"), ("late", "eps-8")])
def test_an_artifact_over_two_cohorts_states_the_worst_of_both(cohort: str | None, level: str | None) -> None:
    bodies = [("charged", charged(GENERATOR, charge_id="one", cohort="early"))]
    bodies += [("charged", charged(HISTOGRAM, charge_id="two", cohort="late"))]
    bodies += [("charged", charged(HISTOGRAM, charge_id="beyond", cohort="late", booked=False))]
    stated = figures(*bodies, cohort=cohort, level=level, charge_ids=("one", "two"))
    state = state_of(*bodies, corpus=COHORTS)
    assert stated[LINEAGE_EPSILON] == accounting.epsilon(PLAN.dpsgd.event, PLAN.delta)
    assert state.cohort_epsilon("corpus", "late") > state.cohort_epsilon("corpus", "early")
    assert stated[COHORT_EPSILON] == COHORTS.budget_epsilon  # a run of the one cohort was chosen after results
    assert stated[LEDGER_IDS] == ["one", "two"]


def test_an_artifact_over_two_levels_of_a_cohort_states_their_composition() -> None:
    small = small_plan("eps-1")
    bodies = [
        ("charged", charged(GENERATOR, charge_id=plan.level, cohort="early", plan=plan)) for plan in (PLAN, small)
    ]
    stated = figures(*bodies, charge_ids=("eps-8", "eps-1"), plans=(PLAN, small))
    joint = accounting.compose([PLAN.dpsgd.event, small.dpsgd.event])
    assert stated[LINEAGE_EPSILON] == accounting.epsilon(joint, PLAN.delta)


@pytest.mark.parametrize(("cohort", "level"), [(None, None), ("early", "eps-8")])
def test_what_was_made_without_noise_gives_nothing_to_the_released_zone(cohort: str | None, level: str | None) -> None:
    bodies = [("charged", charged(GENERATOR, charge_id="bare", cohort="early", plan=UNPROTECTED, booked=False))]
    with pytest.raises(ForeignLineage, match="no-dp"):
        figures(*bodies, cohort=cohort, level=level, charge_ids=("bare",))


def test_an_artifact_without_noise_is_private_and_unbounded_whatever_else_it_was_made_from() -> None:
    bodies = [("charged", charged(GENERATOR, cohort="early"))]
    stated = figures(*bodies, level="no-dp")
    assert stated[COHORT_EPSILON] == float("inf")
    assert stated[LABEL] == Label.PRIVATE
    bodies += [("charged", charged(GENERATOR, charge_id="bare", cohort="early", plan=UNPROTECTED, booked=False))]
    assert figures(*bodies, level="no-dp", charge_ids=(GENERATOR, "bare"))[LINEAGE_EPSILON] == float("inf")


def test_an_artifact_of_a_closed_cohort_has_no_headline() -> None:
    closed = ("closed", {"corpus_id": "corpus", "cohort": "late", "reasons": ["steps"]})
    generator = ("charged", charged(GENERATOR, cohort="early"))
    assert figures(generator, closed)[COHORT_EPSILON] == PLAN.epsilon
    assert figures(generator, closed, cohort="late")[COHORT_EPSILON] == float("inf")


def test_an_artifact_of_a_cohort_answers_for_it_even_without_a_charge_of_its_own() -> None:
    assert figures(charge_ids=())[COHORT_EPSILON] == PLAN.epsilon
    assert figures(charge_ids=(), cohort=None, level=None)[COHORT_EPSILON] == 0


def test_artifacts_together_cost_the_composition_of_the_union_of_their_charges() -> None:
    joint = joint_metadata(state_of(*both()), [GENERATOR, HISTOGRAM])
    assert joint["lineage_epsilon"] == PLAN.epsilon
    assert [cohort["spent_epsilon"] for cohort in joint["cohorts"]] == [PLAN.epsilon]
    with pytest.raises(ForeignLineage, match="does not know"):
        joint_metadata(state_of(*both()), ["unknown"])
