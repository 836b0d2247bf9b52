"""Exact votes of the real units, before noise.

Guarantee: each unit casts at most one integer vote, whatever and however many its rows are, so adding or removing one
unit changes one bin by at most one: L1 and L2 sensitivity 1. Whose row votes is decided by a keyed hash, not by the
order.

Exact votes are private: a local value of the mechanism that adds noise, and nothing else may see them.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.privacy.units import keyed_hash
from dp_assets.selection.bins import NO_BIN, nearest_bin


def exact_votes(
    vectors: pl.DataFrame, centroids: npt.NDArray[np.float32], *, key: bytes, ballots: Counter[str] | None = None
) -> npt.NDArray[np.int64]:
    """Votes for each bin, int64 of shape (num_bins,). Private.

    One row of each unit, chosen by its hash alone, votes for its nearest centroid. If that row's vector is null or
    not finite, the unit does not vote; the bound holds and nothing fails because of a private row.

    Args:
      vectors: `unit_id`, `instruction_id` and `vector` (Array(Float32, d)), one row an instruction.
      centroids: the bins, float32 of shape (num_bins, d).
      key: the private zone's key, 1 to 64 bytes.
      ballots: takes the votes that are counted, by unit id, for the evidence. Private.
    """
    voting = one_row_each_unit(vectors, key=key).drop_nulls("vector")
    bins = nearest_bin(voting["vector"].to_numpy(), centroids)
    if ballots is not None:
        ballots.update(voting["unit_id"].filter(pl.Series(bins != NO_BIN)))
    return np.bincount(bins[bins != NO_BIN], minlength=len(centroids)).astype(np.int64)


def one_row_each_unit(vectors: pl.DataFrame, *, key: bytes) -> pl.DataFrame:
    """The row of each unit with the least keyed hash of its unit and instruction ids."""
    ids = vectors.select("unit_id", "instruction_id").iter_rows()
    hashes = pl.Series("vote_hash", [keyed_hash(key, "vote", unit, row) for unit, row in ids], dtype=pl.String)
    return vectors.with_columns(hashes).sort("vote_hash").unique("unit_id", keep="first", maintain_order=True)
