"""Embeds the training rows of `real_instructions` as `real_embeddings`, in the memory of one batch.

Each row is embedded by itself and the order is kept, so the batch size has no effect. Before private rows are read, a
test on public rows checks that no unit affects another's vectors.
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

ROWS_IN_A_BATCH = 8_192  # whole chunks of the embedder, which computes the last batch of each length in a chunk in full
UNIT_COLUMNS = ("unit_id", "instruction_id", "cohort", "split")

PUBLIC_UNITS = {
    "a": (("how do i boil an egg?", TRAIN_SPLIT), ("what is a prime number?", TRAIN_SPLIT)),
    "b": (("how do i boil an egg?", TRAIN_SPLIT),),
    "c": (("How do I boil an egg?", TRAIN_SPLIT), ("what is a prime number?", "test")),
    "d": (("write a long letter to my landlord about the heating", TRAIN_SPLIT),),
}

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


def embed_training_rows(rows: pl.LazyFrame, *, encode: Encode, folder: Path) -> pl.LazyFrame:
    """Return the training rows with their vectors, written batch by batch to `folder`.

    `folder` is an empty one of the private zone. `encode` returns float32 vectors of shape (texts, d). Each must depend
    on its own text only, to the last bit (see `require_alone`).
    """
    training = rows.filter(pl.col("split") == TRAIN_SPLIT).select(*UNIT_COLUMNS, "text")
    _write(training.head(0).collect(), encode, folder / "none.parquet")
    for number, batch in enumerate(training.collect_batches(chunk_size=ROWS_IN_A_BATCH)):
        _write(batch, encode, folder / f"{number:09d}.parquet")
    return pl.scan_parquet(folder / "*.parquet")


def require_units_apart(embed: Callable[..., pl.LazyFrame]) -> None:
    """Require that `embed(rows, folder=...)` returns for all public units together what it returns for each alone.

    Some of the units have equal texts.

    Raises:
      UnstablePreparation: the results differ, or a training row is missing.
    """
    rows = pl.DataFrame(
        [
            (unit_id, f"{unit_id}-{index}", text, "all", split, None)
            for unit_id, texts in PUBLIC_UNITS.items()
            for index, (text, split) in enumerate(texts)
        ],
        schema=REAL_INSTRUCTIONS,
        orient="row",
    )
    together = _collected(embed, rows)
    alone = pl.concat([_collected(embed, unit) for unit in rows.partition_by("unit_id")])
    training_ids = rows.filter(pl.col("split") == TRAIN_SPLIT)["instruction_id"].sort()
    if not together.equals(alone) or not together["instruction_id"].equals(training_ids):
        raise UnstablePreparation("the vectors of a unit's rows depend on the rows of other units")


def _collected(embed: Callable[..., pl.LazyFrame], rows: pl.DataFrame) -> pl.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        return embed(rows.lazy(), folder=Path(folder)).collect().sort("instruction_id")


def _write(batch: pl.DataFrame, encode: Encode, file: Path) -> None:
    vectors = pl.Series("vector", encode(batch["text"].to_list()))
    batch.select(*UNIT_COLUMNS, vectors).write_parquet(file)
