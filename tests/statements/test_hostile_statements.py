"""A statement that a forger or a broken disk changed is refused, or shows every figure as it was."""

import os
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from dp_assets.privacy.plan import GENERATOR, HISTOGRAM, PrivacyPlan
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.statements.declared import model_name
from dp_assets.statements.reading import StatementError, strict_json
from dp_assets.statements.statement import restated
from dp_assets.statements.statement_pages import to_html, to_markdown
from dp_assets.statements.verification import (
    MOST_BYTES_OF_A_STATEMENT,
    Outcome,
    verification_of,
    verification_of_file,
)
from tests.statements.edits import edited, edited_text, spelled
from tests.statements.forgeries import Statement, accepted, document, refusal, refusal_of, resealed
from tests.statements.statements import (
    CORPUS,
    PLAN,
    adaptive,
    both,
    charged,
    planned,
    state_of,
    statement_of,
    without_noise,
)

SEED = int(os.environ.get("DP_INSTRUCTIONS_FUZZ_SEED", "20240716"))
DECLARED = ("accountant", "base_model", "budget", "code", "configuration", "evidence", "files", "ledger", "source")
"""What a forger who computes the digest anew can change: no figure follows from it where the statement agrees."""
CASES = pytest.mark.parametrize("make", [planned, adaptive, without_noise], ids=lambda make: str(make.__name__))


def figures(statement: Statement, true: Statement) -> str:
    """Everything that the pages say, but for names, hashes and terms that are declared."""
    terms = statement["terms"] | {"gate_order": true["terms"]["gate_order"]}
    return to_markdown({**statement, **{name: true[name] for name in (*DECLARED, "digest")}, "terms": terms})


@pytest.mark.parametrize(
    "name", ["", "epsilon", "cohort_epsilon.", "true_positive_rate.cohort.0.01", "lineage_epsilon\u200b"]
)
def test_a_figure_under_another_name_is_refused(name: str) -> None:
    assert "not part of a statement" in refusal_of(lambda statement: statement["guarantee"].update({name: 0.05}))


def test_a_mapping_whose_dotted_names_collide_with_the_figures_is_refused() -> None:
    """A true figure under `""` must not stand in for the false one beside it."""

    def hide(statement: Statement) -> None:
        statement["guarantee"] = {"": statement["guarantee"], "headline_epsilon": 0.05, "lineage_epsilon": 0.05}

    assert "guarantee.headline_epsilon" in refusal_of(hide)


@pytest.mark.parametrize("size", [1e-4, -1e-4, 1.4e-4, -1.4e-4, 1e-9])
def test_a_rate_that_is_a_little_off_is_refused(size: float) -> None:
    def move(statement: Statement) -> None:
        statement["guarantee"]["true_positive_rate"]["cohort"]["0.01"] += size

    assert "true_positive_rate.cohort.0.01" in refusal_of(move)


def with_plan(plan: PrivacyPlan) -> Statement:
    """A statement of both mechanisms of a plan, whatever it claims."""
    corpus = replace(CORPUS, delta=plan.delta, is_public=True)
    return statement_of(state_of(*both(plan=plan), corpus=corpus, plans=(plan,)), [plan])


def test_a_levels_name_that_its_plan_does_not_keep_is_refused() -> None:
    forged = with_plan(replace(PLAN, level="eps-1", target_epsilon=1.0))
    assert "does not keep the epsilon" in refusal(spelled(document(forged)))


@pytest.mark.parametrize("level", ["eps-1_0", "eps-\uff18", "eps- 8", "EPS-8"])
def test_a_levels_name_in_other_digits_is_refused(level: str) -> None:
    text = spelled(document(planned())).decode().replace("eps-8", level)
    changed = resealed(strict_json(text.encode()))
    assert refusal(spelled(changed))


def test_a_delta_that_does_not_fit_the_number_of_units_is_refused() -> None:
    assert "terms.delta must be at most" in refusal(spelled(document(with_plan(replace(PLAN, delta=0.5)))))


@pytest.mark.parametrize(
    ("group", "changed"),
    [
        ("corpus", {"delta": 1e-6}),
        ("corpus", {"unit": "instruction"}),
        ("corpus", {"max_rows_per_unit": 1}),
        ("generator", {"steps": 2}),
        ("generator", {"sampling_probability": 0.01}),
        ("generator", {"expected_batch_size": 32}),
        ("votes", {"noise_stddev": 40.0}),
        ("votes", {"num_bins": 9}),
        ("corpus", {"redact": ["email"]}),
        ("corpus", {"source": {"kind": "chitchat"}}),
    ],
)
def test_a_profile_that_contradicts_the_plans_is_refused(group: str, changed: Statement) -> None:
    refused = refusal_of(lambda statement: statement["configuration"]["profile"][group].update(changed))
    assert refused.startswith("configuration: ")


