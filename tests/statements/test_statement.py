"""A statement follows from the charges behind a release and never claims more than the ledger certifies."""

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

import pytest

from dp_assets.privacy import accounting
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM, PrivacyPlan
from dp_assets.privacy.units import PrivacyUnit, WithoutUser
from dp_assets.statements.figures import AT_SMALL_DELTA
from dp_assets.statements.reading import StatementError, canonical
from dp_assets.statements.statement import FORMAT, NOT_COVERED, sealed
from dp_assets.statements.statement_pages import to_html, to_markdown
from dp_assets.statements.verification import MOST_LEVELS, verify
from tests.privacy.plans import small_plan
from tests.statements.statements import CORPUS, PLAN, both, charged, state_of, statement_of

PLANNED = state_of(*both())
LATER = ("charged", charged(HISTOGRAM, charge_id="later", booked=False))
COHORTS = replace(CORPUS, cohorts=("early", "late"))


def of_instructions(plan: PrivacyPlan) -> PrivacyPlan:
    return replace(plan, unit=PrivacyUnit.INSTRUCTION, max_rows_per_unit=1)


def in_cohorts(*generators: str, plan: PrivacyPlan = PLAN) -> LedgerState:
    """A ledger of two cohorts with one booked charge of the generator in each of those named."""
    bodies = [
        ("charged", charged(GENERATOR, charge_id=cohort, cohort=cohort, booked=True, plan=plan))
        for cohort in generators
    ]
    return state_of(*bodies, corpus=COHORTS, plans=(plan,))


def in_cohort(name: str) -> list[tuple[str, dict[str, Any]]]:
    """A charge of each mechanism in a cohort."""
    return [("charged", charged(mechanism, charge_id=name + mechanism, cohort=name)) for mechanism in PLAN.events]


def test_a_statement_verifies_after_a_round_trip_through_json() -> None:
    verify(json.loads(json.dumps(statement_of(PLANNED), allow_nan=False)))


def test_what_was_fixed_beforehand_is_stated_by_its_plan() -> None:
    guarantee = statement_of(PLANNED)["guarantee"]
    assert guarantee["headline_basis"] == "everything was fixed before any output existed"
    assert guarantee["headline_epsilon"] == guarantee["cohort_epsilon"] == guarantee["lineage_epsilon"] == PLAN.epsilon
    assert guarantee[AT_SMALL_DELTA]["lineage"] == accounting.epsilon(PLAN.event, 1e-9) > PLAN.epsilon
    assert guarantee["replace_one_epsilon"]["lineage"] == accounting.replace_one_epsilon(PLAN.event, PLAN.delta)
    assert (
        0.001 < guarantee["true_positive_rate"]["cohort"]["0.001"] < guarantee["true_positive_rate"]["cohort"]["0.01"]
    )


def test_a_release_of_one_mechanism_costs_less_than_what_is_booked_for_its_cohort() -> None:
    guarantee = statement_of(PLANNED, charge_ids=[GENERATOR])["guarantee"]
    assert guarantee["lineage_epsilon"] < guarantee["cohort_epsilon"] == guarantee["headline_epsilon"]
    for figure in (AT_SMALL_DELTA, "replace_one_epsilon"):
        assert guarantee[figure]["lineage"] < guarantee[figure]["cohort"]


@pytest.mark.parametrize("changed", [{"noise_multiplier": 50.0}, {"l2_clip_norm": 0.1}])
def test_a_release_is_not_stated_with_another_plan_than_it_was_made_with(changed: dict[str, float]) -> None:
    other = replace(PLAN, dpsgd=replace(PLAN.dpsgd, **changed))
    with pytest.raises(StatementError, match="another plan"):
        statement_of(PLANNED, [other])


@pytest.mark.parametrize("changed", [{"corpus_id": "another"}, {"voided": True}, {"charge_id": "renamed"}])
def test_nothing_is_stated_of_a_foreign_voided_or_unknown_charge(changed: dict[str, Any]) -> None:
    with pytest.raises(StatementError, match="unknown or voided"):
        statement_of(state_of(("charged", charged(GENERATOR, **changed))), charge_ids=[GENERATOR])


def test_nothing_is_stated_of_a_release_that_descends_from_no_charge() -> None:
    with pytest.raises(StatementError, match="no charge"):
        statement_of(PLANNED, charge_ids=[])


def test_the_headline_is_the_budget_when_a_run_was_chosen_after_results() -> None:
    statement = statement_of(state_of(*both(), LATER))
    verify(statement)
    guarantee = statement["guarantee"]
    assert (
        guarantee["headline_basis"] == "none, since more was spent than the budget"
    )  # RDP of eps-8 is over 8 by itself
    assert guarantee["headline_epsilon"] is None


@pytest.fixture(scope="module")
def adaptive() -> dict[str, Any]:
    raised = ("raised", {"corpus_id": "corpus", "budget_epsilon": 15.0, "reason": "the board agreed"})
    return statement_of(state_of(*both(), raised, LATER))


