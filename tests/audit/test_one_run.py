"""The bound from one run: known values, exact bounds, small mechanisms, simulated runs, another implementation."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from dp_assets.audit.one_run import GuessCounts, epsilon_lower_bound, p_value
from tests.audit.exact import largest_probability, random_mechanism
from tests.audit.oracle import jax_auditing
from tests.audit.simulation import MOST_ERRORS, SIGNIFICANCE, errors, randomized_response, revealing_response


def lower_bound(canaries: int, guesses: int, correct: int, delta: float) -> float:
    return epsilon_lower_bound(GuessCounts(canaries, guesses, correct), significance=SIGNIFICANCE, delta=delta)


@pytest.mark.parametrize(
    ("guesses", "correct", "expected"),
    [
        (20, 20, 1.82),
        (50, 50, 2.78),
        (100, 100, 3.49),
        (500, 500, 5.11),
        (1000, 1000, 5.81),
        (5000, 5000, 7.42),
        (10000, 10000, 8.11),
        (1000, 800, 1.25),
        (1000, 700, 0.73),
        (500, 450, 1.95),
    ],
)
def test_known_values_at_delta_zero(guesses: int, correct: int, expected: float) -> None:
    assert lower_bound(guesses, guesses, correct, 0.0) == pytest.approx(expected, abs=0.0051)


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "printed"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_values_that_the_paper_prints(canaries: int, guesses: int, correct: int, delta: float, printed: float) -> None:
    """Appendix D, and Section 7 with Figure 11, of arXiv 2305.08846."""
    assert lower_bound(canaries, guesses, correct, delta) == pytest.approx(printed, abs=1e-3)


@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-4])
@pytest.mark.parametrize(("guesses", "correct"), [(1000, 700), (200, 190), (60, 60)])
def test_the_bound_is_where_the_p_value_reaches_the_significance(guesses: int, correct: int, delta: float) -> None:
    counts = GuessCounts(1000, guesses, correct)
    bound = lower_bound(1000, guesses, correct, delta)
    assert p_value(counts, epsilon=bound, delta=delta) == pytest.approx(SIGNIFICANCE, abs=1e-9)
    assert p_value(counts, epsilon=bound + 1e-6, delta=delta) > SIGNIFICANCE


def test_more_right_guesses_prove_more_and_a_larger_delta_or_more_canaries_prove_less() -> None:
    by_correct = [lower_bound(500, 100, correct, 1e-5) for correct in range(0, 101, 4)]
    by_delta = [lower_bound(500, 100, 90, delta) for delta in (0.0, 1e-9, 1e-6, 1e-5, 1e-4, 1e-3)]
    by_canaries = [lower_bound(canaries, 100, 90, 1e-5) for canaries in (100, 1000, 10_000)]
    assert by_correct == sorted(by_correct)
    assert by_delta == sorted(by_delta, reverse=True)
    assert by_canaries == sorted(by_canaries, reverse=True)
    assert by_delta[1] == pytest.approx(by_delta[0], abs=1e-5)


@pytest.mark.parametrize(("guesses", "correct"), [(0, 0), (10, 0), (1000, 500), (1, 1), (4, 4)])
def test_guesses_that_coins_alone_would_often_give_prove_nothing(guesses: int, correct: int) -> None:
    assert lower_bound(1000, guesses, correct, 0.0) == 0.0
    assert lower_bound(1000, guesses, correct, 1e-5) == 0.0


def test_a_delta_of_one_proves_nothing() -> None:
    assert lower_bound(1000, 1000, 1000, 1.0) == 0.0


@pytest.mark.parametrize(("canaries", "guesses", "correct"), [(10, 11, 5), (10, 5, 6), (10, 5, -1), (-1, -1, -1)])
def test_impossible_counts_are_refused(canaries: int, guesses: int, correct: int) -> None:
    with pytest.raises(ValueError, match="guesses must lie between 0 and canaries"):
        GuessCounts(canaries, guesses, correct)


@pytest.mark.parametrize(("epsilon", "delta"), [(-1.0, 0.0), (float("inf"), 0.0), (1.0, -0.1), (1.0, 1.1)])
def test_impossible_claims_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match=r"must be finite|must lie in"):
        p_value(GuessCounts(10, 10, 10), epsilon=epsilon, delta=delta)


def test_a_delta_or_significance_out_of_range_is_refused() -> None:
    counts = GuessCounts(10, 10, 10)
    with pytest.raises(ValueError, match="delta"):
        epsilon_lower_bound(counts, significance=0.05, delta=1.5)
    with pytest.raises(ValueError, match="significance"):
        epsilon_lower_bound(counts, significance=0.0, delta=0.0)


# Validity


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3, 1e-2])
@pytest.mark.parametrize(("canaries", "guesses"), [(60, 60), (200, 40)])
def test_the_p_value_is_at_least_the_largest_probability_that_dp_allows(
    epsilon: float, delta: float, canaries: int, guesses: int
) -> None:
    """By a linear program from the definition of DP alone. At delta 0 the two agree, so nothing is given away.

    P-values above 0.5 are left out: no significance is that large, and the program is no lower bound there.
    """
    for correct in range(guesses // 2, guesses + 1, 3):
        counts = GuessCounts(canaries, guesses, correct)
        bound = p_value(counts, epsilon=epsilon, delta=delta)
        allowed = largest_probability(counts, epsilon=epsilon, delta=delta)
        assert bound > 0.5 or bound >= allowed - 1e-7
        if delta == 0:
            assert bound == pytest.approx(allowed, abs=1e-7)


def test_no_small_mechanism_is_guessed_more_often_than_the_p_value_says() -> None:
    """150 mechanisms on three canaries with any dependence between them, all of whose outcomes are enumerated."""
    rng = np.random.default_rng(181)
    epsilons = np.array([0.0, 0.7, 3.0])
    for _ in range(150):
        mechanism = random_mechanism(rng, 3)
        deltas = mechanism.deltas(epsilons)
        for guesses in (1, 2, 3):
            for correct, chance in enumerate(mechanism.tail(guesses)):
                counts = GuessCounts(3, guesses, correct)
                for epsilon, delta in zip(epsilons, deltas, strict=True):
                    assert chance <= p_value(counts, epsilon=float(epsilon), delta=float(delta)) + 1e-9


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
def test_the_bound_exceeds_the_epsilon_of_randomized_response_in_at_most_its_share_of_runs(epsilon: float) -> None:
    correct = randomized_response(np.random.default_rng(182), epsilon=epsilon, guesses=300)
    assert errors(correct, lambda count: lower_bound(300, 300, count, 0.0), epsilon) <= MOST_ERRORS


@pytest.mark.parametrize("delta", [0.001, 0.02])
def test_the_bound_holds_where_all_coins_are_revealed_together_with_probability_delta(delta: float) -> None:
    correct = revealing_response(np.random.default_rng(183), epsilon=1.0, delta=delta, guesses=300)
    assert errors(correct, lambda count: lower_bound(300, 300, count, delta), 1.0) <= MOST_ERRORS


def test_the_bound_on_coins_alone_is_above_zero_in_at_most_its_share_of_runs() -> None:
    correct = randomized_response(np.random.default_rng(184), epsilon=0.0, guesses=1000)
    assert errors(correct, lambda count: lower_bound(1000, 1000, count, 0.0), 0.0) <= MOST_ERRORS


# Tightness


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_on_randomized_response_almost_all_of_the_significance_is_used(epsilon: float) -> None:
    """Exactly, not simulated: the next smaller number of right guesses would use too much."""
    refuted = [count for count in range(2001) if lower_bound(2000, 2000, count, 0.0) > epsilon]
    fewest = min(refuted)
    assert binom.sf(fewest - 1, 2000, expit(epsilon)) <= SIGNIFICANCE < binom.sf(fewest - 2, 2000, expit(epsilon))


def test_with_many_canaries_the_bound_comes_near_the_epsilon_of_randomized_response() -> None:
    for epsilon in (0.5, 1.0, 3.0):
        correct = int(20_000 * expit(epsilon))
        assert epsilon - 0.06 < lower_bound(20_000, 20_000, correct, 0.0) < epsilon
        assert epsilon - 0.06 < lower_bound(20_000, 20_000, correct, 1e-7) < epsilon


# Another implementation

CASES = [
    (400, 100, 90, 1e-5),
    (400, 400, 300, 1e-5),
    (1000, 50, 50, 1e-6),
    (1000, 1000, 990, 1e-3),
    (400, 60, 31, 1e-5),
]
RECORDED = [1.628959, 0.903953, 2.781889, 3.215050, 0.0]
"""What jax-privacy 2.0.0 returned for `CASES`."""


@pytest.mark.parametrize(("case", "recorded"), list(zip(CASES, RECORDED, strict=True)))
def test_the_bound_is_the_one_recorded_of_jax_privacy(case: tuple[int, int, int, float], recorded: float) -> None:
    assert lower_bound(*case) == pytest.approx(recorded, abs=2e-6)


@pytest.mark.parametrize(("canaries", "guesses", "correct", "delta"), CASES)
def test_the_bound_is_that_of_jax_privacy_on_the_same_scores(
    canaries: int, guesses: int, correct: int, delta: float
) -> None:
    auditing = jax_auditing()
    guessed = np.arange(canaries) < guesses
    included = np.where(guessed, np.arange(canaries) < correct, np.arange(canaries) % 2 == 0)
    scores = np.where(guessed, 1.0, 0.0)
    auditor = auditing.CanaryScoreAuditor(scores[included], scores[~included])
    theirs = auditor.epsilon_one_run(SIGNIFICANCE, delta, threshold_strategy=auditing.Explicit(0.5))
    assert lower_bound(canaries, guesses, correct, delta) == pytest.approx(theirs, abs=2e-6)