@pytest.mark.parametrize("item", ["epsilon at delta 1e-05", "epsilon", "guarantee"])
def test_evidence_that_no_check_covers_is_refused(item: str) -> None:
    assert "evidence" in refusal_of(lambda statement: statement["evidence"]["dp_generator"].update({item: 0.05}))


def test_a_run_that_trained_no_parameter_is_refused() -> None:
    none = {"num_parameters": 0, "noise_coordinates": 0}
    refused = refusal_of(lambda statement: statement["evidence"]["dp_generator"].update(none))
    assert "num_parameters: it says nothing that was trained" in refused


GAUSSIAN = {"type": "gaussian", "noise_multiplier": 1.0}
VOTES = {"type": "discrete_gaussian", "noise_stddev": 4.0, "sensitivity": 1}


@pytest.mark.parametrize(
    "sampled",
    [VOTES, {"type": "non_private"}, {"type": "poisson_sampled", "sampling_probability": 0.1} | {"event": GAUSSIAN}],
)
def test_an_event_that_no_account_knows_is_refused(sampled: Statement) -> None:
    event = {"type": "poisson_sampled", "sampling_probability": 0.1, "event": sampled}
    changed = planned()
    changed["cohorts"]["all"]["later"].append(event)
    with pytest.raises(StatementError, match="no account"):
        verification_of_file(spelled(resealed(document(changed))))


def test_a_statement_of_cohorts_without_a_charge_is_refused() -> None:
    def change(statement: Statement) -> None:
        statement["cohorts"] = {f"c{number}": statement["cohorts"]["all"] for number in range(1_000)}

    assert "cohorts" in refusal_of(change)


def votes_of(number: int) -> Statement:
    """Votes with a noise of their own."""
    return {"type": "discrete_gaussian", "sensitivity": 1, "noise_stddev": 4.0 + number}


def booked(statement: Statement, *events: Statement) -> None:
    statement["cohorts"]["all"]["booked"] += events


@pytest.mark.parametrize(
    "event",
    [
        {"type": "composed", "events": [votes_of(number) for number in range(6_000)]},
        {"type": "composed", "events": [votes_of(0)] * 6_000},
        {"type": "self_composed", "count": 2, "event": {"type": "composed", "events": [votes_of(0)] * 6_000}},
    ],
    ids=["of different parts", "of equal parts", "repeated"],
)
def test_the_parts_of_a_composed_event_count_towards_what_is_accounted_for_in_seconds(event: Statement) -> None:
    assert "take too long" in refusal_of(lambda statement: booked(statement, event))


@pytest.mark.parametrize(
    "events",
    [[votes_of(number) for number in range(2_000)], [votes_of(99_000 + number) for number in range(20)]],
    ids=["many", "of much noise"],
)
def test_more_different_events_than_can_be_accounted_for_in_seconds_are_refused(events: list[Statement]) -> None:
    assert "take too long" in refusal_of(lambda statement: booked(statement, *events))


def test_more_events_than_renyi_dp_accounts_for_in_seconds_are_refused() -> None:
    def change(statement: Statement) -> None:
        statement["cohorts"]["all"]["later"] += [votes_of(number) for number in range(6_000)]

    assert "take too long" in refusal_of(change)


def many_cohorts(number: int) -> Statement:
    """A statement of so many cohorts, each with both mechanisms."""
    one = planned()
    names = [f"c{cohort}" for cohort in range(number)]
    charges = [
        charge | {"cohort": name, "charge_id": f"{charge['mechanism']}-{name}"}
        for name in names
        for charge in one["charges"]
    ]
    return one | {"cohorts": {name: {"booked": [], "later": [], "closed": False} for name in names}, "charges": charges}


def test_more_cohorts_than_a_statement_has_are_refused_before_anything_is_compared() -> None:
    verification = verification_of(many_cohorts(2_000))
    assert [one.check for one in verification.findings if one.outcome is Outcome.DIFFERS] == ["cost"]
    assert verification.rebuilt is None


def test_what_is_found_is_told_in_few_words() -> None:
    one = planned()
    told = "; ".join(verification_of(one | {"guarantee": {}, "x" * 100_000: 0.05}).wrong)
    assert 0 < len(told) < 5_000


