"""Column names and types of the project's tables, and the check that a frame has them.

A check reads the schema only, never a row, so its errors can be shown to anyone. Left out: checks of values. `prepare`
drops a row whose value breaks a rule, and does not report it.
"""

from collections.abc import Mapping

import polars as pl

TIME = pl.Datetime("us", "UTC")
ANY_WIDTH = 0  # in a schema, any width: it depends on the embedder
VECTOR = pl.Array(pl.Float32, ANY_WIDTH)

SOURCE_ROWS = pl.Schema(
    {
        "instruction_id": pl.String(),
        "user_id": pl.String(),
        "text": pl.String(),
        "language": pl.String(),
        "created_at": TIME,
    }
)
UNREAD, UNREAD_VALUE = "unread", "unread_value"
SCANNED_ROWS = pl.Schema({**SOURCE_ROWS, UNREAD: pl.String(), UNREAD_VALUE: pl.String()})
"""What a source returns: its rows, and in `UNREAD` which part of a row is not understood, if any (see `columns.py`).

A text or time that is not understood is null in its own column; `UNREAD_VALUE` holds it as it is written.
"""
REAL_INSTRUCTIONS = pl.Schema(
    {
        "unit_id": pl.String(),
        "instruction_id": pl.String(),
        "text": pl.String(),
        "cohort": pl.String(),
        "split": pl.String(),
        "created_at": TIME,
    }
)
SYNTHETIC_POOL = pl.Schema({"synthetic_id": pl.String(), "text": pl.String(), "num_tokens": pl.Int64()})
REAL_EMBEDDINGS = pl.Schema(
    {
        "unit_id": pl.String(),
        "instruction_id": pl.String(),
        "cohort": pl.String(),
        "split": pl.String(),
        "vector": VECTOR,
    }
)
SYNTHETIC_EMBEDDINGS = pl.Schema({"synthetic_id": pl.String(), "vector": VECTOR})
SYNTHETIC_BINS = pl.Schema({"bin_id": pl.Int64(), "centroid": VECTOR})
DP_HISTOGRAM = pl.Schema({"bin_id": pl.Int64(), "noisy_votes": pl.Int64()})
FILTERED_INSTRUCTIONS = pl.Schema(
    {"synthetic_id": pl.String(), "text": pl.String(), "bin_id": pl.Int64(), "origin": pl.String()}
)
ANNOTATED_INSTRUCTIONS = pl.Schema(
    {
        "synthetic_id": pl.String(),
        "instruction": pl.String(),
        "response": pl.String(),
        "annotator": pl.String(),
        "bin_id": pl.Int64(),
    }
)
PREFERENCE_PAIRS = pl.Schema(
    {
        "synthetic_id": pl.String(),
        "prompt": pl.String(),
        "chosen": pl.String(),
        "rejected": pl.String(),
        "rejected_by": pl.String(),
    }
)

SCHEMAS: Mapping[str, pl.Schema] = {
    "real_instructions": REAL_INSTRUCTIONS,
    "real_embeddings": REAL_EMBEDDINGS,
    "synthetic_pool": SYNTHETIC_POOL,
    "synthetic_embeddings": SYNTHETIC_EMBEDDINGS,
    "synthetic_bins": SYNTHETIC_BINS,
    "dp_histogram": DP_HISTOGRAM,
    "filtered_instructions": FILTERED_INSTRUCTIONS,
    "annotated_instructions": ANNOTATED_INSTRUCTIONS,
    "preference_pairs": PREFERENCE_PAIRS,
}


class SchemaError(ValueError):
    """A table lacks a column or holds one of another type."""


def check_schema(frame: pl.LazyFrame | pl.DataFrame, schema: pl.Schema, *, name: str) -> None:
    """Require every column of `schema` with its type. Further columns and any order are allowed.

    Raises:
      SchemaError: a column is missing or has another type. The message names every such column of the table `name` and
        what was expected.
    """
    types = frame.collect_schema()
    problems = [
        f"{column} is {types.get(column, 'missing')}, expected {_in_words(dtype)}"
        for column, dtype in schema.items()
        if column not in types or not _matches(types[column], dtype)
    ]
    if problems:
        raise SchemaError(f"the table {name} does not have the expected columns: {'; '.join(problems)}")


def _matches(dtype: pl.DataType, expected: pl.DataType) -> bool:
    if expected == VECTOR and isinstance(dtype, pl.Array):
        return len(dtype.shape) == 1 and dtype.inner == pl.Float32
    return dtype == expected


def _in_words(expected: pl.DataType) -> str:
    return "Array(Float32) of any width" if expected == VECTOR else str(expected)
