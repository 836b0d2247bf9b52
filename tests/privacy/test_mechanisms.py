"""Sampling and noise do what their events say: independent units, fresh noise a coordinate, sensitivity one vote."""

import math

import numpy as np
import pytest
from scipy import stats

from dp_assets.privacy.mechanisms import gaussian_noise, noisy_votes, poisson_sample
from dp_assets.privacy.randomness import SystemRandomness
from tests.privacy.replay import ReplayableSource

SIGNIFICANCE = 1e-6


def test_one_more_unit_leaves_the_membership_of_the_others_alone() -> None:
    without = poisson_sample(40, sampling_probability=0.3, source=ReplayableSource(5))
    with_one_more = poisson_sample(41, sampling_probability=0.3, source=ReplayableSource(5))
    assert with_one_more[with_one_more < 40].tolist() == without.tolist()


def test_batch_sizes_are_binomial() -> None:
    sizes = [len(poisson_sample(20, sampling_probability=0.25, source=SystemRandomness())) for _ in range(4_000)]
    observed = np.bincount(np.clip(sizes, 0, 11), minlength=12)
    expected = stats.binom.pmf(np.arange(12), 20, 0.25) * len(sizes)
    expected[11] += stats.binom.sf(11, 20, 0.25) * len(sizes)
    assert stats.chisquare(observed, expected).pvalue > SIGNIFICANCE


def test_every_unit_is_sampled_equally_often() -> None:
    members = np.concatenate(
        [poisson_sample(20, sampling_probability=0.25, source=SystemRandomness()) for _ in range(4_000)]
    )
    assert stats.chisquare(np.bincount(members, minlength=20)).pvalue > SIGNIFICANCE


@pytest.mark.parametrize(("sampling_probability", "members"), [(0.0, []), (1.0, [0, 1, 2])])
def test_samples_may_be_empty_or_everyone(sampling_probability: float, members: list[int]) -> None:
    sample = poisson_sample(3, sampling_probability=sampling_probability, source=SystemRandomness())
    assert sample.tolist() == members
    assert sample.dtype == np.int64


def test_gaussian_noise_has_its_standard_deviation_and_mean_zero() -> None:
    noise = gaussian_noise(200_000, noise_stddev=2.5, source=SystemRandomness())
    total = float(((noise / 2.5) ** 2).sum())
    assert stats.chi2.ppf(SIGNIFICANCE, 200_000) < total < stats.chi2.isf(SIGNIFICANCE, 200_000)
    assert abs(noise.mean()) < 5 * 2.5 / math.sqrt(200_000)
    assert noise.dtype == np.float64


def test_gaussian_noise_of_a_known_source() -> None:
    noise = gaussian_noise(3, noise_stddev=2.0, source=ReplayableSource(2))
    np.testing.assert_allclose(noise, [-1.3006824466147033, 0.27029061638389307, 1.6634229682170738], rtol=1e-12)


@pytest.mark.parametrize("noise_stddev", [-1.0, math.inf, math.nan])
def test_gaussian_noise_refuses_an_impossible_standard_deviation(noise_stddev: float) -> None:
    with pytest.raises(ValueError, match="noise_stddev"):
        gaussian_noise(1, noise_stddev=noise_stddev, source=SystemRandomness())


def test_empty_bins_get_noise_too() -> None:
    released = noisy_votes(np.zeros(2_000, dtype=np.int64), noise_stddev=10.0, source=SystemRandomness())
    assert (released != 0).mean() > 0.9
    assert released.dtype == np.int64


def test_one_vote_moves_the_release_by_one_vote_and_no_other_bin() -> None:
    votes = np.array([5, 0, 2], dtype=np.int64)
    neighbour = votes + np.array([0, 1, 0])
    first = noisy_votes(votes, noise_stddev=3.0, source=ReplayableSource(3))
    second = noisy_votes(neighbour, noise_stddev=3.0, source=ReplayableSource(3))
    assert (second - first).tolist() == [0, 1, 0]


def test_votes_are_left_unchanged_by_their_release() -> None:
    votes = np.array([5, 0, 2], dtype=np.int64)
    noisy_votes(votes, noise_stddev=3.0, source=SystemRandomness())
    assert votes.tolist() == [5, 0, 2]


def test_votes_that_are_no_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="exact_votes"):
        noisy_votes(np.zeros(3), noise_stddev=1.0, source=SystemRandomness())  # type: ignore[arg-type]
