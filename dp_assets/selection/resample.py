"""Resampling: from noisy votes to the number of synthetic rows of each bin, and to the rows.

This follows the paper's Algorithm 2 ("Resample Synthetic Data with DP Histogram"), as the released code computes it
(`benchmarks/paper_rule.py`), with two differences. Both are post-processing of the same votes.

- Shares are fractions of the noisy total, because the true number of units is private.
- Quotas are rounded by largest remainders, and shortages go to other bins. So the result has exactly the target size;
  the paper's does not.

This module has the paper's shares and the draw of rows. See `smoothing` for estimating shares from noisy votes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.arrays import Integers

LOG_WEIGHT = "log_weight"
WEIGHT_PARTS = 2.0**32
"""The resolution of weights: multiplied by a target size and summed over the bins, they stay within 64 bits."""


class NoPositiveVotes(ValueError):
    """No bin has a positive noisy vote, so the votes do not say which bins the rows should come from."""


class PoolTooSmall(ValueError):
    """The pool has fewer rows than the target size."""


@dataclass(frozen=True)
class Resampled:
    """Rows drawn from the pool, sorted by `synthetic_id`, and the rows that each bin lacks to meet its quota."""

    rows: pl.DataFrame
    shortage: Integers


def quotas(noisy_votes: Integers, *, target_size: int) -> Integers:
    """Return the quota of each bin, int64 (num_bins,): proportional to the positive noisy votes, of sum `target_size`.

    Raises:
      NoPositiveVotes: every vote is zero or negative.
    """
    require_positive_votes(noisy_votes)
    return largest_remainder(noisy_votes.clip(min=0), total=target_size)


def require_positive_votes(noisy_votes: Integers) -> None:
    """Check that at least one vote is positive.

    Raises:
      NoPositiveVotes: every vote is zero or negative.
    """
    if not (noisy_votes > 0).any():
        raise NoPositiveVotes(
            "every noisy vote is zero or negative: the noise hides the corpus; plan fewer bins, a smaller noise_stddev"
            " (a larger target epsilon), or use a corpus with more units"
        )


def split_exactly(weights: npt.NDArray[np.float64], *, total: int) -> Integers:
    """Return `largest_remainder` for real weights, which are rounded to multiples of 2^-32 of the largest."""
    return largest_remainder(np.rint(weights / weights.max() * WEIGHT_PARTS).astype(np.int64), total=total)


def largest_remainder(weights: Integers, *, total: int) -> Integers:
    """Split `total` into integers proportional to non-negative integer `weights`, not all zero. Their sum is `total`.

    What rounding down leaves over goes to the largest remainders, one each; of equal ones, to the lower index first.
    """
    shares, remainders = np.divmod(total * weights.astype(np.int64), weights.sum())
    most_lost = np.argsort(-remainders, kind="stable")[: total - shares.sum()]
    shares[most_lost] += 1
    return shares


def resample(pool: pl.DataFrame, *, quotas: Integers, seed: int) -> Resampled:
    """Draw each bin's quota of rows without replacement, or all its rows if there are fewer.

    Each next row of a bin is drawn with probability proportional to its weight among the remaining rows (Efraimidis and
    Spirakis, 2006, as the largest values of log weight + Gumbel noise). Without weights the draw is uniform.

    Args:
      pool: `synthetic_id` (distinct), `bin_id`, optionally `log_weight` (Float64), and other columns, which are kept.
        The order does not matter.
      quotas: rows to draw from each bin, int64 (num_bins,).
      seed: public. With the same seed, a larger quota adds rows to those of a smaller one.
    """
    ordered = pool.sort("synthetic_id")
    bins = ordered["bin_id"].to_numpy()
    log_weights = ordered[LOG_WEIGHT].to_numpy() if LOG_WEIGHT in ordered.columns else 0.0
    keys = np.random.default_rng(seed).gumbel(size=len(bins)) + log_weights
    draw = pl.DataFrame({"bin_id": bins, "key": -keys})
    place_in_bin = draw.select(pl.col("key").rank("ordinal").over("bin_id"))["key"].to_numpy()
    return Resampled(ordered.filter(place_in_bin <= quotas[bins]), shortages(pool, quotas=quotas))


def resample_exactly(pool: pl.DataFrame, *, quotas: Integers, target_size: int, seed: int) -> Resampled:
    """Draw exactly `target_size` rows: like `resample`, but bins with spare rows make up for what short bins lack.

    `shortage` is still relative to each bin's own quota.

    Raises:
      PoolTooSmall: the pool has fewer than `target_size` rows.
      ValueError: the quotas ask for more than `target_size` rows.
    """
    if pool.height < target_size:
        raise PoolTooSmall(
            f"the pool has {pool.height} rows and target_size is {target_size};"
            " sample a larger synthetic pool, allow more samples for the top-up, or lower target_size"
        )
    if quotas.sum() > target_size:
        raise ValueError(f"the quotas ask for {quotas.sum()} rows, more than target_size, {target_size}")
    takes = spread_shortage(quotas, rows_in_bins(pool, num_bins=len(quotas)), target_size=target_size)
    return Resampled(resample(pool, quotas=takes, seed=seed).rows, shortages(pool, quotas=quotas))


def spread_shortage(quotas: Integers, available: Integers, *, target_size: int) -> Integers:
    """Return the rows to take from each bin, of sum `target_size`: between min(quota, available) and `available`.

    Missing rows go to bins with spare rows, in proportion to their quotas; or in proportion to their spare rows, if
    only bins without a quota have any. A round that fills no bin places all missing rows, so there are at most
    num_bins + 1 rounds.
    """
    takes = np.minimum(quotas, available)
    while missing := int(target_size - takes.sum()):
        spare = available - takes
        weights = np.where(spare > 0, quotas, 0)
        takes = takes + np.minimum(largest_remainder(weights if weights.any() else spare, total=missing), spare)
    return takes


def shortages(pool: pl.DataFrame, *, quotas: Integers) -> Integers:
    """Return the rows that each bin of the pool lacks to meet its quota, int64 (num_bins,)."""
    return (quotas - rows_in_bins(pool, num_bins=len(quotas))).clip(min=0)


def rows_in_bins(pool: pl.DataFrame, *, num_bins: int) -> Integers:
    """Return the number of rows of the pool in each bin, int64 (num_bins,)."""
    return np.bincount(pool["bin_id"].to_numpy(), minlength=num_bins).astype(np.int64)
