"""Vectors of a table, read block by block, so that a pool of a million rows is never in memory as a whole.

The order of a table is that of its stored shards. So the same stored table gives the same blocks and the same sample.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.selection.bins import nearest_bin

BLOCK_ROWS = 8192


def blocks(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows in their order, at most `BLOCK_ROWS` at a time."""
    yield from rows.collect_batches(chunk_size=BLOCK_ROWS, maintain_order=True, engine="streaming")


def assigned(rows: pl.LazyFrame, centroids: npt.NDArray[np.float32]) -> pl.DataFrame:
    """Return `synthetic_id` and `bin_id` (see `nearest_bin`) of rows with `synthetic_id` and `vector`, in order."""
    named = pl.DataFrame(schema={"synthetic_id": pl.String, "bin_id": pl.Int64})
    of_blocks = [
        block.select("synthetic_id", bin_id=nearest_bin(block["vector"].to_numpy(), centroids))
        for block in blocks(rows.select("synthetic_id", "vector"))
    ]
    return pl.concat([named, *of_blocks])


def vectors_of(rows: pl.LazyFrame) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the vectors of the rows in their order, in blocks of shape (n, d)."""
    for block in blocks(rows.select("vector")):
        yield block["vector"].to_numpy()


def sampled_vectors(rows: pl.LazyFrame, *, most: int, seed: int) -> npt.NDArray[np.float32]:
    """Return the vectors of at most `most` rows, float32 (min(most, number of rows), d), in their order.

    The rows are sampled uniformly without replacement with a public seed.
    """
    vectors = rows.select("vector")
    height = vectors.select(pl.len()).collect().item()
    if height <= most:
        return _matrix(vectors.collect())
    is_drawn = np.zeros(height, dtype=np.bool_)
    is_drawn[np.random.default_rng(seed).choice(height, size=most, replace=False)] = True
    return np.concatenate([_matrix(kept) for kept in _kept(vectors, is_drawn)])


def _kept(rows: pl.LazyFrame, is_kept: npt.NDArray[np.bool_]) -> Iterator[pl.DataFrame]:
    start = 0
    for block in blocks(rows):
        yield block.filter(pl.Series(is_kept[start : start + block.height]))
        start += block.height


def _matrix(rows: pl.DataFrame) -> npt.NDArray[np.float32]:
    vectors: npt.NDArray[np.float32] = rows["vector"].to_numpy()
    return vectors
