"""Maps a source's columns to those of `SCANNED_ROWS`, in the same way for files, data sets and queries.

Every value is read by itself: no type or date format is guessed from data. A missing value is null. A value that is
present and not understood never becomes null silently:

    a column of the wrong type       is refused with its name and type, which are public
    a language                       is always understood, as the text of its value
    an id                            likewise, except a float too large to identify one user or row: marked in `unread`
    an instruction, a time, a line   is marked in `unread`; `understood` drops the row, so that such rows are counted
    another spelling of a name       likewise: a row without a value of `user_id` that has one of `userId`
    a folder's name                  fills in where a row has no value; `unread` marks a row that has another one
"""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import polars as pl

from dp_assets.corpus.language_names import language_code
from dp_assets.corpus.schemas import SCANNED_ROWS, SOURCE_ROWS, TIME, UNREAD, UNREAD_VALUE
from dp_assets.corpus.users import AROUND, canonical_id
from dp_assets.corpus.values import (
    CONTENT_KEYS,
    ROLE_KEYS,
    ROLES_OF_A_USER,
    STRUCTURED,
    UNREADABLE,
    instruction_of,
    is_inexact,
    stored_text,
    time_of,
)
from dp_assets.privacy.errors import PublicError

BROKEN = "\ufdd0broken"
"""A column of booleans that a reader may add: whether a line could not be parsed."""
LINE, SPELLING, FOLDER = "line", "spelling", "folder"
"""The values of `unread` besides the names of columns."""
IDS = ("user_id", "instruction_id")
OTHERWISE = "\ufdd0otherwise "
"""The prefix, before one of our names, of a boolean column: whether a row has a value under another spelling of it."""

ACCEPTED_TYPES = {
    **dict.fromkeys(IDS, "strings, numbers but no floats of 32 bits, bytes, times or objects"),
    "text": "strings, or chat messages with role and content",
    "created_at": "times, dates, ISO 8601 strings or numbers since 1970",
}
FIRST_YEAR, LAST_YEAR = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


class SourceError(PublicError, ValueError):
    """A source is missing, unreadable, or lacks a mapped column. The message quotes configuration only."""


def check_mapping(columns: Mapping[str, str]) -> None:
    """Require that the keys of `source.columns` include `text` and are all known.

    Raises:
      SourceError: `text` is missing, or a name is not one of ours.
    """
    unknown = sorted(set(columns) - set(SOURCE_ROWS))
    if unknown or "text" not in columns:
        raise SourceError(
            f"source.columns must map `text` and may map {', '.join(sorted(set(SOURCE_ROWS) - {'text'}))}"
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )


def require_columns(names: Sequence[str], found: Sequence[str], *, place: str, or_else: str = "") -> None:
    """Require columns by name.

    Raises:
      SourceError: a column is missing. The message does not name the columns found: without a header line, they are the
        values of the first row of a CSV file.
    """
    missing = [name for name in names if name not in found]
    if missing:
        raise SourceError(
            f"source.columns names {', '.join(missing)}, which {place} lacks; correct the mapping{or_else}"
        )


def source_rows(rows: pl.LazyFrame, columns: Mapping[str, str]) -> pl.LazyFrame:
    """Return the rows with the columns of `SCANNED_ROWS`. `columns` maps our names to theirs, which must all exist.

    Of further columns, only those are read whose name is another spelling of a mapped one.

    Raises:
      SourceError: a column's type does not fit.
    """
    types = rows.collect_schema()
    for name, theirs in columns.items():
        _require_fit(name, theirs, types[theirs])
    texts = rows.select(
        *(_stored(theirs, name, types[theirs]).alias(name) for name, theirs in columns.items()),
        *(pl.lit(None, dtype=dtype).alias(name) for name, dtype in SOURCE_ROWS.items() if name not in columns),
        (pl.col(BROKEN) if BROKEN in types else pl.lit(False)).alias(BROKEN),
        *_otherwise(columns, types),
    )
    has_time = texts.collect_schema()["created_at"] == pl.String
    return (
        texts.with_columns(
            _id("user_id"),
            _id("instruction_id"),
            language_code(_id("language")),
            written_text="text",
            written_time=pl.col("created_at").cast(pl.String) if has_time else pl.lit(None, pl.String),
            text=_each(instruction_of, "text"),
            read_at=_each(time_of, "created_at", TIME) if has_time else pl.col("created_at"),
        )
        .with_columns(_unread(has_time, texts.collect_schema().names()).alias(UNREAD))
        .with_columns(
            _unread_value().alias(UNREAD_VALUE),
            text=pl.when(pl.col("text") != UNREADABLE).then("text"),
            created_at="read_at",
        )
        .select(SCANNED_ROWS.names())
    )


