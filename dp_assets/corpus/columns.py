"""From a source's columns to the columns of `SOURCE_ROWS`, the same for files, data sets and queries.

Every value is read by itself: no type or date format is guessed from data, and a value that does not parse becomes
null. A column of the wrong type is an error, which names types and configured names only.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from dp_assets.corpus.schemas import SOURCE_ROWS, TIME

WANTED_TYPES = {
    "text": "strings, or chat messages with role and content",
    "created_at": "times, dates or ISO 8601 strings",
}
TIME_FORMATS = ("%+", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d")
ROLES_OF_A_USER = ("user", "human", "prompter")


class SourceError(ValueError):
    """A source is missing, unreadable, or lacks a mapped column. The message quotes configuration only."""


def check_mapping(columns: Mapping[str, str]) -> None:
    """Require `text` and no unknown name among the keys of `source.columns`.

    Raises:
      SourceError: `text` is missing, or a name is none of ours.
    """
    unknown = sorted(set(columns) - set(SOURCE_ROWS))
    if unknown or "text" not in columns:
        raise SourceError(
            f"source.columns must map `text` and may map {', '.join(sorted(set(SOURCE_ROWS) - {'text'}))}"
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )


def require_columns(names: Sequence[str], found: Sequence[str], *, place: str) -> None:
    """Require columns by name.

    Raises:
      SourceError: one is missing. What is there instead is not said: without a header line, the first line of a CSV
        file is somebody's row.
    """
    missing = [name for name in names if name not in found]
    if missing:
        raise SourceError(f"source.columns names {', '.join(missing)}, which {place} lacks; correct the mapping")


def source_rows(rows: pl.LazyFrame, columns: Mapping[str, str]) -> pl.LazyFrame:
    """Rows with the columns of `SOURCE_ROWS`; `columns` maps our names to theirs, all of which are there.

    Raises:
      SourceError: a column's type does not fit.
    """
    types = rows.collect_schema()
    return rows.select(_column(name, dtype, columns, types) for name, dtype in SOURCE_ROWS.items())


def parsed_time(column: str) -> pl.Expr:
    """Each format is tried on each value; one inferred from the first value would let a row decide for others."""
    text = pl.col(column).cast(pl.String).str
    parsed = [text.to_datetime(form, time_unit="us", time_zone="UTC", strict=False) for form in TIME_FORMATS]
    return pl.coalesce(parsed).alias(column)


def first_user_turn(column: str) -> pl.Expr:
    """What the user said first in a list of messages with `role` and `content`; null if they said nothing."""
    by_user = pl.element().struct.field("role").str.to_lowercase().is_in(ROLES_OF_A_USER)
    turns = pl.col(column).list.eval(pl.element().filter(by_user).struct.field("content"))
    return turns.list.first()


def first_user_turn_of(messages: Sequence[object]) -> str | None:
    """The same of one list as JSON has it, which may hold anything."""
    for message in messages:
        if isinstance(message, dict) and str(message.get("role")).lower() in ROLES_OF_A_USER:
            content = message.get("content")
            return content if isinstance(content, str) else None
    return None


def is_conversation(dtype: pl.DataType) -> bool:
    """Whether values are lists of messages with `role` and `content`."""
    if not isinstance(dtype, pl.List) or not isinstance(dtype.inner, pl.Struct):
        return False
    fields = {field.name: field.dtype for field in dtype.inner.fields}
    return fields.get("role") == pl.String and fields.get("content") == pl.String


def _column(name: str, dtype: pl.DataType, columns: Mapping[str, str], types: pl.Schema) -> pl.Expr:
    if name not in columns:
        return pl.lit(None, dtype=dtype).alias(name)
    theirs = columns[name]
    if not _fits(name, types[theirs]):
        wanted = WANTED_TYPES.get(name, "strings or numbers")
        kind = types[theirs].base_type().__name__  # the names inside a nested type may be values of rows
        raise SourceError(f"column {theirs!r}, mapped to {name}, holds {kind}; it must hold {wanted}")
    return _typed(theirs, name, types[theirs]).alias(name)


def _fits(name: str, found: pl.DataType) -> bool:
    textual = isinstance(found, pl.String | pl.Categorical | pl.Enum | pl.Null)
    if name == "text":
        return textual or is_conversation(found)
    if name == "created_at":
        return textual or isinstance(found, pl.Datetime | pl.Date)
    return textual or found.is_numeric()


def _typed(column: str, name: str, found: pl.DataType) -> pl.Expr:
    """The column in our type. Blank and NaN become null: a blank user id names nobody, it does not name one user."""
    if name == "created_at":
        return pl.col(column).cast(TIME) if found.is_temporal() else parsed_time(column)
    if is_conversation(found):
        return first_user_turn(column)
    value = _spelt(column) if found.is_float() else pl.col(column).cast(pl.String)
    return value if name == "text" else pl.when(value.str.contains(r"\S")).then(value)


def _spelt(column: str) -> pl.Expr:
    """Floats as strings, whole ones without a fraction; NaN is null.

    A tool that meets one missing id may turn user 1 into user 1.0, and that must not become another unit.
    """
    value = pl.col(column).fill_nan(None)
    whole = value.cast(pl.Int64, strict=False)
    return pl.when(value == whole).then(whole.cast(pl.String)).otherwise(value.cast(pl.String))
