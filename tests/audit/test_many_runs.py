"""The bound from many runs: by hand, on simulated mechanisms, and beside jax-privacy."""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import beta, norm

from dp_assets.audit.many_runs import RunCounts, many_runs_lower_bound
from tests.audit.oracle import jax_auditing
from tests.audit.simulation import MOST_ERRORS, RUNS, SIGNIFICANCE, gaussian_epsilon


def lower_bound(true_positives: int, false_positives: int, delta: float, runs: int) -> float:
    counts = RunCounts(runs, true_positives, runs, false_positives)
    return many_runs_lower_bound(counts, significance=SIGNIFICANCE, delta=delta)


def test_the_bound_is_the_log_ratio_of_the_bounded_rates_by_hand() -> None:
    detection = beta.ppf(0.025, 900, 101)
    false_alarm = beta.ppf(0.975, 11, 990)
    expected = math.log((detection - 1e-3) / false_alarm)
    assert lower_bound(900, 10, 1e-3, 1000) == pytest.approx(expected)


def test_both_directions_count() -> None:
    """Recognizing the canary almost always proves as much as never raising a false alarm."""
    assert lower_bound(999, 500, 0.0, 1000) == pytest.approx(lower_bound(500, 1, 0.0, 1000))
    assert lower_bound(500, 1, 0.0, 1000) > 4


def test_perfect_recognition_proves_what_the_number_of_runs_allows() -> None:
    error = 1 - 0.025 ** (1 / 100)
    assert lower_bound(100, 0, 0.0, 100) == pytest.approx(math.log((1 - error) / error))


@pytest.mark.parametrize(("true_positives", "false_positives"), [(50, 50), (0, 0), (100, 100), (10, 90)])
def test_an_attack_no_better_than_a_coin_proves_nothing(true_positives: int, false_positives: int) -> None:
    assert lower_bound(true_positives, false_positives, 0.0, 100) == 0.0


def test_without_runs_or_at_delta_one_nothing_is_proven() -> None:
    assert lower_bound(0, 0, 0.0, 0) == 0.0
    assert lower_bound(100, 0, 1.0, 100) == 0.0


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_the_bound_exceeds_the_epsilon_of_randomized_response_in_at_most_its_share_of_trials(epsilon: float) -> None:
    rng = np.random.default_rng(381)
    true = rng.binomial(300, expit(epsilon), size=RUNS)
    false = rng.binomial(300, expit(-epsilon), size=RUNS)
    bounds = [lower_bound(int(t), int(f), 0.0, 300) for t, f in zip(true, false, strict=True)]
    assert sum(bound > epsilon for bound in bounds) <= MOST_ERRORS


@pytest.mark.parametrize("threshold", [0.5, 1.5])
@pytest.mark.parametrize("delta", [1e-5, 1e-2])
def test_the_bound_exceeds_the_epsilon_of_a_gaussian_in_at_most_its_share_of_trials(
    threshold: float, delta: float
) -> None:
    rng, truth = np.random.default_rng(382), gaussian_epsilon(1.0, delta)
    true = rng.binomial(1000, norm.sf(threshold - 1), size=RUNS)
    false = rng.binomial(1000, norm.sf(threshold), size=RUNS)
    bounds = [lower_bound(int(t), int(f), delta, 1000) for t, f in zip(true, false, strict=True)]
    assert sum(bound > truth for bound in bounds) <= MOST_ERRORS


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_with_many_runs_the_bound_comes_near_the_epsilon_of_randomized_response(epsilon: float) -> None:
    runs = 1_000_000
    bound = lower_bound(int(runs * expit(epsilon)), int(runs * expit(-epsilon)), 0.0, runs)
    assert epsilon - 0.02 < bound < epsilon


@pytest.mark.parametrize(("true_positives", "false_positives"), [(-1, 0), (11, 0), (0, -1), (0, 11)])
def test_impossible_counts_are_refused(true_positives: int, false_positives: int) -> None:
    with pytest.raises(ValueError, match="true_positives must lie"):
        RunCounts(10, true_positives, 10, false_positives)


def test_a_delta_or_significance_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="delta must lie"):
        lower_bound(1, 1, -0.1, 10)
    with pytest.raises(ValueError, match="significance must lie"):
        many_runs_lower_bound(RunCounts(10, 10, 10, 0), significance=0.0, delta=0.0)


# Another implementation

CASES = [(1000, 900, 10, 0.0), (1000, 900, 10, 1e-3), (200, 200, 0, 1e-5), (500, 260, 240, 0.0), (300, 299, 150, 1e-5)]
RECORDED = [3.871970, 3.870833, 3.983748, 0.0, 3.177234]
"""What jax-privacy 2.0.0 returned for `CASES`, for attacks in both directions."""


@pytest.mark.parametrize(("case", "recorded"), list(zip(CASES, RECORDED, strict=True)))
def test_the_bound_is_the_one_recorded_of_jax_privacy(case: tuple[int, int, int, float], recorded: float) -> None:
    runs, true_positives, false_positives, delta = case
    assert lower_bound(true_positives, false_positives, delta, runs) == pytest.approx(recorded, abs=1e-6)


@pytest.mark.parametrize(("runs", "true_positives", "false_positives", "delta"), CASES)
def test_the_bound_is_that_of_jax_privacy_on_the_same_scores(
    runs: int, true_positives: int, false_positives: int, delta: float
) -> None:
    auditing = jax_auditing()
    ranks = np.arange(runs)
    auditor = auditing.CanaryScoreAuditor((ranks < true_positives) * 1.0, (ranks < false_positives) * 1.0)
    theirs = auditor.epsilon_clopper_pearson(
        SIGNIFICANCE, delta, one_sided=False, threshold_strategy=auditing.Explicit(0.5)
    )
    assert lower_bound(true_positives, false_positives, delta, runs) == pytest.approx(theirs, abs=1e-6)
