"""Ranking figures: by hand, against scikit-learn and jax-privacy, and how often their intervals miss the truth."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from dp_assets.arrays import Floats
from dp_assets.audit.canary_scores import CanaryScores
from dp_assets.audit.ranking import LOW_FALSE_POSITIVE_RATES, auc, true_positive_rate
from tests.audit.oracle import jax_auditing
from tests.audit.simulation import MOST_ERRORS, RUNS, SIGNIFICANCE


def scores_of(included: Sequence[float] | Floats, excluded: Sequence[float] | Floats) -> CanaryScores:
    scores = np.concatenate([np.asarray(included, dtype=float), np.asarray(excluded, dtype=float)])
    return CanaryScores(scores=scores, included=np.arange(scores.size) < len(included))


def gaussian(rng: np.random.Generator, separation: float, included: int, excluded: int) -> CanaryScores:
    return scores_of(separation + rng.standard_normal(included), rng.standard_normal(excluded))


def rate(scores: CanaryScores, false_positive_rate: float) -> float:
    return true_positive_rate(scores, false_positive_rate=false_positive_rate, significance=SIGNIFICANCE).value


# AUC


@pytest.mark.parametrize(
    ("included", "excluded", "expected"),
    [
        ([1, 2], [0, 0], 1.0),
        ([0, 0], [1, 2], 0.0),
        ([1, 1], [1, 1], 0.5),
        ([3, 1], [2, 0], 0.75),
        ([2, 1], [1, 0], 0.875),
    ],
)
def test_auc_by_hand(included: list[float], excluded: list[float], expected: float) -> None:
    assert auc(scores_of(included, excluded), significance=SIGNIFICANCE).value == pytest.approx(expected)


def test_auc_is_that_of_scikit_learn_with_and_without_ties() -> None:
    rng = np.random.default_rng(681)
    for decimals in (8, 0):
        scores = gaussian(rng, 0.7, 90, 140)
        rounded = CanaryScores(scores=scores.scores.round(decimals), included=scores.included)
        expected = roc_auc_score(rounded.included, rounded.scores)
        assert auc(rounded, significance=SIGNIFICANCE).value == pytest.approx(expected)


def test_auc_is_that_of_jax_privacy_where_the_roc_curve_is_concave() -> None:
    """Elsewhere theirs is the area under the upper convex hull of the curve, which is larger."""
    auditing = jax_auditing()
    scores = scores_of([4, 4, 4, 4, 2, 2, 1], [4, 2, 2, 1, 1, 1, 1])
    theirs = auditing.CanaryScoreAuditor(scores.scores[scores.included], scores.scores[~scores.included])
    assert auc(scores, significance=SIGNIFICANCE).value == pytest.approx(float(theirs.attack_auroc()))


@pytest.mark.parametrize("separation", [0.0, 1.0, 3.0])
def test_the_interval_of_auc_misses_the_truth_in_at_most_its_share_of_runs(separation: float) -> None:
    rng, truth = np.random.default_rng(682), norm.cdf(separation / np.sqrt(2))
    estimates = [auc(gaussian(rng, separation, 60, 40), significance=SIGNIFICANCE) for _ in range(RUNS)]
    assert sum(not each.lower <= truth <= each.upper for each in estimates) <= MOST_ERRORS
    assert np.mean([each.value for each in estimates]) == pytest.approx(truth, abs=0.01)


def test_the_interval_of_a_perfect_auc_is_not_a_point() -> None:
    estimate = auc(scores_of([1.0] * 100, [0.0] * 200), significance=SIGNIFICANCE)
    assert estimate.lower == pytest.approx((SIGNIFICANCE / 2) ** (1 / 100))
    assert (estimate.value, estimate.upper) == (1.0, 1.0)


def test_the_interval_of_auc_mirrors_when_scores_are_negated() -> None:
    scores = gaussian(np.random.default_rng(683), 0.8, 50, 70)
    forward = auc(scores, significance=SIGNIFICANCE)
    backward = auc(CanaryScores(scores=-scores.scores, included=scores.included), significance=SIGNIFICANCE)
    assert backward.value == pytest.approx(1 - forward.value)
    assert (backward.lower, backward.upper) == pytest.approx((1 - forward.upper, 1 - forward.lower))


# True-positive rates


def test_rates_by_hand() -> None:
    scores = scores_of([9, 8, 7, 3], [7.5, 5, 4, 2, 1, 0, 0, 0, 0, 0])
    assert rate(scores, 0.05) == 0.5
    assert rate(scores, 0.1) == 0.75
    assert rate(scores, 0.3) == 1.0


def test_scores_that_tie_with_the_threshold_do_not_count() -> None:
    assert rate(scores_of([1, 1, 2], [1] * 10), 0.1) == pytest.approx(1 / 3)


def test_the_rates_of_interest_are_one_in_a_thousand_and_one_in_a_hundred() -> None:
    assert LOW_FALSE_POSITIVE_RATES == (0.001, 0.01)


@pytest.mark.parametrize("false_positive_rate", LOW_FALSE_POSITIVE_RATES)
@pytest.mark.parametrize(("separation", "excluded"), [(0.0, 500), (2.0, 5000)])
def test_the_interval_of_a_rate_misses_the_truth_in_at_most_its_share_of_runs(
    false_positive_rate: float, separation: float, excluded: int
) -> None:
    rng = np.random.default_rng(684)
    truth = norm.sf(norm.isf(false_positive_rate) - separation)
    missed = 0
    for _ in range(RUNS):
        estimate = true_positive_rate(
            gaussian(rng, separation, 200, excluded),
            false_positive_rate=false_positive_rate,
            significance=SIGNIFICANCE,
        )
        assert estimate.lower <= estimate.value <= estimate.upper
        missed += not estimate.lower <= truth <= estimate.upper
    assert missed <= MOST_ERRORS


def test_too_few_excluded_canaries_leave_the_lower_end_at_zero() -> None:
    for excluded, is_known in ((430, False), (440, True)):
        scores = scores_of([1.0] * 200, [0.0] * excluded)
        estimate = true_positive_rate(scores, false_positive_rate=0.01, significance=SIGNIFICANCE)
        assert (estimate.lower > 0) == is_known
        assert estimate.value == 1.0


def test_one_kind_of_canary_alone_is_refused() -> None:
    for scores in (scores_of([1, 2], []), scores_of([], [1, 2]), scores_of([], [])):
        with pytest.raises(ValueError, match="at least one canary"):
            auc(scores, significance=SIGNIFICANCE)
        with pytest.raises(ValueError, match="at least one canary"):
            rate(scores, 0.01)


@pytest.mark.parametrize("false_positive_rate", [0.0, 1.0, -0.1])
def test_a_rate_out_of_range_is_refused(false_positive_rate: float) -> None:
    with pytest.raises(ValueError, match="false_positive_rate must lie"):
        rate(scores_of([1], [0]), false_positive_rate)
