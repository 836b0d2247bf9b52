"""The test against a trade-off curve: exact curves, linear programs, small mechanisms, simulated runs, jax-privacy."""

import functools
import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NonPrivateDpEvent
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binom, norm

from dp_assets.audit.one_run import GuessCounts, epsilon_lower_bound
from dp_assets.audit.trade_off import (
    SMALLEST_P_VALUE,
    TradeOffCurve,
    curve_of,
    curve_p_value,
    family_lower_bound,
    refutes,
)
from dp_assets.privacy import accounting
from dp_assets.privacy.events import dpsgd_event
from tests.audit.exact import largest_probability_by_tails, random_mechanism
from tests.audit.oracle import jax_auditing
from tests.audit.simulation import (
    MOST_ERRORS,
    SIGNIFICANCE,
    correct_at_edges,
    errors,
    gaussian_curve,
    gaussian_curve_at,
    gaussian_epsilon,
    gaussian_scores,
    randomized_response,
)


def pure(epsilon: float) -> TradeOffCurve:
    return TradeOffCurve(epsilons=np.array([epsilon]), deltas=np.array([0.0]))


def fewest_refuted(curve: TradeOffCurve, canaries: int, guesses: int) -> int:
    """The fewest right guesses that refute the curve, or one more than there are guesses."""
    counts = (GuessCounts(canaries, guesses, correct) for correct in range(guesses, -1, -1))
    unrefuted = next(each for each in counts if not refutes(each, curve, significance=SIGNIFICANCE))
    return unrefuted.correct + 1


# Curves


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.5, 0.9, 0.999])
def test_the_curve_of_a_gaussian_is_the_one_in_closed_form(rate: float) -> None:
    for noise_multiplier in (0.5, 1.0):
        exact = norm.cdf(norm.ppf(rate) - 1 / noise_multiplier)
        by_event = curve_of(GaussianDpEvent(noise_multiplier)).least_false_positive_rate(rate)
        by_formula = gaussian_curve(1 / noise_multiplier).least_false_positive_rate(rate)
        assert exact * 0.98 - 1e-6 < by_event <= exact
        assert exact * 0.999 - 1e-9 < by_formula <= exact + 1e-12


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_the_curve_of_randomized_response_has_two_lines(rate: float) -> None:
    expected = max(rate / math.e, 1 - math.e * (1 - rate))
    assert pure(1.0).least_false_positive_rate(rate) == pytest.approx(max(0.0, expected))


def test_the_curve_of_an_event_is_the_inverse_of_the_trade_off_that_is_reported() -> None:
    event = dpsgd_event(sampling_probability=0.05, noise_multiplier=1.0, steps=20)
    curve = curve_of(event)
    for false_positive_rate, rate in accounting.trade_off(event, [0.001, 0.01, 0.1]).items():
        assert curve.least_false_positive_rate(rate) == pytest.approx(false_positive_rate, rel=1e-3)


@pytest.mark.parametrize(
    ("epsilons", "deltas"),
    [
        ([], []),
        ([1.0], [0.1, 0.2]),
        ([[1.0]], [[0.1]]),
        ([-1.0], [0.1]),
        ([np.inf], [0.1]),
        ([1.0], [1.1]),
        ([1.0], [np.nan]),
    ],
)
def test_impossible_curves_are_refused(epsilons: list[float], deltas: list[float]) -> None:
    with pytest.raises(ValueError, match=r"must be vectors|must lie in"):
        TradeOffCurve(epsilons=np.array(epsilons), deltas=np.array(deltas))


# Validity


@pytest.mark.parametrize(("canaries", "guesses"), [(12, 12), (30, 12)])
@pytest.mark.parametrize(
    "curve",
    [
        pure(1.0),
        TradeOffCurve(epsilons=np.array([0.5]), deltas=np.array([0.02])),
        TradeOffCurve(epsilons=gaussian_curve(1.0).epsilons[:1300:100], deltas=gaussian_curve(1.0).deltas[:1300:100]),
    ],
    ids=["pure", "approximate", "gaussian"],
)
def test_the_p_value_is_the_largest_probability_that_a_linear_program_finds(
    curve: TradeOffCurve, canaries: int, guesses: int
) -> None:
    """So the recursion finds the optimum of the inequalities that it states."""
    for correct in range(guesses + 1):
        counts = GuessCounts(canaries, guesses, correct)
        assert curve_p_value(counts, curve) == pytest.approx(largest_probability_by_tails(counts, curve), abs=1e-7)


