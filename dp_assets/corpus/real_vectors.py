"""From `real_instructions` to `real_embeddings`: vectors of the training rows, in the memory of one batch of them.

Each row is embedded by itself and keeps its place, so how rows are cut into batches decides nothing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.artifacts import TRAIN_SPLIT

ROWS_IN_A_BATCH = 8_192  # whole chunks of the embedder's: the last batch of each length in a chunk is computed in full
UNIT_COLUMNS = ("unit_id", "instruction_id", "cohort", "split")

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


def embed_training_rows(rows: pl.LazyFrame, *, encode: Encode, folder: Path) -> pl.LazyFrame:
    """The training rows with their vectors, put into `folder`, an empty one of the private zone, as they come.

    `encode` gives float32 vectors of shape (texts, d), each from its own text to the last bit (see `require_alone`).
    """
    training = rows.filter(pl.col("split") == TRAIN_SPLIT).select(*UNIT_COLUMNS, "text")
    _write(training.head(0).collect(), encode, folder / "none.parquet")
    for number, batch in enumerate(training.collect_batches(chunk_size=ROWS_IN_A_BATCH)):
        _write(batch, encode, folder / f"{number:09d}.parquet")
    return pl.scan_parquet(folder / "*.parquet")


def _write(batch: pl.DataFrame, encode: Encode, file: Path) -> None:
    vectors = pl.Series("vector", encode(batch["text"].to_list()))
    batch.select(*UNIT_COLUMNS, vectors).write_parquet(file)
