"""Sequential tests reject a true hypothesis at most as often as they say, whenever they stop, and find known faults."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import integrate, stats

from dp_assets.audit.sequential import (
    Array,
    CellBet,
    Cells,
    Claim,
    ClaimTest,
    PlannedStep,
    RepeatBet,
    StepFit,
    VotesFit,
    Wealth,
    _log_wealth,
    claims_of,
    e_value,
    epsilon_lower_bound,
    integer_cells,
    uniform_cells,
)
from dp_assets.privacy.events import dpsgd_event
from dp_assets.privacy.randomness import SystemRandomness, discrete_gaussian

LEVEL = 0.05
SIGNIFICANCE = 1e-6
SIMULATED = 500
MOST_REJECTED = int(stats.binom.isf(SIGNIFICANCE, SIMULATED, LEVEL))  # 51 of 500, where at most 25 are expected
PLANNED = PlannedStep(sampling_probability=0.25, noise_multiplier=0.5, shift=0.95)
STRICT = 1e-4
STEPS, NUM_REST = 20, 8
THRESHOLDS = np.linspace(-1.0, 2.0, 13)


def rejected(audit: Callable[[np.random.Generator], object], *, seed: int) -> int:
    """How many of `SIMULATED` audits reject at any time."""
    generator = np.random.default_rng(seed)
    return sum(audit(generator) is not None for _ in range(SIMULATED))


# Cells


@pytest.mark.parametrize("cells", [uniform_cells(), *map(integer_cells, (0.25, 0.5, 1.0, 4.0, 30.0))])
def test_probabilities_of_cells_are_positive_and_add_up_to_one(cells: Cells) -> None:
    assert (cells.probabilities > 0).all()
    assert math.isclose(cells.probabilities.sum(), 1)
    assert len(cells.edges) == len(cells.probabilities) - 1
    assert (np.diff(cells.edges) > 0).all()


@pytest.mark.parametrize("noise_stddev", [0.5, 1.0, 4.0])
def test_cells_of_integers_are_as_probable_as_the_exact_sampler_makes_them(noise_stddev: float) -> None:
    cells = integer_cells(noise_stddev)
    draws = discrete_gaussian(SystemRandomness(), 4_000, noise_stddev)
    counts = np.bincount([cells.index(draw) for draw in draws], minlength=len(cells.probabilities))
    expected = 4_000 * cells.probabilities
    common = expected >= 5
    both = [np.append(values[common], values[~common].sum()) for values in (counts, expected)]
    assert stats.chisquare(*both).pvalue > SIGNIFICANCE


def test_noise_of_nearly_only_zeros_has_no_cells() -> None:
    with pytest.raises(ValueError, match="at least"):
        integer_cells(0.1)


def test_the_planned_rank_of_an_output_is_uniform() -> None:
    generator = np.random.default_rng(0)
    outputs = planned_outputs(generator, 4_000)
    ranks = [PLANNED.cumulative(output) for output in outputs]
    assert stats.kstest(ranks, "uniform").pvalue > SIGNIFICANCE


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_the_likelihood_ratio_is_that_of_the_densities(probability: float) -> None:
    planned = PlannedStep(probability, 0.5, 0.95)
    for output in (-1.0, 0.0, 0.7, 2.0):
        without = stats.norm.pdf(output, 0, 0.5)
        with_canary = (1 - probability) * without + probability * stats.norm.pdf(output, 0.95, 0.5)
        log_ratio = float(planned.log_likelihood_ratio(np.array(output)))
        assert math.isclose(log_ratio, math.log(with_canary / without), abs_tol=1e-12)


@pytest.mark.parametrize("constants", [(0.0, 0.5, 1.0), (0.5, 0.0, 1.0), (0.5, 0.5, 1.1), (0.5, 0.5, 0.0)])
def test_impossible_constants_of_a_step_are_refused(constants: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        PlannedStep(*constants)


# Each bet gains nothing on average


def test_a_bet_on_cells_gains_nothing_on_average_after_any_history() -> None:
    generator, cells = np.random.default_rng(1), uniform_cells()
    bet = CellBet(cells.probabilities, num_contexts=3)
    for _ in range(200):
        context = int(generator.integers(3))
        assert math.isclose(cells.probabilities @ np.exp(bet.log_factors(context)), 1, rel_tol=1e-9)
        cell = int(generator.integers(len(cells.probabilities)))
        assert bet.log_factors(context)[cell] == pytest.approx(bet.settle(cell, context))


def test_the_e_value_of_a_uniform_p_value_is_one_on_average() -> None:
    total, _ = integrate.quad(lambda log_p: e_value(math.exp(log_p)) * math.exp(log_p), -600, 0, limit=500)
    assert total == pytest.approx(1, abs=5e-3)  # e-values of p-values below exp(-600) are left out
    assert total <= 1


def test_the_p_value_of_a_repetition_is_at_most_as_small_as_it_says() -> None:
    generator, num_values, p_values = np.random.default_rng(2), 6, list[float]()
    for _ in range(1_500):
        bet = RepeatBet(num_values)
        for _ in range(3):
            bet.settle(generator.normal(size=num_values))
        p_values.append(bet.p_value(generator.normal(size=num_values)))
    for p_value in (0.01, 0.1, 0.5):
        below = sum(value <= p_value for value in p_values)
        assert below <= stats.binom.isf(SIGNIFICANCE, len(p_values), p_value)
    assert sum(value <= 0.1 for value in p_values) > 100  # of 150


def test_the_p_value_of_one_pair_of_directions_is_exact() -> None:
    bet = RepeatBet(5)
    bet.settle(np.array([1.0, 0, 0, 0, 0]))
    exact = 2 * stats.beta.sf((1 + 0.8) / 2, 2, 2)
    for sign in (1, -1):
        assert bet.p_value(np.array([0.8 * sign, 0.6, 0, 0, 0])) == pytest.approx(exact)


def test_wealth_on_repetitions_never_falls_by_more_than_half_of_what_was_staked() -> None:
    bet, generator = RepeatBet(50), np.random.default_rng(3)
    assert sum(bet.settle(generator.normal(size=50)) for _ in range(300)) > math.log(0.5)


def test_noise_without_a_direction_is_no_repetition() -> None:
    bet = RepeatBet(3)
    for noise in (np.ones(3), np.zeros(3), np.zeros(3), np.full(3, np.nan)):
        assert bet.p_value(noise) == 1
        bet.settle(noise)
    assert bet.p_value(2 * np.ones(3)) < 1e-6


@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.1])
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0, 8.0])
def test_a_bet_on_a_claim_gains_nothing_on_average_where_the_claim_is_just_met(epsilon: float, delta: float) -> None:
    """With one set, which the output with the canary hits as often as the claim allows, or the other one misses."""
    for share in (0.0, 0.1, 0.5, 1.0):  # of where the claim is met in both orders of the neighbors
        rarely = share * (1 - delta) / (1 + math.exp(epsilon))
        often = math.exp(epsilon) * rarely + delta
        for with_canary, without_canary in ((often, rarely), (1 - rarely, 1 - often)):
            joint = np.outer([with_canary, 1 - with_canary], [without_canary, 1 - without_canary])
            chances = [joint[0, 1], joint[1, 0], joint[0, 0], joint[1, 1]]
            wealth = [math.exp(float(_log_wealth(outcome[None], Claim(epsilon, delta)))) for outcome in np.eye(4)]
            assert np.dot(chances, wealth) <= 1 + 1e-12


# Rejections of true hypotheses, at any time


def planned_outputs(generator: np.random.Generator, n: int, planned: PlannedStep = PLANNED) -> Array:
    sampled = generator.random(n) < planned.sampling_probability
    return planned.shift * sampled + planned.noise_multiplier * generator.normal(size=n)


def first_rejection(
    outputs: Array, rests: Array, *, significance: float, steps: int = STEPS, planned: PlannedStep = PLANNED
) -> int | None:
    fit = StepFit(planned, num_rest=rests.shape[1], significance=significance)
    for place, (along, rest) in enumerate(zip(outputs.tolist(), rests, strict=True)):
        if place % steps == 0:
            fit.begin_run()
        fit.observe(along, rest)
        if fit.wealth.rejected_after is not None:
            break
    return fit.wealth.rejected_after


def test_outputs_of_the_plan_are_rejected_at_most_as_often_as_the_level_says() -> None:
    def audit(generator: np.random.Generator) -> int | None:
        rests = PLANNED.noise_multiplier * generator.normal(size=(60, NUM_REST))
        return first_rejection(planned_outputs(generator, 60), rests, significance=LEVEL)

    assert rejected(audit, seed=4) <= MOST_REJECTED


def test_votes_of_the_plan_are_rejected_at_most_as_often_as_the_level_says() -> None:
    integers = np.arange(-8, 9)
    chances = stats.norm.pdf(integers) / stats.norm.pdf(integers).sum()
    exact = np.array([3, 0, 1], dtype=np.int64)

    def audit(generator: np.random.Generator) -> int | None:
        fit = VotesFit(exact, noise_stddev=1.0, significance=LEVEL)
        for noise in generator.choice(integers, size=(60, len(exact)), p=chances):
            fit.observe(exact + noise)
        return fit.wealth.rejected_after

    assert rejected(audit, seed=5) <= MOST_REJECTED


def randomized_responses(generator: np.random.Generator, n: int, epsilon: float) -> tuple[Array, Array]:
    """Answers of 1 and 0, which are right with probability e^epsilon / (1 + e^epsilon)."""
    right = 1 / (1 + math.exp(-epsilon))
    return (generator.random(n) < right).astype(np.float64), (generator.random(n) > right).astype(np.float64)


def revealing(generator: np.random.Generator, n: int, delta: float) -> tuple[Array, Array]:
    """Outputs that reveal the canary with probability delta, and say nothing else."""
    return (generator.random(n) < delta).astype(np.float64), np.zeros(n)


MECHANISMS: dict[str, tuple[tuple[Claim, ...], Array, Callable[[np.random.Generator], tuple[Array, Array]]]] = {
    "randomized response, epsilon 1": (
        (Claim(1.0, 0.0),),
        np.array([0.5]),
        lambda generator: randomized_responses(generator, 1_500, 1.0),
    ),
    "revealing with probability 0.1": (
        (Claim(0.0, 0.1),),
        np.array([0.5]),
        lambda generator: revealing(generator, 1_500, 0.1),
    ),
    "one step of the plan": (
        claims_of(dpsgd_event(sampling_probability=0.25, noise_multiplier=0.5, steps=1)),
        np.array([0.0, 0.5, 1.0, 1.5]),
        lambda generator: (
            planned_outputs(generator, 500, PlannedStep(0.25, 0.5, 1.0)),
            0.5 * generator.normal(size=500),
        ),
    ),
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_true_claims_are_rejected_at_most_as_often_as_the_level_says(mechanism: str) -> None:
    claims, thresholds, outputs = MECHANISMS[mechanism]

    def audit(generator: np.random.Generator) -> int | None:
        test = ClaimTest(claims, thresholds=thresholds, significance=LEVEL)
        test.observe(*outputs(generator))
        return test.rejected_after

    assert rejected(audit, seed=6) <= MOST_REJECTED


def test_a_lower_bound_exceeds_the_truth_at_most_as_often_as_the_level_says_and_comes_near_it() -> None:
    generator, truth = np.random.default_rng(7), 1.0
    bounds = [
        epsilon_lower_bound(
            *randomized_responses(generator, 2_000, truth), delta=0.0, thresholds=np.array([0.5]), significance=LEVEL
        )
        for _ in range(SIMULATED)
    ]
    assert sum(bound > truth for bound in bounds) <= MOST_REJECTED
    assert np.median(bounds) > 0.75


def test_no_bound_is_shown_where_nothing_can_be_told() -> None:
    generator = np.random.default_rng(8)
    outputs = generator.normal(size=(2, 3_000))
    assert epsilon_lower_bound(*outputs, delta=1e-5, thresholds=THRESHOLDS, significance=LEVEL) == 0


# Power


def shifted(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    return planned_outputs(generator, n, PlannedStep(0.25, 0.5, 0.95)) + 0.5, noise(generator, n)


def doubled(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    return planned_outputs(generator, n, PlannedStep(0.5, 0.5, 0.95)), noise(generator, n)


def less_noise_along_the_canary(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    return planned_outputs(generator, n, PlannedStep(0.25, 0.25, 0.95)), noise(generator, n)


def less_noise_elsewhere(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    return planned_outputs(generator, n), 0.5 * noise(generator, n)


def more_noise(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    return planned_outputs(generator, n), 2 * noise(generator, n)


def no_noise(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    sampled = (generator.random(n) < 0.25).astype(np.float64)
    return 0.95 * sampled, np.zeros((n, NUM_REST))


def one_sample_for_all_runs(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    sampled = np.tile(generator.random(STEPS) < 0.25, n // STEPS)
    return 0.95 * sampled + 0.5 * generator.normal(size=n), noise(generator, n)


def a_sample_for_ten_steps(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    sampled = np.repeat(generator.random(n // 10) < 0.25, 10)
    return 0.95 * sampled + 0.5 * generator.normal(size=n), noise(generator, n)


def one_repeated_draw(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    rests = noise(generator, n)
    rests[57] = -rests[3]
    return planned_outputs(generator, n), rests


def noise(generator: np.random.Generator, n: int) -> Array:
    drawn: Array = 0.5 * generator.normal(size=(n, NUM_REST))
    return drawn


@pytest.mark.parametrize(
    ("fault", "most_steps"),
    [
        (shifted, 150),
        (doubled, 1_200),
        (less_noise_along_the_canary, 500),
        (less_noise_elsewhere, 60),
        (more_noise, 60),
        (no_noise, 10),
        (one_sample_for_all_runs, 1_600),
        (a_sample_for_ten_steps, 1_000),
        (one_repeated_draw, 58),
    ],
)
def test_known_differences_from_the_plan_are_found(
    fault: Callable[[np.random.Generator, int], tuple[Array, Array]], most_steps: int
) -> None:
    for seed in range(5):
        outputs, rests = fault(np.random.default_rng(seed), 2_000)
        steps = first_rejection(outputs, rests, significance=STRICT)
        assert steps is not None
        assert steps <= most_steps


@pytest.mark.parametrize("change", [lambda noise: noise + 1, lambda noise: 0 * noise, lambda noise: 2 * noise])
def test_votes_with_other_noise_are_found(change: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]) -> None:
    generator, exact = np.random.default_rng(9), np.array([2, 0], dtype=np.int64)
    fit = VotesFit(exact, noise_stddev=1.0, significance=STRICT)
    for noise in np.rint(generator.normal(size=(200, 2))).astype(np.int64):
        fit.observe(exact + change(noise))
    assert fit.wealth.rejected_after is not None


def test_votes_that_repeat_their_noise_are_found() -> None:
    fit = VotesFit(np.zeros(3, dtype=np.int64), noise_stddev=2.0, significance=STRICT)
    for _ in range(60):
        fit.observe(np.array([1, -2, 0], dtype=np.int64))
    assert fit.wealth.rejected_after is not None


def test_a_false_claim_falls_and_faster_on_the_whole_curve_than_at_one_delta() -> None:
    """The noise is half of that of the claim."""
    claims = claims_of(dpsgd_event(sampling_probability=0.25, noise_multiplier=0.5, steps=1))
    generator = np.random.default_rng(10)
    outputs = planned_outputs(generator, 8_000, PlannedStep(0.25, 0.25, 1.0)), 0.25 * generator.normal(size=8_000)
    taken = []
    for tested in (claims, claims[-1:]):
        test = ClaimTest(tested, thresholds=THRESHOLDS, significance=STRICT)
        test.observe(*outputs)
        taken.append(test.rejected_after)
    assert taken[0] is not None
    assert taken[0] < 2_000
    assert taken[1] is None  # it takes more than exp(8) pairs


# What is counted


def test_pairs_give_the_same_verdict_one_by_one_as_all_at_once() -> None:
    generator = np.random.default_rng(11)
    outputs = randomized_responses(generator, 600, 2.0)
    tests = [ClaimTest([Claim(1.0, 0.0)], thresholds=np.array([0.5]), significance=STRICT) for _ in range(2)]
    tests[0].observe(*outputs)
    for with_canary, without_canary in zip(*outputs, strict=True):
        tests[1].observe(np.array([with_canary]), np.array([without_canary]))
    assert tests[0].rejected_after == tests[1].rejected_after is not None
    assert tests[0].num_samples == tests[1].num_samples == 600


def test_a_rejection_stands_whatever_comes_after_it() -> None:
    wealth = Wealth(("a", "b"), significance=0.1)
    wealth.settle({"a": 3.5})
    wealth.settle({"a": -50.0})
    assert (wealth.rejected_after, wealth.num_samples) == (1, 2)
    assert wealth.log_e_value < 0
    assert wealth.leading == "b"


def test_the_threshold_is_that_of_ville_for_the_mean_of_the_bets() -> None:
    wealth = Wealth(("a", "b"), significance=0.1)
    wealth.settle({"a": math.log(18.9)})
    assert wealth.rejected_after is None
    wealth.settle({"a": math.log(19.1 / 18.9)})
    assert wealth.rejected_after == 2


@pytest.mark.parametrize("significance", [0.0, 1.0, -1.0])
def test_a_level_that_is_no_probability_is_refused(significance: float) -> None:
    with pytest.raises(ValueError, match="significance"):
        Wealth(("a",), significance=significance)
    with pytest.raises(ValueError, match="significance"):
        ClaimTest([Claim(1.0, 0.0)], thresholds=THRESHOLDS, significance=significance)


def test_a_claim_test_needs_claims_and_thresholds() -> None:
    with pytest.raises(ValueError, match="empty"):
        ClaimTest([], thresholds=THRESHOLDS, significance=LEVEL)
    with pytest.raises(ValueError, match="empty"):
        ClaimTest([Claim(1.0, 0.0)], thresholds=np.zeros(0), significance=LEVEL)


def test_outputs_without_a_partner_are_refused() -> None:
    test = ClaimTest([Claim(1.0, 0.0)], thresholds=THRESHOLDS, significance=LEVEL)
    with pytest.raises(ValueError, match="same shape"):
        test.observe(np.zeros(1), np.zeros(2))
    with pytest.raises(ValueError, match="same shape"):
        epsilon_lower_bound(np.zeros(1), np.zeros(2), delta=0.0, thresholds=THRESHOLDS, significance=LEVEL)


def test_a_rest_of_one_value_has_no_direction() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        StepFit(PLANNED, num_rest=1, significance=LEVEL)
