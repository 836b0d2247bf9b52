"""Rules: each meets the target exactly, as the votes say, whatever the order of the pool."""

from typing import get_args

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from dp_assets.selection.bins import nearest_bin
from dp_assets.selection.histogram import NoisyHistogram
from dp_assets.selection.resample import LOG_WEIGHT, NoPositiveVotes, quotas, resample, resample_exactly
from dp_assets.selection.rules import RuleResult, apply_rule
from dp_assets.vocabulary import Rule

RNG = np.random.default_rng(0)
CENTROIDS = RNG.normal(size=(12, 4)).astype(np.float32)
VECTORS = RNG.normal(size=(400, 4)).astype(np.float32)
BINS = nearest_bin(VECTORS, CENTROIDS)
VOTES = np.array([90, -7, 40, 3, 12, 0, 55, 8, -2, 31, 17, 20], dtype=np.int64)


def applied(
    rule: Rule, votes: npt.NDArray[np.int64] = VOTES, *, noise: float = 5.0, target_size: int = 100
) -> RuleResult:
    return apply_rule(
        rule,
        NoisyHistogram(votes, noise),
        bins=BINS,
        vectors=[VECTORS],
        centroids=CENTROIDS,
        target_size=target_size,
    )


def pool_of(log_weights: npt.NDArray[np.float64]) -> pl.DataFrame:
    ids = [f"pool-{row:06d}" for row in range(len(BINS))]
    return pl.DataFrame({"synthetic_id": ids, "bin_id": BINS, LOG_WEIGHT: log_weights})


@pytest.mark.parametrize("rule", get_args(Rule))
@pytest.mark.parametrize("target_size", [1, 37, 400])
def test_every_rule_meets_the_target_exactly(rule: Rule, target_size: int) -> None:
    asked = applied(rule, target_size=target_size)
    assert asked.quotas.sum() == target_size
    assert (asked.quotas >= 0).all()
    pool = pool_of(asked.log_weights)
    assert resample_exactly(pool, quotas=asked.quotas, target_size=target_size, seed=0).rows.height == target_size


def test_the_papers_rule_takes_the_positive_votes_as_they_are_and_rows_uniformly() -> None:
    asked = applied("paper")
    assert asked.quotas.tolist() == quotas(VOTES, target_size=100).tolist()
    assert not asked.log_weights.any()
    assert asked.figures == {"rule": "paper"}


def test_both_rules_agree_without_noise() -> None:
    exact = VOTES.clip(0)
    smoothed, paper = (applied(rule, exact, noise=0.0).quotas for rule in get_args(Rule))
    assert smoothed.tolist() == paper.tolist()


def test_the_smoothed_rule_says_what_it_chose() -> None:
    figures = applied("smoothed").figures
    assert figures["rule"] == "smoothed"
    assert "smoothing_distance" in figures


def test_the_order_of_the_pool_does_not_matter() -> None:
    asked, order = applied("smoothed"), np.random.default_rng(1).permutation(len(BINS))
    other = apply_rule(
        "smoothed",
        NoisyHistogram(VOTES, 5.0),
        bins=BINS[order],
        vectors=[VECTORS[order]],
        centroids=CENTROIDS,
        target_size=100,
    )
    assert other.quotas.tolist() == asked.quotas.tolist()
    rows = resample(pool_of(asked.log_weights), quotas=asked.quotas, seed=3).rows
    shuffled = resample(pool_of(asked.log_weights)[order.tolist()], quotas=asked.quotas, seed=3).rows
    assert rows.equals(shuffled)


@pytest.mark.parametrize("rule", get_args(Rule))
def test_votes_of_which_none_is_positive_are_refused(rule: Rule) -> None:
    with pytest.raises(NoPositiveVotes):
        applied(rule, -np.abs(VOTES))


def test_rows_are_drawn_in_proportion_to_their_weights() -> None:
    """Draws of one row out of two with chances 3 to 1: 2,000 draws lie within 5 standard deviations (49) of 1,500."""
    pool = pl.DataFrame({"synthetic_id": ["a", "b"], "bin_id": [0, 0], LOG_WEIGHT: [np.log(3.0), 0.0]})
    one = np.ones(1, dtype=np.int64)
    drawn = [resample(pool, quotas=one, seed=seed).rows["synthetic_id"].item() for seed in range(2000)]
    assert abs(drawn.count("a") - 1500) < 5 * np.sqrt(2000 * 0.75 * 0.25)


def test_a_larger_quota_adds_rows_to_those_of_a_smaller_one() -> None:
    pool = pool_of(VECTORS[:, 0].astype(np.float64))
    few, many = (resample(pool, quotas=np.full(12, size), seed=2).rows for size in (3, 9))
    assert set(few["synthetic_id"]) < set(many["synthetic_id"])
