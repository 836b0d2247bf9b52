"""Rows that arrive in batches, put down as Parquet files of a private folder and scanned from there.

One batch is held at a time, so a source of any length takes the memory of a batch.
"""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from dp_assets.corpus.schemas import SCANNED_ROWS

ROWS_IN_A_BATCH = 5_000


def spool(batches: Iterable[pl.DataFrame], folder: Path) -> None:
    """Write each batch, with the columns of `SCANNED_ROWS`, to a file of its own; the folder holds a source's rows."""
    pl.DataFrame(schema=SCANNED_ROWS).write_parquet(folder / "none.parquet")
    for number, batch in enumerate(batches):
        batch.write_parquet(folder / f"{number:09d}.parquet")


def spooled(folder: Path) -> pl.LazyFrame:
    """The rows of a folder that `spool` filled."""
    return pl.scan_parquet(folder / "*.parquet", schema=SCANNED_ROWS)
