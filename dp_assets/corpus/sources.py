"""Where real instructions come from: a packaged public corpus, or a file of the user's.

A source is scanned lazily into the columns of `SOURCE_ROWS`, every one nullable. How a row is read never depends on
another row: no type, date format or separator is guessed from data, and a value that does not parse becomes null.
Errors concern configuration (paths, column names and types) and quote no value.

Left out: folders of files, nested columns, and CSV whose quotes do not match, where no reader can tell the rows apart.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import polars as pl

from dp_assets.corpus.schemas import SOURCE_ROWS, TIME

CHITCHAT_WORDS = (5, 60)
INTERROGATIVES = (
    "what what's whats who who's whose why how how's where when do does did is are was were can could would will should"
    " has don't doesn't didn't isn't aren't can't couldn't won't wouldn't shouldn't"
)
REQUESTS = "tell give show describe explain write suggest recommend name list help please"
OPENERS = frozenset(f"{INTERROGATIVES} {REQUESTS}".split())
WANTED_TYPES = {"text": "strings", "created_at": "times, dates or ISO 8601 strings"}
TIME_FORMATS = ("%+", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d")


class SourceError(ValueError):
    """A source is missing, unreadable, or lacks a mapped column. The message quotes configuration only."""


class Source(Protocol):
    """Real instructions, not yet prepared."""

    @property
    def locator(self) -> str:
        """The canonical public name: the same source has the same locator however it is configured."""

    def scan(self) -> pl.LazyFrame:
        """The rows with the columns of `SOURCE_ROWS`."""


def make_source(*, kind: str, path: Path | None, columns: Mapping[str, str]) -> Source:
    """The source that a profile describes; `kind` is `chitchat` or `file`, and a file needs `path` and `columns`.

    Raises:
      SourceError: the kind is unknown or the file's settings are incomplete.
    """
    if kind == "chitchat":
        return ChitchatSource()
    if kind != "file" or path is None:
        raise SourceError(f"source.kind must be 'chitchat', or 'file' with a `path`; got {kind!r}")
    return FileSource(path, columns)


@dataclass(frozen=True)
class ChitchatSource:
    """Turns that ask something, from the public corpus in the package chitchat-dataset (MIT, people chatting in 2018).

    A turn is what one person wrote before the other answered: messages, joined with spaces. It counts when it has 5 to
    60 words and one of its messages contains a question mark or begins with an interrogative or request word
    (`OPENERS`). The rule looks at one turn only, and lets some relative clauses pass ("when i was there ..."). The
    sender is the user.
    """

    @property
    def locator(self) -> str:
        return "packaged:chitchat-dataset"

    def scan(self) -> pl.LazyFrame:
        """The turns; `instruction_id` is `chitchat-<conversation>-<number of the turn's first message>`.

        Raises:
          SourceError: the package is not installed.
        """
        try:
            content = resources.files("chitchat_dataset").joinpath("dataset.json").read_text(encoding="utf-8")
        except (ModuleNotFoundError, FileNotFoundError):
            raise SourceError("the source 'chitchat' needs the package chitchat-dataset; install it") from None
        conversations = json.loads(content).items()
        turns = [turn for name, conversation in conversations for turn in _asking_turns(name, conversation["messages"])]
        texts = pl.DataFrame(turns, schema=dict.fromkeys(SOURCE_ROWS, pl.String()), orient="row").lazy()
        return texts.with_columns(_parsed_time("created_at"))


def asks_something(messages: Sequence[str]) -> bool:
    """Whether a message holds a question mark or begins with an interrogative or request word."""
    return any("?" in message or _first_word(message) in OPENERS for message in messages)


def _first_word(message: str) -> str:
    words = message.lower().replace("’", "'").split(maxsplit=1)  # noqa: RUF001 (typographic apostrophes occur)
    return words[0].strip("'\".,!():;*~-") if words else ""


def _asking_turns(conversation: str, turns: Sequence[Sequence[Mapping[str, str]]]) -> Iterator[tuple[str, ...]]:
    shortest, longest = CHITCHAT_WORDS
    number = 0
    for turn in turns:
        messages = [message["text"] for message in turn]
        text = " ".join(messages)
        if shortest <= len(text.split()) <= longest and asks_something(messages):
            first = turn[0]
            yield f"chitchat-{conversation}-{number}", first["sender"], text, "en", first["timestamp"]
        number += len(turn)


@dataclass(frozen=True)
class FileSource:
    """One Parquet, CSV (with a header), JSONL or gzipped JSONL file.

    `columns` maps our names (`text`, and optionally `user_id`, `created_at`, `language`, `instruction_id`) to the
    file's. `instruction_id` should name one row: rows of one user that share it count as one instruction. Without it,
    rows that agree in all mapped columns count once. Times are ISO 8601; one without an offset is taken as UTC. JSON
    values that are not strings are taken as they are spelt.

    Raises:
      SourceError: the suffix or one of our names is unknown, or `text` is not mapped.
    """

    path: Path
    columns: Mapping[str, str]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(SOURCE_ROWS))
        if unknown or "text" not in self.columns:
            raise SourceError(
                f"source.columns must map `text` and may map {', '.join(sorted(set(SOURCE_ROWS) - {'text'}))}"
                + (f"; unknown: {', '.join(unknown)}" if unknown else "")
            )
        self._reader()

    @property
    def locator(self) -> str:
        return f"file:{self.path.resolve()}"

    def scan(self) -> pl.LazyFrame:
        """The rows.

        Raises:
          SourceError: the file is missing or unreadable, a mapped column is not in it, or a column's type does not fit.
        """
        if not self.path.is_file():
            raise SourceError(f"source.path {self.path} is not a file")
        rows = self._reader()(self.path, sorted(set(self.columns.values())))
        types = rows.collect_schema()
        return rows.select(self._column(name, dtype, types) for name, dtype in SOURCE_ROWS.items())

    def _reader(self) -> Callable[[Path, Sequence[str]], pl.LazyFrame]:
        for suffix, reader in READERS.items():
            if self.path.name.lower().endswith(suffix):
                return reader
        raise SourceError(f"source.path {self.path} has an unknown suffix; use one of {', '.join(READERS)}")

    def _column(self, name: str, dtype: pl.DataType, types: pl.Schema) -> pl.Expr:
        if name not in self.columns:
            return pl.lit(None, dtype=dtype).alias(name)
        theirs = self.columns[name]
        if not _fits(name, types[theirs]):
            wanted = WANTED_TYPES.get(name, "strings or numbers")
            kind = types[theirs].base_type().__name__  # the names inside a nested type may be values of rows
            raise SourceError(f"column {theirs!r}, mapped to {name}, holds {kind}; it must hold {wanted}")
        return _typed(theirs, name, types[theirs]).alias(name)


def _fits(name: str, found: pl.DataType) -> bool:
    textual = isinstance(found, pl.String | pl.Categorical | pl.Enum | pl.Null)
    if name == "text":
        return textual
    if name == "created_at":
        return textual or isinstance(found, pl.Datetime | pl.Date)
    return textual or found.is_numeric()


def _typed(column: str, name: str, found: pl.DataType) -> pl.Expr:
    """The column in our type. Blank and NaN become null: a blank user id names nobody, it does not name one user."""
    if name == "created_at":
        return pl.col(column).cast(TIME) if found.is_temporal() else _parsed_time(column)
    value = _spelt(column) if found.is_float() else pl.col(column).cast(pl.String)
    return value if name == "text" else pl.when(value.str.contains(r"\S")).then(value)


def _spelt(column: str) -> pl.Expr:
    """Floats as strings, whole ones without a fraction; NaN is null.

    A tool that meets one missing id may turn user 1 into user 1.0, and that must not become another unit.
    """
    value = pl.col(column).fill_nan(None)
    whole = value.cast(pl.Int64, strict=False)
    return pl.when(value == whole).then(whole.cast(pl.String)).otherwise(value.cast(pl.String))


def _parsed_time(column: str) -> pl.Expr:
    """Each format is tried on each value; one inferred from the first value would let a row decide for others."""
    text = pl.col(column).cast(pl.String).str
    parsed = [text.to_datetime(form, time_unit="us", time_zone="UTC", strict=False) for form in TIME_FORMATS]
    return pl.coalesce(parsed).alias(column)


def _scan_parquet(path: Path, names: Sequence[str]) -> pl.LazyFrame:
    rows = pl.scan_parquet(path, glob=False)
    try:
        found = rows.collect_schema().names()
    except pl.exceptions.PolarsError:
        raise SourceError(f"source.path {path} is not a readable Parquet file") from None
    _require_columns(path, names, found)
    return rows


def _scan_csv(path: Path, names: Sequence[str]) -> pl.LazyFrame:
    rows = pl.scan_csv(
        path,
        infer_schema=False,
        ignore_errors=True,
        truncate_ragged_lines=True,
        raise_if_empty=False,
        encoding="utf8-lossy",
        glob=False,
    )
    _require_columns(path, names, rows.collect_schema().names())
    return rows


def _scan_json_lines(path: Path, names: Sequence[str]) -> pl.LazyFrame:
    """Each line by itself; Polars' own reader of JSON lines fails as a whole on one malformed line."""
    lines = pl.scan_csv(
        path,
        has_header=False,
        schema={"line": pl.String()},
        separator="\x1f",  # JSON must escape it, so that no valid line is cut
        quote_char=None,
        truncate_ragged_lines=True,
        extra_columns="ignore",  # else a first line with a separator, and no later one, would fail the whole file
        raise_if_empty=False,
        encoding="utf8-lossy",
        glob=False,
    )
    # Polars takes a byte order mark off the first line only; a line must not read otherwise when another precedes it.
    line = pl.col("line").str.strip_prefix("\ufeff")
    # A key that no line has gives nulls: to refuse it, the names in the rows would have to be read.
    return lines.select(line.str.json_path_match(f"$[{json.dumps(name)}]").alias(name) for name in names)


def _require_columns(path: Path, names: Sequence[str], found: Sequence[str]) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        # What the file has instead is not said: without a header line, its first line is somebody's row.
        raise SourceError(f"source.columns names {', '.join(missing)}, which {path} lacks; correct the mapping")


READERS: Mapping[str, Callable[[Path, Sequence[str]], pl.LazyFrame]] = {
    ".parquet": _scan_parquet,
    ".csv": _scan_csv,
    ".jsonl": _scan_json_lines,
    ".jsonl.gz": _scan_json_lines,
}