def test_a_raised_budget_is_the_headline_of_an_adaptive_cohort_and_its_raise_is_listed(
    adaptive: dict[str, Any],
) -> None:
    verify(adaptive)
    assert adaptive["guarantee"]["headline_basis"] == "the budget, since some runs were chosen after results"
    assert adaptive["guarantee"]["headline_epsilon"] == 15.0
    assert adaptive["budget"] == {"epsilon": 15.0, "raised": [{"at": "2026-11-24", "from": 8.0, "to": 15.0}]}
    assert "the board" not in json.dumps(adaptive)


def test_the_figures_of_a_budget_follow_from_the_order_of_its_gate_and_bound_what_was_spent(
    adaptive: dict[str, Any],
) -> None:
    guarantee, order, delta = adaptive["guarantee"], CORPUS.gate_order, CORPUS.delta
    least = 15.0 - accounting.rdp_to_epsilon(0.0, order, delta)  # the RDP that the budget allows
    assert guarantee[AT_SMALL_DELTA]["cohort"] == pytest.approx(accounting.rdp_to_epsilon(least, order, 1e-9), abs=2e-4)
    assert guarantee["replace_one_epsilon"]["cohort"] is None
    spent = accounting.compose([*PLAN.events.values(), PLAN.votes.event])
    assert guarantee["true_positive_rate"]["cohort"]["0.01"] >= accounting.trade_off(spent, (0.01,))[0.01]


@pytest.mark.parametrize("form", [{"type": "non_private"}, None], ids=["unbounded", "a step more"])
def test_nothing_is_claimed_for_a_cohort_that_was_closed(form: dict[str, Any] | None) -> None:
    event = form or charged(HISTOGRAM)["event"]
    supplement = charged(GENERATOR, charge_id="supplement", booked=False, event=event, supplement_of=GENERATOR)
    closed = ("closed", {"corpus_id": "corpus", "cohort": "all", "reasons": ["steps"]})
    statement = statement_of(state_of(*both(), ("charged", supplement), closed))
    verify(statement)
    guarantee = statement["guarantee"]
    assert guarantee["headline_basis"] == "none, since a run differed from its plan and the cohort is closed"
    assert guarantee["headline_epsilon"] is guarantee[AT_SMALL_DELTA]["cohort"] is None
    assert set(guarantee["true_positive_rate"]["cohort"].values()) == {1.0}


def test_a_statement_without_noise_claims_nothing() -> None:
    plan, corpus = small_plan("no-dp"), replace(CORPUS, is_public=True)
    statement = statement_of(state_of(*both(plan=plan, booked=False), corpus=corpus), [plan])
    verify(statement)
    guarantee = statement["guarantee"]
    assert guarantee["cohort_epsilon"] is guarantee["lineage_epsilon"] is guarantee["headline_epsilon"] is None
    assert guarantee["headline_basis"] == "none, since it ran without noise"


def test_several_levels_of_a_cohort_cost_their_composition() -> None:
    small = small_plan("eps-1")
    ids = [GENERATOR, HISTOGRAM, "small"]
    bodies = [*both(), ("charged", charged(GENERATOR, charge_id="small", plan=small))]
    corpus = replace(CORPUS, budget_epsilon=10.0)
    statement = statement_of(state_of(*bodies, corpus=corpus, plans=(PLAN, small)), [PLAN, small], charge_ids=ids)
    verify(statement)
    joint = accounting.compose([*PLAN.events.values(), small.dpsgd.event])
    assert statement["release"] == {"cohorts": ["all"], "levels": ["eps-1", "eps-8"]}
    assert statement["guarantee"]["lineage_epsilon"] == accounting.epsilon(joint, PLAN.delta)


def test_disjoint_cohorts_cost_the_worst_of_them_and_verify_agrees() -> None:
    bodies = [body for name in ("early", "late") for body in in_cohort(name)]
    statement = statement_of(state_of(*bodies, corpus=COHORTS), charge_ids=[body["charge_id"] for _, body in bodies])
    verify(statement)
    joint = accounting.compose([*PLAN.events.values()] * 2)
    guarantee = statement["guarantee"]
    assert statement["release"]["cohorts"] == ["early", "late"]
    assert guarantee["lineage_epsilon"] == PLAN.epsilon < accounting.epsilon(joint, PLAN.delta)
    assert guarantee["cohort_epsilon"] == PLAN.epsilon


def test_a_replaced_unit_may_change_two_cohorts() -> None:
    apart = statement_of(in_cohorts("early"), charge_ids=["early"])["guarantee"]
    mixed = statement_of(in_cohorts("early", "late"), charge_ids=["early", "late"])["guarantee"]
    joint = accounting.compose([PLAN.dpsgd.event] * 2)
    assert mixed["replace_one_epsilon"]["lineage"] == accounting.replace_one_epsilon(joint, PLAN.delta)
    assert mixed["replace_one_epsilon"]["lineage"] > apart["replace_one_epsilon"]["lineage"]


