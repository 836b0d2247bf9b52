"""An artifact's figures: the worst of its cohorts, the composition of its charges, and none from elsewhere."""

from dataclasses import replace
from typing import Any

import pytest

from dp_assets.privacy import accounting
from dp_assets.privacy.labels import LABEL_METADATA, Label
from dp_assets.privacy.metadata import (
    COHORT_EPSILON,
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
    assert stated[LABEL_METADATA] == Label.PRIVATE
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
