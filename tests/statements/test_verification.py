"""Whatever is edited in a statement is found: by its digest, and what carries a figure by arithmetic as well."""

import copy
import fnmatch
import re
from collections.abc import Callable
from typing import Any

import pytest

from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.statements.reading import StatementError
from dp_assets.statements.statement import sealed
from dp_assets.statements.verification import Finding, Outcome, verification_of, verify
from tests.statements.statements import (
    PLAN,
    JsonPath,
    adaptive,
    both,
    charged,
    leaves,
    planned,
    ran_as_planned,
    state_of,
    statement_of,
    without_noise,
)

# What a forger who computes the digest anew can change unseen: it describes, and no figure follows from it. The code
# and the files are compared with what is there by the command, the ledger's head by whoever holds the ledger.
ON_TRUST = (
    "accountant.library",
    "base_model",
    "budget.raised.*.at",
    "code.*",
    "configuration.profile_digest",
    "ledger.head",
    "files.*",
    "evidence.*.rounding_slack",
    "source.*",
)


# Beyond ON_TRUST: the gate plays no part where all was fixed beforehand, and nothing does where nothing is claimed.
STATEMENTS: dict[str, tuple[Callable[[], dict[str, Any]], tuple[str, ...]]] = {
    "planned": (planned, ("budget.epsilon", "terms.gate_order")),
    "adaptive": (adaptive, ()),
    "without noise": (
        without_noise,
        ("budget.epsilon", "terms.gate_order", "charges.*.booked_beforehand", "cohorts.*"),
    ),
}
CASES = pytest.mark.parametrize("name", list(STATEMENTS))


