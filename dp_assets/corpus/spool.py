"""Writes rows that arrive in batches to Parquet files of a private folder, and scans them from there.

Memory holds one batch at a time, for a source of any length.
"""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from dp_assets.corpus.schemas import SCANNED_ROWS

ROWS_IN_A_BATCH = 5_000


def spool(batches: Iterable[pl.DataFrame], folder: Path) -> None:
    """Write each batch, with the columns of `SCANNED_ROWS`, to a file of its own in a source's folder."""
    pl.DataFrame(schema=SCANNED_ROWS).write_parquet(folder / "none.parquet")
    for number, batch in enumerate(batches):
        batch.write_parquet(folder / f"{number:09d}.parquet")


def spooled(folder: Path) -> pl.LazyFrame:
    """Return the rows of a folder that `spool` filled."""
    return pl.scan_parquet(folder / "*.parquet", schema=SCANNED_ROWS)