def understood(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the source rows in which every mapped value is understood, with the columns of `SOURCE_ROWS`.

    Whether a row is kept depends on that row alone.
    """
    return rows.filter(pl.col(UNREAD).is_null()).select(SOURCE_ROWS.names())


def filled(rows: pl.LazyFrame, named: Mapping[str, object]) -> pl.LazyFrame:
    """Return scanned rows, with the values of `named`, another scanned row, where they have none.

    A row whose value differs from `named` is marked as unread, because one of the two names the wrong user or time.
    """
    values = {name: pl.lit(value, SOURCE_ROWS[name]) for name, value in named.items() if name in SOURCE_ROWS and value}
    is_another = pl.any_horizontal(pl.lit(False), *(_differ(name, value) for name, value in values.items()))
    return rows.with_columns(
        pl.coalesce(UNREAD, pl.lit(named[UNREAD], pl.String()), pl.when(is_another).then(pl.lit(FOLDER))),
        *(pl.coalesce(name, value).alias(name) for name, value in values.items()),
    )


def _differ(name: str, value: pl.Expr) -> pl.Expr:
    column = pl.col(name)
    return canonical_id(column) != canonical_id(value) if name in IDS else column != value


def other_spellings(names: Iterable[str], mapped: Collection[str]) -> dict[str, list[str]]:
    """Return, for each of `mapped`, the names that differ from it only in letter case and punctuation."""
    folded: dict[str, list[str]] = {}
    for name in names:
        if name not in mapped and (fold := _folded(name)):
            folded.setdefault(fold, []).append(name)
    return {theirs: folded[_folded(theirs)] for theirs in mapped if _folded(theirs) in folded}


@lru_cache(maxsize=4096)
def _folded(name: str) -> str:
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))


def as_stored(values: Sequence[object], name: str) -> pl.Series:
    """Return values of any type as a column of texts, which `source_rows` accepts like a column of their own type."""
    return pl.Series(name, [stored_text(value) for value in values], dtype=pl.String)


def is_conversation(dtype: pl.DataType) -> bool:
    """Return whether values are lists of messages that have a role and content, under any of their known names."""
    if not isinstance(dtype, pl.List) or not isinstance(dtype.inner, pl.Struct):
        return False
    fields = {field.name: field.dtype for field in dtype.inner.fields}
    return any(fields.get(key) == pl.String for key in ROLE_KEYS) and any(key in fields for key in CONTENT_KEYS)


def _otherwise(columns: Mapping[str, str], types: pl.Schema) -> list[pl.Expr]:
    others = other_spellings(types, columns.values())
    return [
        pl.any_horizontal(_has_value(other, types[other]) for other in others[theirs]).alias(OTHERWISE + name)
        for name, theirs in columns.items()
        if theirs in others
    ]


def _has_value(name: str, dtype: pl.DataType) -> pl.Expr:
    value = pl.col(name)
    return value.str.contains(r"\S").fill_null(False) if dtype == pl.String else value.is_not_null()


def _require_fit(name: str, theirs: str, dtype: pl.DataType) -> None:
    if not _fits(name, dtype):
        accepted = ACCEPTED_TYPES.get(name, "strings, numbers, bytes, times or objects")
        kind = dtype.base_type().__name__  # without the names inside a nested type, which may be values of rows
        raise SourceError(f"column {theirs!r}, mapped to {name}, holds {kind}; it must hold {accepted}")


def _fits(name: str, dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum | pl.Null | pl.Binary):
        return True
    if name == "text":
        return is_conversation(dtype)
    if name == "created_at":
        return isinstance(dtype, pl.Datetime | pl.Date) or dtype.is_numeric()
    if name in IDS and _has_short_floats(dtype):
        return False
    is_temporal = dtype.is_temporal() and not isinstance(dtype, pl.Duration)
    return dtype.is_numeric() or dtype.is_nested() or is_temporal or isinstance(dtype, pl.Boolean)


def _has_short_floats(dtype: pl.DataType) -> bool:
    """Return whether a type has floats of fewer than 64 bits, in which two ids from 2**24 on may be the same float."""
    if isinstance(dtype, pl.Struct):
        return any(_has_short_floats(field.dtype) for field in dtype.fields)  # type: ignore[arg-type]
    if isinstance(dtype, pl.List | pl.Array):
        return _has_short_floats(dtype.inner)  # type: ignore[arg-type]
    return dtype.is_float() and not isinstance(dtype, pl.Float64)


def _stored(column: str, name: str, dtype: pl.DataType) -> pl.Expr:
    """Return the values as texts, or as times where the column holds times."""
    value = pl.col(column)
    if name == "created_at" and dtype.is_temporal():
        return value.cast(TIME)
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum | pl.Null) or dtype.is_integer():
        return value.cast(pl.String)
    if name == "text" and (keys := _plain_keys(dtype)) is not None:
        return _first_user_turn(column, *keys)
    return value.map_batches(
        lambda values: as_stored(values.to_list(), values.name), return_dtype=pl.String(), is_elementwise=True
    )


def _plain_keys(dtype: pl.DataType) -> tuple[str, str] | None:
    """Return the names of role and content if messages have one of each and both are strings, as in most data sets."""
    if not isinstance(dtype, pl.List) or not isinstance(dtype.inner, pl.Struct):
        return None
    fields = {field.name: field.dtype for field in dtype.inner.fields}
    names = [key for keys in (ROLE_KEYS, CONTENT_KEYS) for key in keys if key in fields]
    return (names[0], names[1]) if len(names) == 2 and all(fields[key] == pl.String for key in names) else None


def _first_user_turn(column: str, role: str, content: str) -> pl.Expr:
    """Compute `first_user_turn_of` a list of plain messages within Polars, because conversations are long."""
    by_user = pl.element().struct.field(role).str.to_lowercase().is_in(ROLES_OF_A_USER)
    return pl.col(column).list.eval(pl.element().filter(by_user).struct.field(content)).list.first()


def _id(name: str) -> pl.Expr:
    """Return an id column with null for blanks: all rows with a blank user id are not one user."""
    value = pl.col(name).str.strip_prefix(UNREADABLE).str.strip_prefix(STRUCTURED)
    return pl.when(value.str.contains(r"\S")).then(value).alias(name)


def _each(read: Callable[[str], object], name: str, dtype: pl.DataType | None = None) -> pl.Expr:
    """Apply `read` to each text by itself."""
    kind = dtype or pl.String()

    def read_all(texts: pl.Series) -> pl.Series:
        return pl.Series(texts.name, [None if text is None else read(text) for text in texts], dtype=kind)

    return pl.col(name).map_batches(read_all, return_dtype=kind, is_elementwise=True)


def _unread(has_time_as_text: bool, columns: Collection[str]) -> pl.Expr:
    """Return the first part of a row that is present and not understood."""
    if has_time_as_text:
        lost = pl.col("created_at").str.contains(r"\S") & pl.col("read_at").is_null()
    else:
        lost = ~pl.col("created_at").is_between(FIRST_YEAR, LAST_YEAR)
    parts = {
        LINE: pl.col(BROKEN),
        "text": pl.col("text") == UNREADABLE,
        "created_at": lost,
        **{name: _is_inexact(name) for name in IDS},
        SPELLING: pl.any_horizontal(
            pl.lit(False),
            *(pl.col(OTHERWISE + name) & _is_missing(name) for name in SOURCE_ROWS if OTHERWISE + name in columns),
        ),
    }
    return pl.coalesce(pl.when(is_lost).then(pl.lit(part)) for part, is_lost in parts.items())


def _unread_value() -> pl.Expr:
    """Return a text or time that is not understood as it is written; null for a time that was stored as a time."""
    written = pl.when(pl.col(UNREAD) == "text").then("written_text").when(pl.col(UNREAD) == "created_at")
    return written.then("written_time").str.strip_prefix(UNREADABLE).str.strip_prefix(STRUCTURED)


def _is_missing(name: str) -> pl.Expr:
    return pl.col("read_at" if name == "created_at" else name).is_null()


def _is_inexact(name: str) -> pl.Expr:
    stripped = pl.col(name).str.replace_all(AROUND, "")
    return stripped.map_batches(
        lambda texts: pl.Series(texts.name, [text is not None and is_inexact(text) for text in texts], pl.Boolean),
        return_dtype=pl.Boolean(),
        is_elementwise=True,
    )
