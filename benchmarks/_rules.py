"""What a rule of the product takes from a pool, for benchmarks that compare rules."""

import polars as pl

from dp_assets.arrays import Integers, Vectors
from dp_assets.selection.histogram import NoisyHistogram
from dp_assets.selection.resample import LOG_WEIGHT, resample_exactly
from dp_assets.selection.rules import apply_rule
from dp_assets.vocabulary import Rule


def taken_by(
    rule: Rule,
    histogram: NoisyHistogram,
    *,
    pool: pl.DataFrame,
    vectors: Vectors,
    centroids: Vectors,
    target_size: int,
    seed: int,
) -> tuple[pl.DataFrame, Integers]:
    """Exactly `target_size` rows of `pool` (`synthetic_id`, `bin_id`; `vectors` in its order), and the quotas."""
    result = apply_rule(
        rule,
        histogram,
        bins=pool["bin_id"].to_numpy(),
        vectors=[vectors],
        centroids=centroids,
        target_size=target_size,
    )
    weighted = pool.with_columns(pl.Series(LOG_WEIGHT, result.log_weights))
    chosen = resample_exactly(weighted, quotas=result.quotas, target_size=target_size, seed=seed)
    return chosen.rows, result.quotas
