"""The paper's filter as one step: quotas from noisy votes, a top-up of short bins, and resampling to an exact size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from dp_assets.arrays import Integers, Vectors
from dp_assets.selection.histogram import NoisyHistogram
from dp_assets.selection.resample import LOG_WEIGHT, Resampled, resample_exactly, shortages
from dp_assets.selection.rules import apply_rule
from dp_assets.selection.settings import SelectionSettings
from dp_assets.selection.top_up import COLUMNS, Draw, Embed, TopUp, top_up


@dataclass(frozen=True)
class Filtered:
    """The selected `rows` (`synthetic_id`, `text`, `bin_id`, `origin`), and public `figures` about the selection."""

    rows: pl.DataFrame
    figures: Mapping[str, int | float | str]


def filter_pool(
    pool: pl.DataFrame,
    histogram: NoisyHistogram,
    settings: SelectionSettings,
    *,
    vectors: Iterable[Vectors],
    centroids: Vectors,
    draw: Draw,
    embed: Embed,
) -> Filtered:
    """Select exactly `target_size` rows of pool and top-up, by the quotas that the rule derives from the noisy votes.

    Rows of the top-up belong to short bins, so they need no weight among the rows of their bin.

    Args:
      pool: `synthetic_id`, `text`, `bin_id`, `origin`.
      histogram: the noisy votes.
      settings: the rule, the target size and the limits of the top-up.
      vectors: of the rows of the pool, in its order, in blocks of float32 (n, d).
      centroids: float32 (num_bins, d).
      draw, embed: see `top_up`.

    Raises:
      NoPositiveVotes: no noisy vote is positive.
      PoolTooSmall: pool and top-up together have fewer than `target_size` rows.
    """
    result = apply_rule(
        settings.rule,
        histogram,
        bins=pool["bin_id"].to_numpy(),
        vectors=vectors,
        centroids=centroids,
        target_size=settings.target_size,
    )
    short = shortages(pool, quotas=result.quotas)
    added = top_up(
        pool,
        shortage=short,
        draw=draw,
        embed=embed,
        centroids=centroids,
        max_samples=settings.top_up_samples,
        steered=settings.steered_top_up,
        seed=settings.seed,
    )
    weighted = pool.select(*COLUMNS.names(), pl.Series(LOG_WEIGHT, result.log_weights))
    candidates = pl.concat([weighted, added.rows.with_columns(pl.lit(0.0).alias(LOG_WEIGHT))])
    chosen = resample_exactly(candidates, quotas=result.quotas, target_size=settings.target_size, seed=settings.seed)
    return Filtered(chosen.rows.drop(LOG_WEIGHT), {**result.figures, **_figures(chosen, short, added)})


def _figures(chosen: Resampled, short: Integers, added: TopUp) -> dict[str, int]:
    """Return shortages before and after the top-up, samples drawn and kept by strategy, and chosen rows by origin."""
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