def test_a_document_larger_than_every_statement_is_refused_unread() -> None:
    content = spelled(document(planned()))
    with pytest.raises(StatementError, match="more than 2097152 bytes"):
        verification_of_file(content + b" " * MOST_BYTES_OF_A_STATEMENT)


@pytest.mark.parametrize("name", ["gpt2 at epsilon 0.05", "a\u00a0model", "org/tiny "])
def test_a_base_model_that_is_a_sentence_is_refused(name: str) -> None:
    assert "base_model" in refusal_of(lambda statement: statement.update(base_model=name))
    assert model_name(name) == "".join(letter if letter.isascii() and letter != " " else "_" for letter in name)


@pytest.mark.parametrize("cohorts", [9, 40])
def test_more_choices_of_cohorts_than_can_be_composed_in_seconds_are_refused(cohorts: int) -> None:
    """The instructions of one person may lie in any eight of them."""
    plan = replace(PLAN, unit=PrivacyUnit.INSTRUCTION, max_rows_per_unit=1)
    corpus = replace(CORPUS, unit=PrivacyUnit.INSTRUCTION, max_rows_per_unit=1)
    one = statement_of(state_of(*both(plan=plan), corpus=corpus, plans=(plan,)), (plan,), corpus=corpus)
    names = [f"c{number}" for number in range(cohorts)]
    charges = [charge | {"cohort": name} for name in names for charge in one["charges"]]
    for number, charge in enumerate(charges):
        charge["charge_id"] = f"charge-{number}"
    evidence = {charge["charge_id"]: one["evidence"][charge["mechanism"]] for charge in charges}
    facts = {"charges": charges, "evidence": evidence, "cohorts": dict.fromkeys(names, one["cohorts"]["all"])}
    assert "take too long" in "; ".join(verification_of(one | facts).wrong)


def test_a_ledger_of_a_few_hundred_charges_is_no_reason_to_refuse() -> None:
    bodies = [("charged", charged(HISTOGRAM, charge_id=f"later-{number}", booked=False)) for number in range(200)]
    others = [replace(PLAN, votes=replace(PLAN.votes, noise_stddev=40.0 + number)) for number in range(200)]
    bodies += [
        ("charged", charged(HISTOGRAM, plan=plan, charge_id=f"other-{number}", booked=False))
        for number, plan in enumerate(others)
    ]
    statement = statement_of(state_of(*both(), *bodies))
    assert accepted(spelled(document(statement))) == statement


@pytest.mark.parametrize("mechanism", [GENERATOR, HISTOGRAM])
def test_a_statement_that_leaves_out_a_mechanism_of_every_release_is_refused(mechanism: str) -> None:
    """Whatever a cohort releases descends from both, so a shorter list of charges is a smaller epsilon."""
    true = planned()
    charges = [charge for charge in true["charges"] if charge["mechanism"] != mechanism]
    evidence = {charge["charge_id"]: true["evidence"][charge["charge_id"]] for charge in charges}
    forged = restated(true, charges=charges, evidence=evidence)
    assert forged["guarantee"]["lineage_epsilon"] < true["guarantee"]["lineage_epsilon"]
    assert f"no charge of {mechanism}" in refusal(spelled(document(forged)))


def test_an_event_with_more_to_it_than_its_kind_has_is_refused() -> None:
    refused = refusal_of(lambda statement: statement["cohorts"]["all"]["booked"][0].update(note="epsilon 0.05"))
    assert refused


def test_a_statement_of_another_format_is_told_which_version_reads_it() -> None:
    assert "format 2, and this version verifies format 3" in refusal_of(lambda statement: statement.update(format=2))


@pytest.mark.slow
@CASES
def test_a_single_edit_is_refused_or_leaves_every_page_as_it_was(make: Callable[[], Statement]) -> None:
    chance, true = random.Random(SEED), make()
    content, pages = spelled(document(true)), (to_markdown(true), to_html(true))
    assert accepted(content) == true
    for number in range(1_700):
        changed = edited_text(content, chance) if number % 2 else spelled(edited(document(true), chance))
        shown = accepted(changed)
        assert shown is None or (to_markdown(shown), to_html(shown)) == pages, (SEED, number)


@pytest.mark.slow
@CASES
def test_a_single_edit_under_a_new_digest_is_refused_or_leaves_every_figure_as_it_was(
    make: Callable[[], Statement],
) -> None:
    chance, true = random.Random(SEED), make()
    page = to_markdown(true)
    for number in range(1_700):
        shown = accepted(spelled(resealed(edited(document(true), chance))))
        assert shown is None or figures(shown, true) == page, (SEED, number)
