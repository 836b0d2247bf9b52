"""The samplers follow their distributions and nothing but the source moves them."""

import itertools
import math
import multiprocessing
import os
import random
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from dp_assets.privacy.randomness import (
    SystemRandomness,
    bernoulli,
    discrete_gaussian,
    normals,
    origin,
    uniforms,
)
from dp_assets.privacy.sampling_and_noise import DiscreteGaussianNoise, GaussianNoise, PoissonSampler
from tests.privacy.replay import FixedWords, ReplayableSource

SIGNIFICANCE = 1e-6  # how often each statistical test fails although all is well
ALL_ONES = 2**64 - 1


def discrete_gaussian_p_value(draws: np.ndarray, noise_stddev: float) -> float:
    """Chi-square of integers against the definition, the tails pooled so that every cell expects ten draws."""
    support = np.arange(-int(12 * noise_stddev) - 12, int(12 * noise_stddev) + 13)
    mass = np.exp(-(support.astype(float) ** 2) / (2 * noise_stddev**2))
    expected = len(draws) * mass / mass.sum()
    reach = int(support[expected >= 10].max())
    cells = np.clip(support, -reach, reach) + reach
    observed = np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1)
    return float(stats.chisquare(observed, np.bincount(cells, weights=expected)).pvalue)


def test_uniforms_are_the_top_53_bits() -> None:
    assert uniforms(FixedWords([0, 1 << 63, ALL_ONES]), 3).tolist() == [0.0, 0.5, 1 - 2**-53]


def test_the_words_of_the_system_have_fair_and_unrelated_bits() -> None:
    words = SystemRandomness().bits(20_000)
    bits = np.unpackbits(words.view(np.uint8)).reshape(len(words), 64).astype(float)
    ones = (bits.sum(axis=0) - len(words) / 2) / math.sqrt(len(words) / 4)
    assert stats.chi2.sf((ones**2).sum(), 64) > SIGNIFICANCE
    pairs = np.corrcoef(bits, rowvar=False)[np.triu_indices(64, 1)] * math.sqrt(len(words))
    assert stats.chi2.sf((pairs**2).sum(), len(pairs)) > SIGNIFICANCE


def test_uniforms_are_uniform() -> None:
    assert stats.kstest(uniforms(SystemRandomness(), 100_000), "uniform").pvalue > SIGNIFICANCE


@pytest.mark.parametrize("probability", [0.001, 0.0228, 0.5])
def test_coins_fall_as_often_as_they_should(probability: float) -> None:
    heads = int(bernoulli(SystemRandomness(), 200_000, probability).sum())
    assert stats.binomtest(heads, 200_000, probability).pvalue > SIGNIFICANCE


def test_a_coin_falls_true_below_the_probability_and_never_at_it() -> None:
    just_below, at = ((2**52 - 1) << 11), (2**52 << 11)
    assert bernoulli(FixedWords([just_below, at]), 2, 0.5).tolist() == [True, False]


def test_probability_one_is_always_and_zero_is_never() -> None:
    assert bernoulli(FixedWords([ALL_ONES]), 1, 1.0).all()
    assert not bernoulli(FixedWords([0]), 1, 0.0).any()


def test_probabilities_are_rounded_down() -> None:
    probability = 2**-53 * 1.5
    assert bernoulli(FixedWords([0, 1 << 11]), 2, probability).tolist() == [True, False]


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_a_probability_outside_the_unit_interval_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        bernoulli(SystemRandomness(), 1, probability)


def test_normals_of_known_words() -> None:
    half, zero, quarter_turn = 1 << 63, 0, 1 << 62
    values = normals(FixedWords([half, half], [zero, zero], [zero, quarter_turn]), 4)
    radius = math.sqrt(2 * math.log(2))
    np.testing.assert_allclose(values, [radius, 0, 0, radius], atol=1e-12)


def test_normals_reach_twelve_standard_deviations() -> None:
    farthest = normals(FixedWords([0], [ALL_ONES], [0]), 1)
    assert 12 < farthest[0] < math.inf


def test_normals_are_normal_and_their_halves_uncorrelated() -> None:
    values = normals(SystemRandomness(), 100_000)
    assert stats.kstest(values, "norm").pvalue > SIGNIFICANCE
    assert stats.pearsonr(values[:50_000], values[50_000:]).pvalue > SIGNIFICANCE
    assert stats.pearsonr(values[:50_000] ** 2, values[50_000:] ** 2).pvalue > SIGNIFICANCE


def test_the_tails_of_normals_have_their_weight() -> None:
    beyond = int((np.abs(normals(SystemRandomness(), 500_000)) > 3.5).sum())
    assert stats.binomtest(beyond, 500_000, 2 * stats.norm.sf(3.5)).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_normals_have_the_length_asked_for(n: int) -> None:
    assert normals(SystemRandomness(), n).shape == (n,)


@pytest.mark.parametrize("noise_stddev", [0.4, 1.0, 3.7, 10.0])
def test_discrete_gaussian_follows_its_definition(noise_stddev: float) -> None:
    draws = discrete_gaussian(SystemRandomness(), 4_000, noise_stddev)
    assert discrete_gaussian_p_value(draws, noise_stddev) > SIGNIFICANCE


def test_the_goodness_of_fit_rejects_a_rounded_gaussian() -> None:
    rounded = np.rint(0.4 * normals(SystemRandomness(), 4_000)).astype(np.int64)
    assert discrete_gaussian_p_value(rounded, 0.4) < SIGNIFICANCE


