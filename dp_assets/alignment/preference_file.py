"""Preference pairs from a user's public file: Parquet or JSON with the texts prompt, chosen and rejected.

JSON is read row by row (`corpus/text_files.py`), so no type is inferred from the first rows. The user declares the file
public, so the number of dropped rows is shown. Left out: conversations as lists of messages. Flatten them to texts
first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from dp_assets.corpus.text_files import SUFFIXES, BrokenDocument, UnreadableFile, rows_of
from dp_assets.corpus.values import stored_text
from dp_assets.privacy.errors import PublicError

COLUMNS = ("prompt", "chosen", "rejected")
FROM_FILE = "file"
PARQUET = ".parquet"
ENDINGS = (PARQUET, *(suffix for suffix in SUFFIXES if ".csv" not in suffix))


class PreferenceFileError(PublicError, ValueError):
    """The file cannot be read as preference pairs."""


@dataclass(frozen=True)
class FilePairs:
    """`rows` are the pairs; `dropped` counts the rows of the file that gave none, by reason."""

    rows: pl.DataFrame
    dropped: Mapping[str, int]


def read_preference_file(path: Path, *, num_pairs: int, seed: int) -> FilePairs:
    """Return at most `num_pairs` pairs of a file, chosen by `seed`, in the order of the file.

    A row is dropped for one of these reasons:

    - "unreadable": it is no object, or holds a value that is no text.
    - "incomplete": a text is missing or blank.
    - "same": chosen and rejected are equal.
    - "repeated": an earlier row holds the same three texts.
    - "surplus": there are more than `num_pairs` rows.

    Returns:
      Rows with the columns `synthetic_id` (the row's number in the file), `prompt`, `chosen`, `rejected`,
      `rejected_by`.

    Raises:
      PreferenceFileError: the file is missing, has another format, or lacks a column of texts.
    """
    rows_of_file = _texts(path)
    texts = rows_of_file.filter("readable")
    complete = texts.filter(*(pl.col(column).fill_null("") != "" for column in COLUMNS))
    different = complete.filter(pl.col("chosen") != pl.col("rejected"))
    distinct = different.unique(subset=COLUMNS, keep="first", maintain_order=True)
    drawn = np.sort(np.random.default_rng(seed).permutation(distinct.height)[:num_pairs])
    rows = distinct[drawn].select(
        pl.format("file-{}", "row").alias("synthetic_id"), *COLUMNS, rejected_by=pl.lit(FROM_FILE)
    )
    heights = [frame.height for frame in (rows_of_file, texts, complete, different, distinct, rows)]
    reasons = ("unreadable", "incomplete", "same", "repeated", "surplus")
    lost = zip(reasons, (before - after for before, after in pairwise(heights)), strict=True)
    return FilePairs(rows, {reason: number for reason, number in lost if number})


def _texts(path: Path) -> pl.DataFrame:
    """Return the three columns of stripped texts, with the number of each `row` and whether it is `readable`."""
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
    return frame.select(pl.col(COLUMNS).str.strip_chars(), "readable").with_row_index("row")


def _read(path: Path) -> pl.DataFrame:
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    if ending is None or not path.is_file():
        raise PreferenceFileError(
            f"preferences.path {str(path)!r} is no file with one of the endings {', '.join(ENDINGS)}; correct the path"
        )
    try:
        return pl.read_parquet(path).with_columns(readable=True) if ending == PARQUET else _of_json(path)
    except (pl.exceptions.PolarsError, OSError, UnreadableFile, BrokenDocument) as error:
        raise PreferenceFileError(
            f"preferences.path {str(path)!r} cannot be read ({type(error).__name__}); write it again as Parquet or as"
            " one JSON object a line"
        ) from None


def _of_json(path: Path) -> pl.DataFrame:
    """Return those of the three columns that occur in the file, as texts if any row holds a text in the column."""
    rows = list(rows_of(path))
    objects = [row for row in rows if row is not None]
    present = [column for column in COLUMNS if any(column in row for row in objects)]
    values = {column: [row.get(column) if row is not None else None for row in rows] for column in present}
    readable = [row is not None and all(_is_text(row.get(column)) for column in COLUMNS) for row in rows]
    return pl.DataFrame([_text_column(column, values[column]) for column in present]).with_columns(
        readable=pl.Series(readable, dtype=pl.Boolean)
    )


def _is_text(value: object) -> bool:
    return value is None or (isinstance(value, str) and stored_text(value) == value)


def _text_column(name: str, values: Sequence[object]) -> pl.Series:
    """Return a column of texts, with null for other values; a column of another type if no value is a text."""
    texts = [value if _is_text(value) else None for value in values]
    if any(text is not None for text in texts):
        return pl.Series(name, texts, dtype=pl.String)
    return pl.Series(name, values, dtype=pl.Null() if all(value is None for value in values) else pl.Object())
