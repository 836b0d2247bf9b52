"""The expected distance of quotas: within a fifth of what simulated votes give, and limits by hand."""

import numpy as np
import pytest

from dp_assets.evaluation.agreement import total_variation
from dp_assets.planning.expected_variation import CEILINGS, expected_total_variation, most_bins
from dp_assets.selection.smoothing import smooth_votes


def test_without_noise_nothing_moves_and_with_much_noise_the_ceiling_is_reached() -> None:
    for rule, ceiling in CEILINGS.items():
        quiet, loud = (
            expected_total_variation(num_units=1000, num_bins=50, noise_stddev=noise, rule=rule) for noise in (0, 1e9)
        )
        assert quiet == 0
        assert loud == pytest.approx(ceiling)


def test_small_noise_moves_what_the_noise_alone_moves() -> None:
    got = expected_total_variation(num_units=10**6, num_bins=100, noise_stddev=10, rule="smoothed")
    assert got == pytest.approx(np.sqrt(2 / np.pi) / 2 * 10 * 100 / 10**6, rel=0.01)


@pytest.mark.parametrize("num_units", [500, 5_000, 180_000])
def test_the_most_bins_keep_the_limit_and_one_more_does_not(num_units: int) -> None:
    most = most_bins(num_units=num_units, noise_stddev=10, rule="smoothed", total_variation=0.12)

    def at(num_bins: int) -> float:
        return expected_total_variation(num_units=num_units, num_bins=num_bins, noise_stddev=10, rule="smoothed")

    assert at(most) <= 0.12 < at(most + 1)


@pytest.mark.parametrize(("num_bins", "noise"), [(40, 10.0), (100, 10.0), (100, 30.0)])
def test_the_expectation_is_within_a_fifth_of_simulated_votes(num_bins: int, noise: float) -> None:
    """Means over 6 cases whose pool lies at a known distance from the units, for both rules."""
    distances, ours, papers = [], [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        centroids = rng.normal(size=(num_bins, 6)).astype(np.float32)
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        in_pool = rng.integers(20, 60, size=num_bins)
        ratio = np.exp(2 * centroids[:, 0] + 1.5 * np.sin(4 * centroids[:, 1]) + 0.3 * rng.normal(size=num_bins))
        exact = rng.multinomial(5000, in_pool * ratio / (in_pool * ratio).sum())
        votes = np.rint(exact + noise * rng.normal(size=num_bins)).astype(np.int64)
        shares = exact / exact.sum()
        estimate = smooth_votes(votes, pool_counts=in_pool, centroids=centroids, noise_stddev=noise).votes
        distances.append(total_variation(in_pool / in_pool.sum(), shares))
        ours.append(total_variation(estimate / estimate.sum(), shares))
        papers.append(total_variation(votes.clip(0) / votes.clip(0).sum(), shares))

    def expected(rule: str, ceiling: float | None) -> float:
        return expected_total_variation(
            num_units=5000, num_bins=num_bins, noise_stddev=noise, rule=rule, ceiling=ceiling
        )

    assert expected("smoothed", float(np.mean(distances))) == pytest.approx(np.mean(ours), rel=0.2)
    assert expected("paper", None) == pytest.approx(np.mean(papers), rel=0.2)


def test_rules_and_numbers_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="smoothed, paper"):
        expected_total_variation(num_units=1, num_bins=1, noise_stddev=1, rule="other")
    with pytest.raises(ValueError, match="at least 1"):
        expected_total_variation(num_units=0, num_bins=1, noise_stddev=1, rule="paper")
    with pytest.raises(ValueError, match="between 0 and"):
        most_bins(num_units=10, noise_stddev=1, rule="smoothed", total_variation=0.9)