def test_no_small_mechanism_is_guessed_more_often_than_its_own_curve_says() -> None:
    """200 mechanisms on three canaries with any dependence between them, all of whose outcomes are enumerated."""
    rng = np.random.default_rng(281)
    epsilons = np.concatenate([[0.0], np.geomspace(0.01, 12, 60)])
    for _ in range(200):
        mechanism = random_mechanism(rng, 3)
        curve = TradeOffCurve(epsilons=epsilons, deltas=mechanism.deltas(epsilons))
        for guesses in (1, 2, 3):
            for correct, chance in enumerate(mechanism.tail(guesses)):
                assert chance <= curve_p_value(GuessCounts(3, guesses, correct), curve) + 1e-9


@pytest.mark.parametrize("per_side", [20, 50, 200])
@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0])
def test_the_curve_of_the_mechanism_itself_is_refuted_in_at_most_its_share_of_runs(
    noise_multiplier: float, per_side: int
) -> None:
    scores, included = gaussian_scores(np.random.default_rng(282), separation=1 / noise_multiplier, canaries=400)
    correct = correct_at_edges(scores, included, per_side)
    fewest = fewest_refuted(curve_of(GaussianDpEvent(noise_multiplier)), 400, 2 * per_side)
    assert int((correct >= fewest).sum()) <= MOST_ERRORS


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_the_curve_of_randomized_response_is_refuted_in_at_most_its_share_of_runs(epsilon: float) -> None:
    correct = randomized_response(np.random.default_rng(283), epsilon=epsilon, guesses=300)
    fewest = fewest_refuted(pure(epsilon), 300, 300)
    assert int((correct >= fewest).sum()) <= MOST_ERRORS


def test_the_epsilon_from_the_gaussian_family_exceeds_the_truth_in_at_most_its_share_of_runs() -> None:
    delta, truth = 1e-5, gaussian_epsilon(1.0, 1e-5)
    scores, included = gaussian_scores(np.random.default_rng(284), separation=1.0, canaries=400)
    correct = correct_at_edges(scores, included, 100)
    curve_at = functools.lru_cache(functools.partial(gaussian_curve_at, delta=delta))

    def bound(count: int) -> float:
        counts = GuessCounts(400, 200, count)
        return family_lower_bound(counts, curve_at, significance=SIGNIFICANCE, largest=16.0, tolerance=0.05)

    assert errors(correct, bound, truth) <= MOST_ERRORS


def test_a_mechanism_without_noise_is_never_refuted() -> None:
    curve = curve_of(NonPrivateDpEvent())
    assert curve_p_value(GuessCounts(1000, 1000, 1000), curve) == 1.0
    assert not refutes(GuessCounts(1000, 1000, 1000), curve, significance=0.99)


def test_guesses_that_prove_nothing_have_p_value_one() -> None:
    for counts in (GuessCounts(0, 0, 0), GuessCounts(10, 0, 0), GuessCounts(10, 10, 0), GuessCounts(100, 100, 50)):
        assert curve_p_value(counts, gaussian_curve(1.0)) == 1.0


# Tightness and power


@pytest.mark.parametrize(("epsilon", "guesses"), [(0.5, 500), (1.0, 100), (3.0, 300)])
def test_on_randomized_response_the_p_value_is_little_above_the_binomial_tail(epsilon: float, guesses: int) -> None:
    correct = int(binom.isf(SIGNIFICANCE, guesses, expit(epsilon))) + 1
    exact = binom.sf(correct - 1, guesses, expit(epsilon))
    assert exact <= curve_p_value(GuessCounts(guesses, guesses, correct), pure(epsilon)) <= 1.25 * exact


def test_against_a_gaussian_the_curve_shows_more_than_one_epsilon_and_delta() -> None:
    """At the right guesses that the best attack on noise multiplier 1 is expected to have."""
    counts, curve_at = GuessCounts(1000, 1000, 691), functools.partial(gaussian_curve_at, delta=1e-5)
    by_pair = epsilon_lower_bound(counts, significance=SIGNIFICANCE, delta=1e-5)
    by_curve = family_lower_bound(counts, curve_at, significance=SIGNIFICANCE, largest=16.0, tolerance=0.01)
    assert by_pair < 0.75
    assert 1.2 < by_curve < gaussian_epsilon(1.0, 1e-5)


def test_a_quarter_of_the_planned_noise_is_noticed_and_the_planned_noise_is_not() -> None:
    plan = curve_of(GaussianDpEvent(1.0))
    for noise_multiplier, is_noticed in ((0.25, True), (1.0, False)):
        scores, included = gaussian_scores(np.random.default_rng(285), separation=1 / noise_multiplier, canaries=400)
        correct = correct_at_edges(scores, included, 200)
        noticed = (correct >= fewest_refuted(plan, 400, 400)).mean()
        assert (noticed > 0.99) if is_noticed else (noticed <= MOST_ERRORS / len(correct))


