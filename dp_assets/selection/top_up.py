"""Topping up: drawing more samples from the generator for the bins whose rows do not meet their quotas.

The generator is released and the quotas come from released votes, so this costs no privacy. A sample's bin cannot be
asked for; samples are drawn as the pool was and kept only where they fall into a short bin, until a public budget is
used up.

Left out: prompting the generator with rows of the short bin, which would reach rare bins with fewer samples.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.selection.bins import NO_BIN, nearest_bin

Draw = Callable[[int, int], list[str]]
Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]

ORIGIN = "top_up"
COLUMNS = pl.Schema({"synthetic_id": pl.String(), "text": pl.String(), "bin_id": pl.Int64(), "origin": pl.String()})


@dataclass(frozen=True)
class TopUp:
    """New rows (`synthetic_id` topup-000001 and on, `text`, `bin_id`, `origin`) and how many samples were drawn."""

    rows: pl.DataFrame
    num_drawn: int


def top_up(
    shortage: npt.NDArray[np.int64],
    *,
    draw: Draw,
    embed: Embed,
    centroids: npt.NDArray[np.float32],
    existing_texts: Iterable[str],
    max_samples: int,
    batch: int,
    seed: int,
) -> TopUp:
    """Draw batches until no bin is short or `max_samples` were drawn.

    Args:
      shortage: rows that each bin lacks, int64 (num_bins,).
      draw: of (number of samples, public seed); may return fewer texts.
      embed: float32 (number of texts, d) of texts, in the space of the centroids.
      centroids: float32 (num_bins, d).
      existing_texts: texts that must not come again.
      max_samples: the public budget of samples.
      batch: samples drawn between two looks at the shortage.
      seed: public; every batch gets a seed of its own, unrelated to small seeds used elsewhere.
    """
    lacking, seen, kept = shortage.copy(), set(existing_texts), list[tuple[str, int]]()
    num_drawn = 0
    while lacking.any() and num_drawn < max_samples:
        size = min(batch, max_samples - num_drawn)
        texts = _new_texts(draw(size, _batch_seed(seed, num_drawn)), seen)
        num_drawn += size
        kept += _keep_for_short_bins(texts, lacking, embed=embed, centroids=centroids)
    rows = [(f"topup-{number:06d}", text, bin_id, ORIGIN) for number, (text, bin_id) in enumerate(kept, start=1)]
    return TopUp(pl.DataFrame(rows, schema=COLUMNS, orient="row"), num_drawn)


def _new_texts(texts: Iterable[str], seen: set[str]) -> list[str]:
    """The texts that were not seen, once each; they count as seen from now on."""
    new = [text for text in dict.fromkeys(texts) if text not in seen]
    seen.update(new)
    return new


def _keep_for_short_bins(
    texts: Sequence[str], lacking: npt.NDArray[np.int64], *, embed: Embed, centroids: npt.NDArray[np.float32]
) -> list[tuple[str, int]]:
    """(text, bin) of the texts that a short bin still needs, in their order; `lacking` is counted down."""
    kept = list[tuple[str, int]]()
    bins = nearest_bin(embed(texts), centroids).tolist() if texts else []
    for text, bin_id in zip(texts, bins, strict=True):
        if bin_id != NO_BIN and lacking[bin_id] > 0:
            lacking[bin_id] -= 1
            kept.append((text, bin_id))
    return kept


def _batch_seed(seed: int, num_drawn: int) -> int:
    """The pool may have been drawn with the same small seed; drawing its rows again would add nothing new."""
    return int(np.random.SeedSequence((seed, num_drawn)).generate_state(1)[0])
