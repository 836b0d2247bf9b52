"""From `real_instructions` to `real_embeddings`: vectors of the training rows, in the memory of one batch of them.

Each row is embedded by itself and keeps its place, so how rows are cut into batches decides nothing. That no unit
changes what becomes of another is tried on public rows before the private ones are read.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.artifacts import TRAIN_SPLIT
from dp_assets.corpus.schemas import REAL_INSTRUCTIONS
from dp_assets.corpus.stability import UnstablePreparation

ROWS_IN_A_BATCH = 8_192  # whole chunks of the embedder's: the last batch of each length in a chunk is computed in full
UNIT_COLUMNS = ("unit_id", "instruction_id", "cohort", "split")

PUBLIC_UNITS = {
    "a": (("how do i boil an egg?", TRAIN_SPLIT), ("what is a prime number?", TRAIN_SPLIT)),
    "b": (("how do i boil an egg?", TRAIN_SPLIT),),
    "c": (("How do I boil an egg?", TRAIN_SPLIT), ("what is a prime number?", "test")),
    "d": (("write a long letter to my landlord about the heating", TRAIN_SPLIT),),
}

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


def require_units_apart(embed: Callable[..., pl.LazyFrame]) -> None:
    """Check that `embed(rows, folder=...)` makes of public units, some of which wrote the same, what it makes of each.

    Raises:
      UnstablePreparation: it does not, or it leaves a row out.
    """
    rows = pl.DataFrame(
        [
            (unit_id, f"{unit_id}-{place}", text, "all", split, None)
            for unit_id, texts in PUBLIC_UNITS.items()
            for place, (text, split) in enumerate(texts)
        ],
        schema=REAL_INSTRUCTIONS,
        orient="row",
    )
    together = _collected(embed, rows)
    alone = pl.concat([_collected(embed, unit) for unit in rows.partition_by("unit_id")])
    kept = rows.filter(pl.col("split") == TRAIN_SPLIT)["instruction_id"].sort()
    if not together.equals(alone) or not together["instruction_id"].equals(kept):
        raise UnstablePreparation("the vectors of a unit's rows depend on the rows of other units")


def _collected(embed: Callable[..., pl.LazyFrame], rows: pl.DataFrame) -> pl.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        return embed(rows.lazy(), folder=Path(folder)).collect().sort("instruction_id")


def _write(batch: pl.DataFrame, encode: Encode, file: Path) -> None:
    vectors = pl.Series("vector", encode(batch["text"].to_list()))
    batch.select(*UNIT_COLUMNS, vectors).write_parquet(file)
