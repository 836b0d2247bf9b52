"""Statements and metadata follow from the charges behind a release, and from nothing else."""

import copy
import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from plans import small_plan, small_terms

from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.labels import Label
from dp_assets.privacy.ledger import Anchor, ChargeRecord, Entry, LedgerState, booking_bodies
from dp_assets.privacy.metadata import COHORT_EPSILON, LINEAGE_EPSILON, ForeignLineage, artifact_metadata
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM, PrivacyPlan
from dp_assets.privacy.registration import Registration
from dp_assets.privacy.statement import StatementError, make_statement, to_markdown, verify

PLAN = small_plan()
CORPUS = Registration(**vars(small_terms()), corpus_id="corpus", source_key="source", gate_order=4)


def charged(mechanism: str, *, plan: PrivacyPlan = PLAN, booked: bool = True, **changed: Any) -> dict[str, Any]:
    record = ChargeRecord(
        charge_id=mechanism,
        corpus_id="corpus",
        cohort="all",
        level=plan.level,
        mechanism=mechanism,
        event=event_to_json(plan.events[mechanism]),
        snapshot="1",
        reuse_key=mechanism,
        plan_digest=plan.digest,
        booking_id=f"corpus/all/{plan.level}/{mechanism}" if booked else None,
    )
    return asdict(replace(record, **changed))


def state_of(*bodies: tuple[str, dict[str, Any]]) -> LedgerState:
    """A ledger with the corpus, its bookings, and these entries."""
    opening = [("registered", CORPUS.to_json())]
    opening += [("planned", booking) for booking in booking_bodies("corpus", ["all"], [PLAN])]
    entries: list[Entry] = []
    for kind, body in (*opening, *bodies):
        entries.append(Entry.after(Anchor.of(entries), kind, "now", json.loads(json.dumps(body))))
    return LedgerState.of(entries)


def statement_of(state: LedgerState, plan: PrivacyPlan = PLAN) -> dict[str, Any]:
    return make_statement(
        state,
        CORPUS,
        plan,
        cohort="all",
        charge_ids=[GENERATOR, HISTOGRAM],
        base_model="a model",
        evidence={"continuations": 0},
        source_kind="file",
    )


PLANNED = state_of(("charged", charged(GENERATOR)), ("charged", charged(HISTOGRAM)))


def test_a_statement_verifies_after_a_round_trip_through_json() -> None:
    verify(json.loads(json.dumps(statement_of(PLANNED), allow_nan=False)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("guarantee", "cohort_epsilon"), 0.0),
        (("guarantee", "lineage_epsilon"), 1.0),
        (("trade_off", "0.01"), 0.01),
        (("events", "cohort"), []),
        (("plan", "dpsgd", "noise_multiplier"), 50.0),
        (("plan", "votes", "noise_stddev"), 40.0),
        (("delta",), 1e-3),
    ],
)
def test_an_edited_number_is_found(path: tuple[str, ...], value: object) -> None:
    edited = copy.deepcopy(statement_of(PLANNED))
    *parents, last = path
    place = edited
    for name in parents:
        place = place[name]
    place[last] = value
    with pytest.raises(StatementError):
        verify(edited)


def test_a_release_is_not_stated_with_another_plan_than_it_was_made_with() -> None:
    other = replace(PLAN, dpsgd=replace(PLAN.dpsgd, noise_multiplier=50.0))
    with pytest.raises(StatementError, match="another plan"):
        statement_of(PLANNED, other)


def test_the_headline_is_the_budget_when_a_run_was_chosen_after_results() -> None:
    later = charged(HISTOGRAM, charge_id="later", booked=False)
    chosen_later = state_of(("charged", charged(GENERATOR)), ("charged", charged(HISTOGRAM)), ("charged", later))
    statement = statement_of(chosen_later)
    verify(statement)
    assert not statement["guarantee"]["fixed_beforehand"]
    assert "**epsilon 8 at delta 1e-05**, the budget" in to_markdown(statement)
    assert "RDP at order 4" in statement["accountant"]


def test_a_statement_without_noise_claims_nothing() -> None:
    plan = small_plan("no-dp")
    unprotected = state_of(
        *(("charged", charged(mechanism, plan=plan, booked=False)) for mechanism in (GENERATOR, HISTOGRAM))
    )
    statement = statement_of(unprotected, plan)
    verify(statement)
    assert statement["guarantee"]["cohort_epsilon"] is statement["guarantee"]["lineage_epsilon"] is None
    assert "No guarantee" in to_markdown(statement)
    figures = artifact_metadata(
        unprotected, CORPUS, label=Label.RELEASED, cohort="all", level="no-dp", charge_ids=[GENERATOR]
    )
    assert figures[COHORT_EPSILON] == figures[LINEAGE_EPSILON] == float("inf")


@pytest.mark.parametrize(
    "changed", [{"corpus_id": "another"}, {"cohort": "another"}, {"level": "eps-1"}, {"voided": True}]
)
def test_an_artifact_that_descends_from_elsewhere_gets_no_figures(changed: dict[str, Any]) -> None:
    state = state_of(("charged", charged(GENERATOR, **changed)))
    with pytest.raises(ForeignLineage):
        artifact_metadata(state, CORPUS, label=Label.RELEASED, cohort="all", level="eps-8", charge_ids=[GENERATOR])


def test_an_artifact_with_an_unknown_charge_gets_no_figures() -> None:
    with pytest.raises(ForeignLineage):
        artifact_metadata(PLANNED, CORPUS, label=Label.RELEASED, cohort="all", level="eps-8", charge_ids=["unknown"])
