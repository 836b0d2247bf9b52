import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from dp_assets.selection.resample import (
    NoPositiveVotes,
    PoolTooSmall,
    largest_remainder,
    quotas,
    resample,
    resample_exactly,
    rows_in_bins,
    spread_shortage,
)

Counts = npt.NDArray[np.int64]


def ints(*values: int) -> Counts:
    return np.array(values, dtype=np.int64)


def pool_of(counts: Counts) -> pl.DataFrame:
    bins = np.repeat(np.arange(len(counts)), counts)
    ids = [f"pool-{n:06d}" for n in range(len(bins))]
    return pl.DataFrame(
        {"synthetic_id": ids, "text": [f"text {n}" for n in range(len(bins))], "bin_id": bins, "origin": "pool"}
    )


def random_case(seed: int) -> tuple[Counts, Counts, int]:
    """Noisy votes, rows in bins and a target that the pool can reach; bins without votes or rows occur."""
    rng = np.random.default_rng(seed)
    votes = np.concatenate([rng.integers(-20, 60, size=11), [1 + rng.integers(50)]])
    rows = rng.integers(0, 40, size=12) * (rng.random(12) < 0.8)
    rows[0] += 5
    return votes, rows, int(rng.integers(1, rows.sum() + 1))


def test_quotas_are_shares_of_the_noisy_total_by_largest_remainder() -> None:
    """Shares of 10 are 4.375, 0, 1.25, 4.375: one left after rounding down, for the lower of the equal remainders."""
    assert quotas(ints(7, -3, 2, 7), target_size=10).tolist() == [5, 0, 1, 4]


@pytest.mark.parametrize("seed", range(20))
def test_quotas_sum_to_the_target_and_lie_within_one_of_their_share(seed: int) -> None:
    votes, _, target = random_case(seed)
    wanted, positive = quotas(votes, target_size=target), votes.clip(0)
    assert wanted.sum() == target
    assert wanted.dtype == np.int64
    assert (np.abs(wanted - target * positive / positive.sum()) < 1).all()
    assert (wanted[votes <= 0] == 0).all()


def test_large_counts_are_split_exactly() -> None:
    weights = ints(1_000_003, 999_983, 1)
    assert largest_remainder(weights, total=300_000_000).sum() == 300_000_000


@pytest.mark.parametrize("votes", [ints(0, 0), ints(-5, 0, -1)])
def test_votes_without_a_positive_one_are_refused_with_a_remedy(votes: Counts) -> None:
    with pytest.raises(NoPositiveVotes, match="plan fewer bins"):
        quotas(votes, target_size=5)


@pytest.mark.parametrize("seed", range(10))
def test_resampling_takes_the_quota_or_all_there_is_from_each_bin(seed: int) -> None:
    votes, counts, target = random_case(seed)
    wanted, pool = quotas(votes, target_size=target), pool_of(counts)
    result = resample(pool, quotas=wanted, seed=seed)
    assert np.array_equal(rows_in_bins(result.rows, num_bins=12), np.minimum(wanted, counts))
    assert np.array_equal(result.shortage, (wanted - counts).clip(0))
    assert result.rows["synthetic_id"].is_unique().all()
    assert result.rows.join(pool, on=pool.columns, how="anti").is_empty()


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_pool_does_not_change_what_is_drawn(seed: int) -> None:
    votes, counts, target = random_case(seed)
    pool, wanted = pool_of(counts), quotas(votes, target_size=target)
    shuffled = pool.sample(fraction=1, shuffle=True, seed=seed)
    assert resample(pool, quotas=wanted, seed=1).rows.equals(resample(shuffled, quotas=wanted, seed=1).rows)


def test_the_public_seed_decides_what_is_drawn() -> None:
    pool = pool_of(ints(50, 50))
    first, again, other = (resample(pool, quotas=ints(5, 5), seed=seed).rows for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_every_row_of_a_bin_is_drawn_equally_often() -> None:
    pool, draws = pool_of(ints(6, 3)), 600
    drawn = pl.concat([resample(pool, quotas=ints(2, 3), seed=seed).rows for seed in range(draws)])
    counts = drawn.filter(bin_id=0)["synthetic_id"].value_counts()["count"]
    assert len(counts) == 6
    assert (counts - draws / 3).abs().max() < 58  # five standard deviations of a binomial count


@pytest.mark.parametrize("seed", range(20))
def test_an_exact_resample_has_the_target_size_and_meets_every_quota_it_can(seed: int) -> None:
    votes, counts, target = random_case(seed)
    wanted, pool = quotas(votes, target_size=target), pool_of(counts)
    result = resample_exactly(pool, quotas=wanted, target_size=target, seed=seed)
    held = rows_in_bins(result.rows, num_bins=12)
    assert result.rows.height == target
    assert (held >= np.minimum(wanted, counts)).all()
    assert (held <= counts).all()
    assert np.array_equal(result.shortage, (wanted - counts).clip(0))


def test_an_exact_resample_completes_quotas_below_the_target() -> None:
    rows = resample_exactly(pool_of(ints(10, 10, 10)), quotas=ints(6, 2, 0), target_size=12, seed=0).rows
    assert rows.height == 12


def test_a_shortage_goes_to_bins_in_proportion_to_their_quotas() -> None:
    assert spread_shortage(ints(10, 4, 2, 0), ints(1, 99, 99, 99), target_size=16).tolist() == [1, 10, 5, 0]


def test_a_shortage_cascades_when_bins_fill_up() -> None:
    assert spread_shortage(ints(10, 4, 2, 0), ints(1, 5, 99, 99), target_size=16).tolist() == [1, 5, 10, 0]


def test_bins_without_a_quota_give_rows_only_when_no_other_can() -> None:
    assert spread_shortage(ints(10, 4, 0, 0), ints(1, 5, 30, 10), target_size=14).tolist() == [1, 5, 6, 2]


def test_a_pool_under_the_target_is_refused_with_a_remedy() -> None:
    with pytest.raises(PoolTooSmall, match=r"pool has 4 rows and target_size is 5; sample a larger synthetic pool"):
        resample_exactly(pool_of(ints(2, 2)), quotas=ints(4, 1), target_size=5, seed=0)


def test_quotas_over_the_target_are_refused() -> None:
    with pytest.raises(ValueError, match="more than target_size"):
        resample_exactly(pool_of(ints(9, 9)), quotas=ints(4, 4), target_size=5, seed=0)
