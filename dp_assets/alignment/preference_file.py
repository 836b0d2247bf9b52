"""Preference pairs from a public file of the user's own: Parquet, JSONL or gzipped JSONL with prompt, chosen, rejected.

The file is public by the user's word, so what was dropped is counted and said. Left out: conversations as lists of
messages; flatten them to texts first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

COLUMNS = ("prompt", "chosen", "rejected")
FROM_FILE = "file"
READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".jsonl": pl.read_ndjson,
    ".ndjson": pl.read_ndjson,
    ".gz": pl.read_ndjson,
}


class PreferenceFileError(ValueError):
    """The file cannot be read as preference pairs."""


@dataclass(frozen=True)
class FilePairs:
    """`rows` are the pairs, `dropped` counts by reason the rows of the file that gave none."""

    rows: pl.DataFrame
    dropped: Mapping[str, int]


def read_preference_file(path: Path, *, num_pairs: int, seed: int) -> FilePairs:
    """At most `num_pairs` pairs of a file, drawn by `seed`, in the order of the file.

    Rows are dropped if a text is missing or blank ("incomplete"), if chosen and rejected are the same ("same"), if an
    earlier row holds the same three texts ("repeated"), or because there are more than `num_pairs` ("surplus").

    Returns:
      Rows with the columns `synthetic_id` (the row's number in the file), `prompt`, `chosen`, `rejected`,
      `rejected_by`.

    Raises:
      PreferenceFileError: the file is missing, has another format, or lacks a column of texts.
    """
    texts = _texts(path)
    complete = texts.filter(*(pl.col(column).fill_null("") != "" for column in COLUMNS))
    different = complete.filter(pl.col("chosen") != pl.col("rejected"))
    distinct = different.unique(subset=COLUMNS, keep="first", maintain_order=True)
    drawn = np.sort(np.random.default_rng(seed).permutation(distinct.height)[:num_pairs])
    rows = distinct[drawn].select(
        pl.format("file-{}", "row").alias("synthetic_id"), *COLUMNS, rejected_by=pl.lit(FROM_FILE)
    )
    heights = [frame.height for frame in (texts, complete, different, distinct, rows)]
    reasons = ("incomplete", "same", "repeated", "surplus")
    lost = zip(reasons, (before - after for before, after in pairwise(heights)), strict=True)
    return FilePairs(rows, {reason: number for reason, number in lost if number})


def _texts(path: Path) -> pl.DataFrame:
    """The three columns without white space around the texts, and the number of each row."""
    frame = _read(path)
    wrong = [
        f"{column} is {frame.schema.get(column, 'missing')}"
        for column in COLUMNS
        if frame.schema.get(column) != pl.String
    ]
    if wrong:
        raise PreferenceFileError(
            f"preferences.path {str(path)!r} must have the columns {', '.join(COLUMNS)}, all of them texts;"
            f" {'; '.join(wrong)}. Rename or convert them"
        )
    return frame.select(pl.col(COLUMNS).str.strip_chars()).with_row_index("row")


def _read(path: Path) -> pl.DataFrame:
    reader = READERS.get(path.suffix)
    if reader is None or not path.is_file():
        raise PreferenceFileError(
            f"preferences.path {str(path)!r} is no file with one of the endings {', '.join(READERS)}; correct the path"
        )
    try:
        return reader(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise PreferenceFileError(
            f"preferences.path {str(path)!r} cannot be read ({type(error).__name__}); write it again as Parquet or as"
            " one JSON object a line"
        ) from None