@pytest.mark.slow
def test_with_the_unit_instruction_a_person_with_several_is_stated_and_costs_more_with_each() -> None:
    plan = of_instructions(PLAN)
    corpus = replace(CORPUS, unit=PrivacyUnit.INSTRUCTION, max_rows_per_unit=1)
    statement = statement_of(state_of(*both(plan=plan), corpus=corpus, plans=(plan,)), [plan])
    verify(statement)
    rows = statement["guarantee"]["epsilon_of_a_person"]
    assert list(rows) == ["1", "2", "4", "8"]
    assert rows["1"] == statement["guarantee"]["lineage_epsilon"]
    assert 2 * rows["1"] < rows["2"] < rows["4"] < rows["8"] < math.inf


@pytest.mark.slow
def test_a_person_with_two_instructions_may_be_in_two_cohorts() -> None:
    plan = of_instructions(PLAN)
    corpus = replace(COHORTS, unit=PrivacyUnit.INSTRUCTION, max_rows_per_unit=1)
    bodies = [("charged", charged(GENERATOR, charge_id=name, cohort=name, plan=plan)) for name in corpus.cohorts]
    state = state_of(*bodies, corpus=corpus, plans=(plan,))
    rows = statement_of(state, [plan], charge_ids=corpus.cohorts)["guarantee"]["epsilon_of_a_person"]
    joint = accounting.compose([plan.dpsgd.event] * 2)
    assert rows["1"] == accounting.epsilon(plan.dpsgd.event, plan.delta)
    assert rows["2"] == accounting.group_epsilon(joint, plan.delta, 2)


def test_with_the_unit_user_no_row_for_several_is_computed() -> None:
    assert statement_of(PLANNED)["guarantee"]["epsilon_of_a_person"] is None


def test_a_statement_says_what_became_of_rows_without_a_user() -> None:
    dropping = replace(CORPUS, without_user=WithoutUser.DROP)
    kept, dropped = (statement_of(state_of(*both(), corpus=corpus), corpus=corpus) for corpus in (CORPUS, dropping))
    assert kept["terms"]["unit_in_words"] == "user, or one row that names no user"
    assert dropped["terms"]["unit_in_words"] == "user"
    for statement, said in (
        (kept, "own_unit: each is a unit of its own"),
        (dropped, "drop: left out, whatever they hold"),
    ):
        verify(statement)
        assert f"| rows that name no user | {said} |" in to_markdown(statement)


def test_a_statement_that_claims_users_where_rows_without_one_were_kept_is_refused() -> None:
    forged = statement_of(PLANNED)
    forged["terms"]["unit_in_words"] = "user"
    with pytest.raises(StatementError, match="unit_in_words"):
        verify(sealed(forged))


def test_two_ledgers_with_charges_in_another_order_give_the_same_figures() -> None:
    turned = state_of(*reversed(both()))
    assert statement_of(PLANNED)["guarantee"] == statement_of(turned)["guarantee"]


def test_a_statement_holds_every_part_that_a_reader_needs() -> None:
    statement = statement_of(PLANNED)
    assert {"setting", "terms", "budget", "charges", "plans", "evidence", "accountant", "sampler"} <= set(statement)
    assert {"randomness", "ledger", "code", "configuration", "files", "digest", "source"} <= set(statement)
    assert statement["not_covered"] == list(NOT_COVERED)
    assert statement["ledger"]["head"] == PLANNED.anchor.head


WORDING = "364b6c5f12f31300"


def test_what_a_statement_and_its_pages_say_changes_with_its_format_only() -> None:
    """Whoever changes a word gets another digest here. If a version with this format was released, FORMAT counts up
    too, so that statements made before are told apart and not said to be edited.
    """
    statement = statement_of(PLANNED)
    statement["accountant"]["library"], statement["ledger"]["head"] = "dp-accounting 1", "0" * 64
    statement["evidence"], statement["configuration"] = {}, {"profile_digest": "a", "sha256": "b"}
    statement["guarantee"] = json.loads(json.dumps(statement["guarantee"]), parse_float=lambda _: 0.5)
    said = canonical(sealed(statement)) + to_markdown(sealed(statement)) + to_html(sealed(statement))
    assert (FORMAT, hashlib.sha256(said.encode()).hexdigest()[:16]) == (3, WORDING)


@pytest.mark.parametrize("unit", PrivacyUnit)
def test_a_statement_verifies_with_as_many_planned_levels_as_a_profile_may_name(unit: PrivacyUnit) -> None:
    rows = 1 if unit is PrivacyUnit.INSTRUCTION else PLAN.max_rows_per_unit
    levels = [f"eps-{tenths / 10}" for tenths in range(10, 10 + MOST_LEVELS)]
    plans = [replace(small_plan(level), unit=unit, max_rows_per_unit=rows) for level in levels]
    corpus = replace(CORPUS, unit=unit, max_rows_per_unit=rows, budget_epsilon=100.0)
    state = state_of(*both(plan=plans[0]), corpus=corpus, plans=plans)
    verify(statement_of(state, plans, corpus=corpus))
