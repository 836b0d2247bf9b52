"""What an audit can show at most: known values, no outcome above the limit, and the power that is promised."""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from dp_assets.audit.detection import detectable_epsilon, limit_of_detection
from dp_assets.audit.one_run import GuessCounts, epsilon_lower_bound, p_value
from tests.audit.simulation import RUNS, SIGNIFICANCE, randomized_response


def limit(guesses: int, *, canaries: int = 10_000, delta: float = 0.0) -> float:
    return limit_of_detection(canaries=canaries, guesses=guesses, significance=SIGNIFICANCE, delta=delta)


@pytest.mark.parametrize(
    ("guesses", "expected"), [(20, 1.82), (50, 2.78), (100, 3.49), (500, 5.11), (1000, 5.81), (10_000, 8.11)]
)
def test_known_limits_at_delta_zero(guesses: int, expected: float) -> None:
    assert limit(guesses) == pytest.approx(expected, abs=0.0051)
    assert limit(guesses) == pytest.approx(math.log(guesses / math.log(1 / SIGNIFICANCE)), abs=0.1)


def test_four_guesses_show_nothing_and_five_do() -> None:
    assert [limit(guesses) == 0 for guesses in range(7)] == [True] * 5 + [False] * 2


@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-3, 1e-2])
@pytest.mark.parametrize(("canaries", "guesses"), [(60, 60), (2000, 40)])
def test_no_outcome_shows_more_than_the_limit(delta: float, canaries: int, guesses: int) -> None:
    shown = [
        epsilon_lower_bound(GuessCounts(canaries, guesses, correct), significance=SIGNIFICANCE, delta=delta)
        for correct in range(guesses + 1)
    ]
    assert max(shown) == limit(guesses, canaries=canaries, delta=delta)


def test_more_guesses_raise_the_limit_and_a_larger_delta_lowers_it() -> None:
    assert limit(1000) > limit(100) > limit(10)
    assert limit(100) > limit(100, delta=1e-6) > limit(100, delta=1e-4) > limit(100, delta=1e-2)


def detectable(guesses: int, claimed: float, *, power: float = 0.8, delta: float = 0.0) -> float:
    return detectable_epsilon(
        canaries=guesses,
        guesses=guesses,
        significance=SIGNIFICANCE,
        delta=delta,
        claimed_epsilon=claimed,
        power=power,
    )


@pytest.mark.parametrize(("guesses", "claimed"), [(100, 0.0), (100, 1.0), (1000, 1.0), (1000, 3.0)])
@pytest.mark.parametrize("delta", [0.0, 1e-6])
def test_at_the_detectable_epsilon_the_claim_is_refuted_with_the_stated_power(
    guesses: int, claimed: float, delta: float
) -> None:
    """Simulated with randomized response; the tolerance is five standard errors."""
    epsilon = detectable(guesses, claimed, delta=delta)
    correct = randomized_response(np.random.default_rng(581), epsilon=epsilon, guesses=guesses)
    counts, runs = np.unique(correct, return_counts=True)
    refuted = [
        p_value(GuessCounts(guesses, guesses, int(count)), epsilon=claimed, delta=delta) <= SIGNIFICANCE
        for count in counts
    ]
    assert runs[refuted].sum() / RUNS == pytest.approx(0.8, abs=5 * math.sqrt(0.16 / RUNS))


def test_by_hand_where_only_right_guesses_refute() -> None:
    """Of 5 guesses, all must be right to refute epsilon 0: 1/32 is below 5 %, 6/32 is not."""
    epsilon = detectable(5, 0.0)
    assert binom.pmf(5, 5, expit(epsilon)) == pytest.approx(0.8)


def test_a_claim_at_the_limit_or_above_cannot_be_refuted() -> None:
    assert detectable(100, 4.0) == math.inf
    assert detectable(4, 0.0) == math.inf
    assert limit(100) < 4.0
    assert detectable(100, limit(100) - 1e-6) < math.inf


def test_the_detectable_epsilon_lies_above_the_claim_and_grows_with_the_power() -> None:
    by_power = [detectable(500, 1.0, power=power) for power in (0.1, 0.5, 0.8, 0.99)]
    assert by_power == sorted(by_power)
    assert by_power[0] > 1.0
    assert detectable(5000, 1.0) < detectable(500, 1.0) < detectable(50, 1.0)


@pytest.mark.parametrize(
    ("claimed", "power", "named"),
    [(-1.0, 0.8, "epsilon"), (math.inf, 0.8, "epsilon"), (1.0, 0.0, "power"), (1.0, 1.0, "power")],
)
def test_numbers_out_of_range_are_refused(claimed: float, power: float, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        detectable(10, claimed, power=power)
