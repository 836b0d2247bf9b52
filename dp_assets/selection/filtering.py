"""The filter of the paper as one step: quotas from noisy votes, a top-up of short bins, and an exact resample."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.selection.resample import Resampled, quotas, resample_exactly, shortages
from dp_assets.selection.top_up import COLUMNS, Draw, Embed, TopUp, top_up


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
    steered_top_up: bool,
    seed: int,
) -> Filtered:
    """Exactly `target_size` rows in proportion to the noisy votes, as far as the pool and `top_up_samples` reach.

    Args:
      pool: `synthetic_id`, `text`, `bin_id`, `origin`.
      noisy_votes: int64 (num_bins,).
      centroids: float32 (num_bins, d).
      draw, embed: see `top_up`.
      top_up_samples: the most samples to draw for short bins.
      steered_top_up: whether these are aimed at the short bins.
      seed: public.

    Raises:
      NoPositiveVotes: no noisy vote is positive.
      PoolTooSmall: pool and top-up together have fewer than `target_size` rows.
    """
    wanted = quotas(noisy_votes, target_size=target_size)
    short = shortages(pool, quotas=wanted)
    added = top_up(
        pool,
        shortage=short,
        draw=draw,
        embed=embed,
        centroids=centroids,
        max_samples=top_up_samples,
        steered=steered_top_up,
        seed=seed,
    )
    candidates = pl.concat([pool.select(COLUMNS.names()), added.rows])
    chosen = resample_exactly(candidates, quotas=wanted, target_size=target_size, seed=seed)
    return Filtered(chosen.rows, _figures(chosen, short, added))


def _figures(chosen: Resampled, short: npt.NDArray[np.int64], added: TopUp) -> dict[str, int]:
    """Rows and bins that were and are short, samples drawn and kept by strategy, and where the chosen rows are from."""
    origins = chosen.rows["origin"].value_counts().sort("origin").iter_rows()
    return {
        "dagster/row_count": chosen.rows.height,
        "shortage_before_top_up": int(short.sum()),
        "shortage_after_top_up": int(chosen.shortage.sum()),
        "bins_short_before_top_up": int((short > 0).sum()),
        "bins_short_after_top_up": int((chosen.shortage > 0).sum()),
        "bins_given_up": len(added.given_up),
        "top_up_rows": added.rows.height,
        "top_up_samples_drawn": added.num_drawn,
        "top_up_copies_dropped": added.copies,
        **{f"top_up_drawn_{strategy}": number for strategy, number in added.drawn.items()},
        **{f"top_up_kept_{strategy}": number for strategy, number in added.kept.items()},
        **{f"rows_from_{origin}": number for origin, number in origins},
    }
