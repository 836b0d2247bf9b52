"""The filter of the paper as one step: quotas from noisy votes, a top-up of short bins, and an exact resample."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.selection.resample import quotas, resample_exactly, shortages
from dp_assets.selection.top_up import COLUMNS, Draw, Embed, top_up

TOP_UP_BATCH = 256


@dataclass(frozen=True)
class Filtered:
    """`rows` (`synthetic_id`, `text`, `bin_id`, `origin`) and public `figures` on how they came about."""

    rows: pl.DataFrame
    figures: Mapping[str, int]


def filter_pool(
    pool: pl.DataFrame,
    *,
    noisy_votes: npt.NDArray[np.int64],
    centroids: npt.NDArray[np.float32],
    draw: Draw,
    embed: Embed,
    target_size: int,
    top_up_samples: int,
    seed: int,
) -> Filtered:
    """Exactly `target_size` rows in proportion to the noisy votes, as far as the pool and `top_up_samples` reach.

    Args:
      pool: `synthetic_id`, `text`, `bin_id`, `origin`.
      noisy_votes: int64 (num_bins,).
      centroids: float32 (num_bins, d).
      draw, embed: see `top_up`.
      top_up_samples: the most samples to draw for short bins.
      seed: public.

    Raises:
      NoPositiveVotes: no noisy vote is positive.
      PoolTooSmall: pool and top-up together have fewer than `target_size` rows.
    """
    wanted = quotas(noisy_votes, target_size=target_size)
    short = shortages(pool, quotas=wanted)
    added = top_up(
        short,
        draw=draw,
        embed=embed,
        centroids=centroids,
        existing_texts=pool["text"],
        max_samples=top_up_samples,
        batch=TOP_UP_BATCH,
        seed=seed,
    )
    candidates = pl.concat([pool.select(COLUMNS.names()), added.rows])
    chosen = resample_exactly(candidates, quotas=wanted, target_size=target_size, seed=seed)
    figures = {
        "dagster/row_count": chosen.rows.height,
        "shortage_before_top_up": int(short.sum()),
        "shortage_after_top_up": int(chosen.shortage.sum()),
        "top_up_rows": added.rows.height,
        "top_up_samples_drawn": added.num_drawn,
    }
    return Filtered(chosen.rows, figures)