@pytest.mark.parametrize(
    ("noise_stddev", "draws"),
    [
        (0.5, [1, 0, 0, 1, 0, 0, 0, 0, 0, -1, 0, 0]),
        (2.3, [6, -5, -1, -5, 0, -1, 5, -4, 1, 3, 0, 1]),
        (10.0, [2, -9, -16, -11, -6, 0, 4, -16, 16, 5, -10, 7]),
    ],
)
def test_discrete_gaussian_of_a_known_source(noise_stddev: float, draws: list[int]) -> None:
    assert discrete_gaussian(ReplayableSource(1), 12, noise_stddev).tolist() == draws


def test_no_noise_is_zero_noise() -> None:
    assert discrete_gaussian(SystemRandomness(), 3, 0.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("noise_stddev", [-1.0, math.inf, math.nan])
def test_an_impossible_standard_deviation_is_refused(noise_stddev: float) -> None:
    with pytest.raises(ValueError, match="noise_stddev"):
        discrete_gaussian(SystemRandomness(), 1, noise_stddev)


def test_library_seeds_neither_reach_the_draws_nor_feel_them() -> None:
    draws = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)  # the poison: a library generator in the path would repeat the draw
        states = random.getstate(), np.random.get_state()[1].tolist()
        draws.append(normals(SystemRandomness(), 4).tolist() + discrete_gaussian(SystemRandomness(), 20, 9.0).tolist())
        assert states == (random.getstate(), np.random.get_state()[1].tolist())
    assert draws[0] != draws[1]


def test_a_fork_does_not_repeat_its_parent() -> None:
    source = SystemRandomness()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, source.bits(4).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 32) != source.bits(4).tobytes()


def test_system_randomness_takes_no_seed_and_holds_no_state() -> None:
    with pytest.raises(TypeError):
        SystemRandomness(0)  # type: ignore[call-arg]
    assert not hasattr(SystemRandomness(), "__dict__")
    assert repr(SystemRandomness()) == "SystemRandomness()"


def test_only_the_operating_system_is_named_as_such() -> None:
    class SystemRandomnessInName(SystemRandomness):
        pass

    assert origin(SystemRandomness()) == "operating-system"
    assert origin(ReplayableSource(0)) == "ReplayableSource"
    assert origin(SystemRandomnessInName()) == "SystemRandomnessInName"


# Correlation. The rank correlation of n independent pairs is near normal with standard deviation 1 / sqrt(n), whatever
# they are drawn from. A test makes at most twenty comparisons, and fails by chance at most as often as `SIGNIFICANCE`.
CORRELATION_BOUND = float(stats.norm.isf(SIGNIFICANCE / 20 / 2))


def assert_uncorrelated(draws: Sequence[npt.NDArray[np.float64]]) -> None:
    """No two draws are correlated place by place, with a shift by one place, or in their magnitudes."""
    for first, second in itertools.combinations(draws, 2):
        for ours, theirs in ((first, second), (first[1:], second[:-1]), (np.abs(first), np.abs(second))):
            correlation = np.corrcoef(stats.rankdata(ours), stats.rankdata(theirs))[0, 1]
            assert abs(correlation) * math.sqrt(len(ours)) < CORRELATION_BOUND


def test_the_correlation_bound_rejects_a_noise_that_partly_repeats() -> None:
    first, second = (normals(SystemRandomness(), 50_000) for _ in range(2))
    with pytest.raises(AssertionError):
        assert_uncorrelated([first, second + 0.05 * first])


def test_noise_of_successive_steps_is_uncorrelated() -> None:
    noise = GaussianNoise(noise_stddev=1.0, source=SystemRandomness())
    assert_uncorrelated([noise.draw(50_000) for _ in range(3)])


def test_noise_of_tensors_within_a_draw_is_uncorrelated() -> None:
    """Box-Muller makes both halves of a draw of the same words, so a flaw of it would show between tensors first."""
    values = GaussianNoise(noise_stddev=1.0, source=SystemRandomness()).draw(150_000)
    assert_uncorrelated(np.split(values, 3))


@pytest.mark.parametrize("seed", range(3))
def test_discrete_noise_of_releases_and_bins_is_uncorrelated(seed: int) -> None:
    noise = DiscreteGaussianNoise(noise_stddev=4.0, source=SystemRandomness())
    assert_uncorrelated([noise.draw(2_000).astype(float) for _ in range(2)])


def test_samples_of_successive_steps_are_uncorrelated() -> None:
    sampler = PoissonSampler(sampling_probability=0.3, source=SystemRandomness())
    names = [str(number) for number in range(20_000)]
    samples = [set(sampler.draw(names)) for _ in range(3)]
    assert_uncorrelated([np.array([1.0 if name in sample else -2.0 for name in names]) for sample in samples])


Draws = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def draws_of_this_process() -> Draws:
    source = SystemRandomness()
    return normals(source, 20_000), discrete_gaussian(source, 50, 10.0)


def send_draws(sending: Connection) -> None:
    sending.send(draws_of_this_process())


def draws_of_another_process(context: BaseContext) -> Draws:
    """From a process of its own. A pool that starts one for each task may hang when it ends."""
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=send_draws, args=(sending,))  # type: ignore[attr-defined]
    process.start()
    draws: Draws = receiving.recv()
    process.join()
    return draws


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_of_one_parent_draw_apart_from_it_and_from_each_other(method: str) -> None:
    """Library generators are seeded beforehand: a fork copies their state, and a spawn may seed them alike."""
    random.seed(0)
    np.random.seed(0)
    before = draws_of_this_process()
    children = [draws_of_another_process(multiprocessing.get_context(method)) for _ in range(2)]
    everybody = [before, *children, draws_of_this_process()]
    assert_uncorrelated([continuous for continuous, _ in everybody])
    assert len({discrete.tobytes() for _, discrete in everybody}) == len(everybody)
