"""Sampling and noise do what their events say, count what they do, and are named by their exact type."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.privacy.sampling_and_noise import (
    DiscreteGaussianNoise,
    GaussianNoise,
    PoissonSampler,
    name_of,
    noise_draws,
    noisy_votes,
)
from tests.privacy.replay import ReplayableSource

SIGNIFICANCE = 1e-6
SECURE = SystemRandomness()
UNITS = [f"unit-{number}" for number in range(20)]


def sampler(sampling_probability: float) -> PoissonSampler:
    return PoissonSampler(sampling_probability=sampling_probability, source=SECURE)


def test_one_more_unit_leaves_the_membership_of_the_others_alone() -> None:
    without = PoissonSampler(sampling_probability=0.3, source=ReplayableSource(5)).draw(UNITS)
    with_one_more = PoissonSampler(sampling_probability=0.3, source=ReplayableSource(5)).draw([*UNITS, "one more"])
    assert tuple(unit for unit in with_one_more if unit != "one more") == without


def test_batch_sizes_are_binomial() -> None:
    sizes = [len(sampler(0.25).draw(UNITS)) for _ in range(4_000)]
    observed = np.bincount(np.clip(sizes, 0, 11), minlength=12)
    expected = stats.binom.pmf(np.arange(12), 20, 0.25) * len(sizes)
    expected[11] += stats.binom.sf(11, 20, 0.25) * len(sizes)
    assert stats.chisquare(observed, expected).pvalue > SIGNIFICANCE


@pytest.mark.parametrize(("units", "sampling_probability"), [(3, 0.1), (1, 0.5), (20, 0.05)])
def test_a_sample_is_empty_as_often_as_chance_makes_it(units: int, sampling_probability: float) -> None:
    """At rates where it often is, so that one that is drawn again, or left out, shows."""
    empty = sum(not sampler(sampling_probability).draw(UNITS[:units]) for _ in range(2_000))
    expected = (1 - sampling_probability) ** units
    assert stats.binomtest(empty, 2_000, expected).pvalue > SIGNIFICANCE


def test_every_unit_is_sampled_equally_often() -> None:
    members = [unit for _ in range(4_000) for unit in sampler(0.25).draw(UNITS)]
    assert stats.chisquare([members.count(unit) for unit in UNITS]).pvalue > SIGNIFICANCE


@pytest.mark.parametrize(("sampling_probability", "members"), [(0.0, ()), (1.0, ("a", "b", "c"))])
def test_samples_may_be_empty_or_everyone(sampling_probability: float, members: tuple[str, ...]) -> None:
    assert sampler(sampling_probability).draw(["a", "b", "c"]) == members


def test_a_sampler_counts_its_samples_and_keeps_the_last() -> None:
    drawing = sampler(0.5)
    samples = [drawing.draw(UNITS[:number]) for number in (20, 0, 10)]
    assert (drawing.samples_drawn, drawing.last_population, drawing.last_sample) == (3, tuple(UNITS[:10]), samples[-1])


def test_a_sampler_picks_below_each_size_and_keeps_every_pick_of_a_sample() -> None:
    drawing = sampler(1.0)
    drawing.draw(["a", "b"])
    picks = [drawing.pick([1, 3]) for _ in range(100)]
    assert {first for first, _ in picks} == {0}
    assert {second for _, second in picks} == {0, 1, 2}
    assert drawing.last_picks[:2] == (("a", picks[0][0], 1), ("b", picks[0][1], 3))
    assert len(drawing.last_picks) == 200
    drawing.draw(["a", "b"])
    assert drawing.last_picks == ()


@pytest.mark.parametrize("sampling_probability", [-0.1, 1.1, math.nan])
def test_a_sampler_refuses_an_impossible_probability(sampling_probability: float) -> None:
    with pytest.raises(ValueError, match="sampling_probability"):
        sampler(sampling_probability)


def test_gaussian_noise_has_its_standard_deviation_and_mean_zero() -> None:
    noise = GaussianNoise(noise_stddev=2.5, source=SECURE).draw(200_000)
    total = float(((noise / 2.5) ** 2).sum())
    assert stats.chi2.ppf(SIGNIFICANCE, 200_000) < total < stats.chi2.isf(SIGNIFICANCE, 200_000)
    assert abs(noise.mean()) < 5 * 2.5 / math.sqrt(200_000)
    assert noise.dtype == np.float64


def test_gaussian_noise_of_a_known_source() -> None:
    noise = GaussianNoise(noise_stddev=2.0, source=ReplayableSource(2)).draw(3)
    np.testing.assert_allclose(noise, [-1.3006824466147033, 0.27029061638389307, 1.6634229682170738], rtol=1e-12)


def test_gaussian_noise_counts_its_draws_and_tells_a_repeated_one() -> None:
    source = ReplayableSource(2)
    noise = GaussianNoise(noise_stddev=0.0, source=source)
    noise.draw(5)
    noise.draw(3)
    assert (len(noise.digests), len(set(noise.digests)), noise.coordinates_drawn) == (2, 2, 8)
    source.requests = 0
    noise.draw(5)
    assert (len(noise.digests), len(set(noise.digests))) == (3, 2)


def test_noise_drawn_in_any_thread_is_counted() -> None:
    noise, before = GaussianNoise(noise_stddev=1.0, source=SECURE), noise_draws()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(noise.draw, [1] * 40))
    assert noise_draws() - before == 40


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (sampler(0.3), "sampling_probability"),
        (sampler(0.3), "source"),
        (GaussianNoise(noise_stddev=1.0, source=SECURE), "noise_stddev"),
        (GaussianNoise(noise_stddev=1.0, source=SECURE), "source"),
        (DiscreteGaussianNoise(noise_stddev=1.0, source=SECURE), "noise_stddev"),
        (DiscreteGaussianNoise(noise_stddev=1.0, source=SECURE), "source"),
    ],
)
def test_what_an_act_is_drawn_with_cannot_be_changed_between_draws(part: Any, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(part, name, getattr(part, name))


def test_the_noise_that_is_kept_for_comparison_is_not_the_one_handed_out() -> None:
    noise = GaussianNoise(noise_stddev=1.0, source=SECURE)
    drawn = noise.draw(4)
    drawn[:] = 0
    assert noise.last_draw.all()


@pytest.mark.parametrize("kind", [GaussianNoise, DiscreteGaussianNoise])
@pytest.mark.parametrize("noise_stddev", [-1.0, math.inf, math.nan])
def test_noise_refuses_an_impossible_standard_deviation(
    kind: type[GaussianNoise] | type[DiscreteGaussianNoise], noise_stddev: float
) -> None:
    with pytest.raises(ValueError, match="noise_stddev"):
        kind(noise_stddev=noise_stddev, source=SECURE)


def test_empty_bins_get_noise_too() -> None:
    noise = DiscreteGaussianNoise(noise_stddev=10.0, source=SECURE)
    released = noisy_votes(np.zeros(2_000, dtype=np.int64), noise)
    assert (released != 0).mean() > 0.9
    assert released.dtype == np.int64
    assert noise.coordinates_drawn == 2_000


def test_one_vote_moves_the_release_by_one_vote_and_no_other_bin() -> None:
    votes = np.array([5, 0, 2], dtype=np.int64)
    neighbor = votes + np.array([0, 1, 0])
    released = [
        noisy_votes(counted, DiscreteGaussianNoise(noise_stddev=3.0, source=ReplayableSource(3)))
        for counted in (votes, neighbor)
    ]
    assert (released[1] - released[0]).tolist() == [0, 1, 0]


def test_votes_are_left_unchanged_by_their_release() -> None:
    votes = np.array([5, 0, 2], dtype=np.int64)
    noisy_votes(votes, DiscreteGaussianNoise(noise_stddev=3.0, source=SECURE))
    assert votes.tolist() == [5, 0, 2]


def test_votes_that_are_no_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="exact_votes"):
        noisy_votes(np.zeros(3), DiscreteGaussianNoise(noise_stddev=1.0, source=SECURE))  # type: ignore[arg-type]


def test_a_part_is_named_by_its_exact_type() -> None:
    class poisson(PoissonSampler):
        pass

    assert name_of(sampler(0.5)) == "poisson"
    assert name_of(GaussianNoise(noise_stddev=1.0, source=SECURE)) == "gaussian"
    assert name_of(DiscreteGaussianNoise(noise_stddev=1.0, source=SECURE)) == "discrete-gaussian"
    assert name_of(poisson(sampling_probability=0.5, source=SECURE)) == "foreign poisson"


def test_the_drawing_of_a_part_cannot_be_replaced_unnoticed() -> None:
    with pytest.raises(AttributeError):
        sampler(0.5).draw = lambda unit_ids: tuple(unit_ids)  # type: ignore[method-assign]
