"""Estimates hold for exact votes that noise hid, for sets that looked at the noisy votes and for sets that did not."""

import numpy as np
import pytest

from dp_assets.evaluation.agreement import agreement_figures, estimated_figures, total_variation
from dp_assets.evaluation.vote_posterior import vote_posterior
from dp_assets.selection.resample import quotas

NUM_BINS, UNITS, NOISE, ROUNDS = 60, 3000, 10.0, 20


def corpus(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Exact votes, and a pool's rows in each bin, whose ratios vary between nothing and several times."""
    pool = generator.multinomial(4000, generator.dirichlet(np.full(NUM_BINS, 5.0)))
    wanted = pool * generator.gamma(1.2, size=NUM_BINS) * (generator.random(NUM_BINS) < 0.8)
    return generator.multinomial(UNITS, wanted / wanted.sum()), pool


@pytest.fixture(scope="module")
def measured() -> dict[str, np.ndarray]:
    """Exact, noisy and estimated total variation and whether the interval holds, for both sets, (rounds, 2)."""
    generator = np.random.default_rng(0)
    rows: dict[str, list[list[float]]] = {name: [] for name in ("exact", "noisy", "estimated", "hit")}
    for seed in range(ROUNDS):
        exact, pool = corpus(generator)
        votes = np.rint(exact + generator.normal(0, NOISE, NUM_BINS)).astype(np.int64)
        posterior = vote_posterior(votes, noise_stddev=NOISE, unvoted_counts=pool, seed=seed)
        for name in rows:
            rows[name].append([])
        for counts in (pool, quotas(votes, target_size=1000)):
            true = total_variation(exact / exact.sum(), counts / counts.sum())
            estimate = estimated_figures(counts, posterior)["total_variation"]
            bins = np.repeat(np.arange(NUM_BINS), counts)
            rows["exact"][-1].append(true)
            rows["noisy"][-1].append(agreement_figures(bins, votes, noise_stddev=NOISE)["total_variation"])
            rows["estimated"][-1].append(estimate.value)
            rows["hit"][-1].append(estimate.low <= true <= estimate.high)
    return {name: np.array(values) for name, values in rows.items()}


def test_the_interval_holds_the_exact_distance_nearly_as_often_as_it_says(measured: dict[str, np.ndarray]) -> None:
    # A true rate of 0.93 gives fewer than 32 hits of 40 in one run of 1,000, if rounds are independent.
    assert measured["hit"].sum() >= 32


def test_the_estimate_errs_by_little_and_not_in_favor_of_a_set_made_to_the_noise(
    measured: dict[str, np.ndarray],
) -> None:
    exact, noisy, estimated = (measured[name][:, 1].mean() for name in ("exact", "noisy", "estimated"))
    assert noisy < 0.6 * exact
    assert exact - 0.01 < estimated < exact + 0.02


def test_the_estimate_is_right_on_average_for_a_set_that_did_not_look(measured: dict[str, np.ndarray]) -> None:
    exact, estimated = (measured[name][:, 0].mean() for name in ("exact", "estimated"))
    assert estimated == pytest.approx(exact, rel=0.05)


def test_without_noise_the_estimate_is_the_exact_distance_and_the_interval_a_point() -> None:
    exact, pool = corpus(np.random.default_rng(3))
    posterior = vote_posterior(exact, noise_stddev=0.0, unvoted_counts=pool, seed=0)
    estimate = estimated_figures(pool, posterior)["total_variation"]
    assert estimate.low == estimate.high == estimate.value
    assert estimate.value == pytest.approx(total_variation(exact / exact.sum(), pool / pool.sum()))


def test_more_noise_gives_a_wider_interval() -> None:
    exact, pool = corpus(np.random.default_rng(4))
    widths = []
    for noise in (2.0, 30.0):
        votes = np.rint(exact + np.random.default_rng(5).normal(0, noise, NUM_BINS)).astype(np.int64)
        posterior = vote_posterior(votes, noise_stddev=noise, unvoted_counts=pool, seed=0)
        estimate = estimated_figures(pool, posterior)["total_variation"]
        widths.append(estimate.high - estimate.low)
    assert widths[1] > 2 * widths[0]


def test_every_draw_is_a_distribution_even_where_noise_has_swallowed_the_votes() -> None:
    for votes in (np.array([-9, -3, -40, 2]), np.array([0, 0, 0, 0]), np.array([500, -3, 0, 7])):
        shares = vote_posterior(votes, noise_stddev=10.0, unvoted_counts=np.array([5, 0, 3, 1]), seed=0).shares
        assert np.isfinite(shares).all()
        assert (shares >= 0).all()
        np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_the_public_seed_decides_the_draws() -> None:
    exact, pool = corpus(np.random.default_rng(6))
    first, again, other = (
        vote_posterior(exact, noise_stddev=5.0, unvoted_counts=pool, seed=seed).shares for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("counts", "noise"), [([1, 2], 5.0), ([1, 2, 3], -1.0)])
def test_counts_of_other_bins_and_negative_noise_are_refused(counts: list[int], noise: float) -> None:
    with pytest.raises(ValueError, match="unvoted_counts must hold"):
        vote_posterior(np.array([1, 2, 3]), noise_stddev=noise, unvoted_counts=np.array(counts), seed=0)