def edited_value(value: Any) -> Any:
    """Another value of the same kind; a text with a number gets another number."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 1.5 if value else 1.0
        case str():
            changed = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), value, count=1)
            return changed if changed != value else f"{value[:-1]}{'b' if value.endswith('a') else 'a'}"
        case None:
            return 1.0
    return [*value, "more"] if isinstance(value, list) else {**value, "more": 1}


def edited(statement: dict[str, Any], path: JsonPath) -> dict[str, Any]:
    changed = copy.deepcopy(statement)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = edited_value(place[path[-1]])
    return changed


def name_of(path: JsonPath) -> str:
    return ".".join(map(str, path))


def is_accepted(statement: dict[str, Any]) -> bool:
    try:
        verify(statement)
    except StatementError:
        return False
    return True


@CASES
def test_every_edited_leaf_is_found(name: str) -> None:
    statement = STATEMENTS[name][0]()
    verify(statement)
    unseen = [name_of(path) for path, _ in leaves(statement) if is_accepted(edited(statement, path))]
    assert unseen == []


@CASES
def test_an_edit_with_a_new_digest_is_found_unless_no_figure_follows_from_it(name: str) -> None:
    make, also_on_trust = STATEMENTS[name]
    statement = make()
    verify(statement)
    paths = [path for path, _ in leaves(statement) if path != ("digest",)]
    unseen = {name_of(path) for path in paths if is_accepted(sealed(edited(statement, path)))}
    allowed = (*ON_TRUST, *also_on_trust)
    matched = {name_of(path) for path in paths if any(fnmatch.fnmatch(name_of(path), pattern) for pattern in allowed)}
    assert unseen <= matched
    assert {"base_model", "code.sha256", "ledger.head"} <= unseen


@CASES
def test_a_part_that_is_missing_or_added_is_found_whatever_the_digest(name: str) -> None:
    statement = STATEMENTS[name][0]()
    for part in statement:
        lacking = {key: value for key, value in statement.items() if key != part}
        assert not is_accepted(lacking)
        assert part == "digest" or not is_accepted(sealed(lacking))
    assert not is_accepted(sealed(statement | {"epsilon": 0.1}))


@pytest.mark.parametrize("cohort", ["booked", "later"])
def test_an_event_cannot_be_left_out_of_what_a_cohort_answers_for(cohort: str) -> None:
    statement = adaptive()
    for index in range(len(statement["cohorts"]["all"][cohort])):
        shortened = copy.deepcopy(statement)
        del shortened["cohorts"]["all"][cohort][index]
        assert not is_accepted(sealed(shortened))


def test_two_equal_charges_cannot_be_stated_as_one() -> None:
    statement = statement_of(state_of(*both(), *twice()), charge_ids=["dp_generator", "first", "second"])
    verify(statement)
    once = copy.deepcopy(statement)
    once["charges"] = [charge for charge in once["charges"] if charge["charge_id"] != "second"]
    once["ledger"]["charge_ids"].remove("second")
    del once["evidence"]["second"]
    assert not is_accepted(sealed(once))


def twice() -> list[tuple[str, dict[str, Any]]]:
    raised = ("raised", {"corpus_id": "corpus", "budget_epsilon": 15.0, "reason": "-"})
    return [raised, *(("charged", charged(HISTOGRAM, charge_id=one, booked=False)) for one in ("first", "second"))]


def found_in(statement: Any) -> dict[str, Finding]:
    return {one.check: one for one in verification_of(statement).findings}


def test_every_difference_is_named() -> None:
    statement = planned()
    statement["guarantee"]["lineage_epsilon"] = 0.5
    found = found_in(statement)
    assert found["figures"].outcome is Outcome.DIFFERS
    assert "guarantee.lineage_epsilon" in found["figures"].detail
    assert found["document"].outcome is Outcome.AGREES


def test_figures_are_not_recomputed_from_facts_that_contradict_each_other() -> None:
    statement = planned()
    statement["plans"]["eps-8"]["dpsgd"]["noise_multiplier"] = 10.0**9
    found = found_in(sealed(statement))
    assert found["document"].outcome is Outcome.DIFFERS
    assert "plans.eps-8" in found["document"].detail or "charges" in found["document"].detail
    assert found["figures"].outcome is Outcome.NOT_CHECKED


@pytest.mark.parametrize(
    "statement", [{}, {"format": 2}, {"format": 3}, {"format": 3.0}, {"format": 3, "terms": 3}, [], None, 3]
)
def test_what_is_no_statement_is_refused(statement: Any) -> None:
    with pytest.raises(StatementError):
        verify(statement)


def test_a_statement_of_a_run_that_differed_from_its_plan_is_refused() -> None:
    statement = planned()
    statement["evidence"]["dp_generator"]["steps"] = PLAN.dpsgd.steps + 1
    with pytest.raises(StatementError, match="what ran is not what was planned"):
        verify(sealed(statement))


def test_evidence_that_lacks_what_is_checked_today_is_refused_by_its_name() -> None:
    statement = planned()
    del statement["evidence"]["dp_histogram"]["bins"]
    with pytest.raises(StatementError, match="bins: the evidence does not say it"):
        verify(sealed(statement))


def test_a_statement_is_the_same_however_often_its_run_was_resumed() -> None:
    resumed = ("continued", {"charge_id": "dp_generator", "checkpoint": "digest of a checkpoint"})
    of_a_resumed_run, of_another = (statement_of(state_of(*both(), *more)) for more in ([resumed], []))
    for statement in (of_a_resumed_run, of_another):
        statement["ledger"].pop("head")  # a hash over a secret nonce
        statement.pop("digest")
    assert of_a_resumed_run == of_another


@pytest.mark.parametrize("observed", [0, 3, "otherwise", None])
def test_more_resumes_than_the_plan_has_spare_steps_are_refused(observed: object) -> None:
    statement = statement_of(state_of(*both()))
    statement["evidence"]["dp_generator"]["continuations"] = observed
    assert not is_accepted(sealed(statement))


def test_the_number_of_resumes_that_an_older_release_carries_is_not_published() -> None:
    evidence = {name: ran_as_planned(PLAN, name) for name in (GENERATOR, HISTOGRAM)}
    evidence[GENERATOR]["continuations"] = 1
    statement = statement_of(state_of(*both()), evidence=evidence)
    assert statement["evidence"][GENERATOR]["continuations"] == "within the spare steps"
    assert is_accepted(statement)
