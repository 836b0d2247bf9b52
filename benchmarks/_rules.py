"""What a rule of the product takes from a pool, for benchmarks that compare rules."""

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.selection.resample import LOG_WEIGHT, Counts, resample_exactly
from dp_assets.selection.rules import Rule, wanted_rows


def taken_by(
    rule: Rule,
    votes: Counts,
    *,
    pool: pl.DataFrame,
    vectors: npt.NDArray[np.float32],
    centroids: npt.NDArray[np.float32],
    noise_stddev: float,
    target_size: int,
    seed: int,
) -> tuple[pl.DataFrame, Counts]:
    """Exactly `target_size` rows of `pool` (`synthetic_id`, `bin_id`; `vectors` in its order), and the quotas."""
    wanted = wanted_rows(
        rule,
        votes,
        bins=pool["bin_id"].to_numpy(),
        vectors=[vectors],
        centroids=centroids,
        noise_stddev=noise_stddev,
        target_size=target_size,
    )
    weighted = pool.with_columns(pl.Series(LOG_WEIGHT, wanted.log_weights))
    chosen = resample_exactly(weighted, quotas=wanted.quotas, target_size=target_size, seed=seed)
    return chosen.rows, wanted.quotas
