"""Several guess rules: what they cost, and that unpaid choice would be wrong."""

import functools

import numpy as np
import pytest

from dp_assets.audit.canary_scores import CanaryScores, GuessRule
from dp_assets.audit.one_run import GuessCounts, epsilon_lower_bound
from dp_assets.audit.thresholds import bonferroni, bonferroni_p_value, split
from dp_assets.audit.trade_off import curve_of, curve_p_value
from dp_assets.privacy.events import dpsgd_event
from tests.audit.simulation import MOST_ERRORS, SIGNIFICANCE, gaussian_epsilon, gaussian_scores

RULES = [GuessRule(count, count) for count in (10, 30, 100)]


@functools.cache
def at_delta(counts: GuessCounts, significance: float, delta: float) -> float:
    return epsilon_lower_bound(counts, significance=significance, delta=delta)


pure = functools.partial(at_delta, delta=0.0)


def canaries(separation: float, count: int, seed: int) -> CanaryScores:
    rng = np.random.default_rng(seed)
    included = rng.random(count) < 0.5
    return CanaryScores(scores=included * separation + rng.standard_normal(count), included=included)


def test_the_best_rule_is_found_and_pays_for_all() -> None:
    scores = canaries(3.0, 400, 481)
    result = bonferroni(scores, RULES, pure, significance=SIGNIFICANCE)
    each = [pure(scores.guess(rule), SIGNIFICANCE / len(RULES)) for rule in RULES]
    assert result.lower_bound == max(each)
    assert result.rule == RULES[each.index(max(each))]
    assert result.counts == scores.guess(result.rule)
    assert 0 < result.lower_bound < max(pure(scores.guess(rule), SIGNIFICANCE) for rule in RULES)


def test_a_single_rule_costs_nothing_more() -> None:
    scores, rule = canaries(3.0, 400, 482), GuessRule(50, 50)
    result = bonferroni(scores, [rule], pure, significance=SIGNIFICANCE)
    assert result.lower_bound == pure(scores.guess(rule), SIGNIFICANCE)


def test_the_split_takes_the_rule_of_one_part_and_the_bound_of_the_other() -> None:
    scores = canaries(3.0, 800, 483)
    chooses = np.arange(800) % 2 == 0
    result = split(scores, RULES, pure, significance=SIGNIFICANCE, chooses=chooses)
    first, second = scores.where(chooses), scores.where(~chooses)
    assert result.rule == max(RULES, key=lambda rule: pure(first.guess(rule), SIGNIFICANCE))
    assert result.counts == second.guess(result.rule)
    assert result.counts.canaries == 400
    assert result.lower_bound == pure(result.counts, SIGNIFICANCE)


def test_p_values_are_paid_for_and_at_most_one() -> None:
    scores, curve = (
        canaries(3.0, 400, 484),
        curve_of(dpsgd_event(sampling_probability=0.1, noise_multiplier=2.0, steps=9)),
    )
    each = functools.partial(curve_p_value, curve=curve)
    smallest = min(each(scores.guess(rule)) for rule in RULES)
    assert bonferroni_p_value(scores, RULES, each) == pytest.approx(len(RULES) * smallest)
    assert bonferroni_p_value(canaries(0.0, 400, 485), RULES, each) == 1.0


def runs_of_coins_alone() -> list[CanaryScores]:
    scores, included = gaussian_scores(np.random.default_rng(486), separation=0.0, canaries=200)
    return [CanaryScores(scores=s, included=i) for s, i in zip(scores, included, strict=True)]


def test_on_coins_alone_paid_choices_err_in_at_most_their_share_of_runs_and_an_unpaid_choice_in_more() -> None:
    chooses = np.arange(200) % 2 == 0
    small = [rule for rule in RULES if rule.guesses <= 60]
    runs = runs_of_coins_alone()
    paid = sum(bonferroni(run, RULES, pure, significance=SIGNIFICANCE).lower_bound > 0 for run in runs)
    halved = [split(run, small, pure, significance=SIGNIFICANCE, chooses=chooses).lower_bound for run in runs]
    unpaid = sum(max(pure(run.guess(rule), SIGNIFICANCE) for rule in RULES) > 0 for run in runs)
    assert paid <= MOST_ERRORS
    assert sum(bound > 0 for bound in halved) <= MOST_ERRORS
    assert unpaid > MOST_ERRORS


def test_on_a_gaussian_the_best_of_several_rules_errs_in_at_most_its_share_of_runs() -> None:
    delta = 1e-3
    truth, bound = gaussian_epsilon(1.0, delta), functools.partial(at_delta, delta=delta)
    scores, included = gaussian_scores(np.random.default_rng(487), separation=1.0, canaries=200)
    wrong = 0
    for run in zip(scores, included, strict=True):
        result = bonferroni(CanaryScores(*run), RULES, bound, significance=SIGNIFICANCE)
        wrong += result.lower_bound > truth
    assert wrong <= MOST_ERRORS


def test_no_rule_is_refused() -> None:
    scores = canaries(1.0, 10, 488)
    with pytest.raises(ValueError, match="at least one rule"):
        bonferroni(scores, [], pure, significance=SIGNIFICANCE)
    with pytest.raises(ValueError, match="at least one rule"):
        bonferroni_p_value(scores, [], lambda counts: 1.0)
    with pytest.raises(ValueError, match="at least one rule"):
        split(scores, [], pure, significance=SIGNIFICANCE, chooses=np.arange(10) < 5)


def test_a_rule_for_more_canaries_than_a_part_has_is_refused() -> None:
    with pytest.raises(ValueError, match="must not guess more"):
        split(canaries(1.0, 10, 489), [GuessRule(3, 3)], pure, significance=SIGNIFICANCE, chooses=np.arange(10) < 5)
