"""Exact votes of the real units, before noise.

Guarantee: each unit casts at most one integer vote, whatever its rows are and however many. So adding or removing one
unit changes one bin by at most one: L1 and L2 sensitivity 1. A keyed hash, not the order of rows, determines which row
of a unit votes.

Exact votes are private. They are a local value of the mechanism that adds noise, and nothing else may read them.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.privacy.units import keyed_hash
from dp_assets.selection.bins import BLOCK_ROWS, NO_BIN, nearest_bin

NO_VOTES = pl.DataFrame(schema={"unit_id": pl.String(), "instruction_id": pl.String(), "bin_id": pl.Int64()})


def exact_votes(
    vectors: pl.DataFrame | pl.LazyFrame,
    centroids: npt.NDArray[np.float32],
    *,
    key: bytes,
    ballots: list[tuple[str, int]] | None = None,
) -> npt.NDArray[np.int64]:
    """Return the number of votes for each bin, int64 of shape (num_bins,). Private.

    - One row of each unit, chosen by its keyed hash alone, votes for its nearest centroid.
    - If the vector of that row is null or not finite, the unit does not vote. The bound holds, and a private row cannot
      cause an error.
    - A `LazyFrame` is read once, block by block. Only the ids and the bin of a unit are kept.

    Args:
      vectors: `unit_id`, `instruction_id` and `vector` (Array(Float32, d)), one row for each instruction.
      centroids: the bins, float32 of shape (num_bins, d).
      key: the private zone's key, 1 to 64 bytes.
      ballots: a list to which the counted votes are appended, each a unit id and a bin, for the evidence. Private.
    """
    blocks = vectors.lazy().collect_batches(chunk_size=BLOCK_ROWS)
    cast = pl.concat([NO_VOTES, *(_votes_of_block(block, centroids, key=key) for block in blocks)])
    voting = one_row_each_unit(cast, key=key).filter(pl.col("bin_id") != NO_BIN)
    if ballots is not None:
        ballots.extend(voting.select("unit_id", "bin_id").iter_rows())
    return np.bincount(voting["bin_id"].to_numpy(), minlength=len(centroids)).astype(np.int64)


def _votes_of_block(block: pl.DataFrame, centroids: npt.NDArray[np.float32], *, key: bytes) -> pl.DataFrame:
    """Return the bin of each unit's row with the least hash in this block. Another block may have a lesser one."""
    candidates = one_row_each_unit(block, key=key)
    is_given = candidates["vector"].is_not_null()
    bins = np.full(len(candidates), NO_BIN, dtype=np.int64)
    bins[is_given.to_numpy()] = nearest_bin(candidates["vector"].filter(is_given).to_numpy(), centroids)
    return candidates.select("unit_id", "instruction_id", bin_id=pl.Series(bins))


def one_row_each_unit(vectors: pl.DataFrame, *, key: bytes) -> pl.DataFrame:
    """Return for each unit the row with the least keyed hash of unit id and instruction id."""
    ids = vectors.select("unit_id", "instruction_id").iter_rows()
    hashes = pl.Series("vote_hash", [keyed_hash(key, "vote", unit, row) for unit, row in ids], dtype=pl.String)
    return vectors.with_columns(hashes).sort("vote_hash").unique("unit_id", keep="first", maintain_order=True)