def test_more_right_guesses_have_smaller_p_values_down_to_the_smallest() -> None:
    by_correct = [curve_p_value(GuessCounts(300, 100, correct), pure(1.0)) for correct in range(0, 101, 4)]
    assert by_correct == sorted(by_correct, reverse=True)
    assert by_correct[-1] == pytest.approx(SMALLEST_P_VALUE)


def test_a_claim_is_refuted_exactly_where_the_p_value_is_below_the_significance() -> None:
    curve = gaussian_curve(1.0)
    for correct in range(60, 101, 8):
        counts = GuessCounts(400, 100, correct)
        for significance in (0.001, 0.05, 0.3):
            expected = curve_p_value(counts, curve) < significance
            assert refutes(counts, curve, significance=significance) == expected


# Families


def test_the_bound_of_a_family_lies_within_the_tolerance_of_where_its_p_value_is_the_significance() -> None:
    counts = GuessCounts(200, 200, 180)
    exact = brentq(lambda epsilon: curve_p_value(counts, pure(epsilon)) - SIGNIFICANCE, 0.1, 5.0)
    for tolerance in (0.1, 1e-4):
        bound = family_lower_bound(counts, pure, significance=SIGNIFICANCE, largest=5.0, tolerance=tolerance)
        assert exact - tolerance <= bound <= exact + 1e-9


def test_the_bound_of_a_family_is_zero_without_evidence_and_at_most_the_largest_parameter() -> None:
    for correct, expected in ((50, 0.0), (100, 2.0)):
        counts = GuessCounts(100, 100, correct)
        bound = family_lower_bound(counts, pure, significance=SIGNIFICANCE, largest=2.0, tolerance=0.01)
        assert bound == expected


def test_numbers_out_of_range_are_refused() -> None:
    counts = GuessCounts(10, 10, 10)
    with pytest.raises(ValueError, match="largest and tolerance"):
        family_lower_bound(counts, pure, significance=SIGNIFICANCE, largest=0.0, tolerance=0.1)
    with pytest.raises(ValueError, match="largest and tolerance"):
        family_lower_bound(counts, pure, significance=SIGNIFICANCE, largest=1.0, tolerance=0.0)
    with pytest.raises(ValueError, match="significance"):
        refutes(counts, pure(1.0), significance=1.0)


# Another implementation

CASES = [
    (400, 100, 90, 1e-5),
    (400, 400, 300, 1e-5),
    (1000, 50, 50, 1e-6),
    (1000, 1000, 990, 1e-3),
    (400, 60, 31, 1e-5),
]
RECORDED = [2.800526, 1.798608, 4.540357, 5.843026, 0.0]
"""What jax-privacy 2.0.0 returned for `CASES`, against Gaussian curves."""


def by_gaussian_family(canaries: int, guesses: int, correct: int, delta: float) -> float:
    counts, curve_at = GuessCounts(canaries, guesses, correct), functools.partial(gaussian_curve_at, delta=delta)
    return family_lower_bound(counts, curve_at, significance=SIGNIFICANCE, largest=16.0, tolerance=5e-4)


@pytest.mark.parametrize(("case", "recorded"), list(zip(CASES, RECORDED, strict=True)))
def test_the_epsilon_from_the_gaussian_family_is_the_one_recorded_of_jax_privacy(
    case: tuple[int, int, int, float], recorded: float
) -> None:
    assert by_gaussian_family(*case) == pytest.approx(recorded, abs=3e-3)


@pytest.mark.parametrize(("canaries", "guesses", "correct", "delta"), CASES)
def test_the_epsilon_from_the_gaussian_family_is_that_of_jax_privacy_on_the_same_scores(
    canaries: int, guesses: int, correct: int, delta: float
) -> None:
    auditing = jax_auditing()
    guessed = np.arange(canaries) < guesses
    included = np.where(guessed, np.arange(canaries) < correct, np.arange(canaries) % 2 == 0)
    scores = np.where(guessed, 1.0, 0.0)
    auditor = auditing.CanaryScoreAuditor(scores[included], scores[~included])
    theirs = auditor.epsilon_one_run_fdp(SIGNIFICANCE, delta, threshold_strategy=auditing.Explicit(0.5))
    assert by_gaussian_family(canaries, guesses, correct, delta) == pytest.approx(theirs, abs=3e-3)
