"""Sources of real instructions: the interface, a packaged public corpus, and the user's files.

Data sets of the Hugging Face hub (`hub.py`) and queries (`queries.py`) are further sources. Each is scanned into the
columns of `SCANNED_ROWS`. How a row is read never depends on another row: no type, date format or separator is guessed
from data, and a row with a value that is not understood is marked (`columns.py`). Errors concern configuration and form
(paths, names and types of columns) and quote no value.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import chain, islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol
from urllib.parse import unquote

import polars as pl

from dp_assets.corpus.columns import (
    BROKEN,
    SourceError,
    as_stored,
    check_mapping,
    filled,
    other_spellings,
    require_columns,
    source_rows,
)
from dp_assets.corpus.schemas import SCANNED_ROWS, SOURCE_ROWS
from dp_assets.corpus.spool import ROWS_IN_A_BATCH, spool, spooled
from dp_assets.corpus.text_files import (
    FORMATS,
    PACKED,
    BrokenDocument,
    Row,
    UnreadableFile,
    header_of,
    is_csv,
    require_readable,
    rows_of,
    suffix_of,
)

CHITCHAT_WORDS = (5, 60)
INTERROGATIVES = (
    "what what's whats who who's whose why how how's where when do does did is are was were can could would will should"
    " has don't doesn't didn't isn't aren't can't couldn't won't wouldn't shouldn't"
)
REQUESTS = "tell give show describe explain write suggest recommend name list help please"
OPENERS = frozenset(f"{INTERROGATIVES} {REQUESTS}".split())


class Source(Protocol):
    """A source of real instructions, before preparation."""

    @property
    def locator(self) -> str:
        """The canonical public name: one source has one locator, however it is configured."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Our column names to the source's. Registration fixes those of user and time."""

    def require_opened(self) -> None:
        """Check as much of the source as is possible without reading a row.

        Raises:
          SourceError: it cannot be read as configured.
        """

    def scan(self, scratch: Path) -> pl.LazyFrame:
        """Return the rows with the columns of `SCANNED_ROWS`.

        What cannot be scanned in place is written to `scratch`, an empty folder of the private zone that must exist as
        long as the rows are used.
        """


def parts_of(source: Source, scratch: Path) -> Mapping[str, pl.LazyFrame]:
    """Return a source's rows by the file they come from, or all of them under the source's locator.

    Raises:
      SourceError: the source cannot be read as configured.
    """
    return source.parts(scratch) if isinstance(source, FileSource) else {source.locator: source.scan(scratch)}


@dataclass(frozen=True)
class ChitchatSource:
    """Asking turns of the public corpus in the package chitchat-dataset (MIT license, people chatting in 2018).

    A turn is what one person wrote before the other answered: messages, joined with spaces. It is kept if it has 5 to
    60 words and one of its messages contains a question mark or begins with an interrogative or request word
    (`OPENERS`). The rule uses that turn only, and accepts some relative clauses ("when i was there ..."). The sender is
    the user.
    """

    @property
    def locator(self) -> str:
        """The name of the package."""
        return "packaged:chitchat-dataset"

    @property
    def columns(self) -> Mapping[str, str]:
        """Empty, because the package's columns are not configured."""
        return {}

    def require_opened(self) -> None:
        """Require the package.

        Raises:
          SourceError: it is not installed.
        """
        self._content()

    def scan(self, scratch: Path | None = None) -> pl.LazyFrame:
        """Return the turns; `instruction_id` is `chitchat-<conversation>-<number of the turn's first message>`.

        Raises:
          SourceError: the package is not installed.
        """
        conversations = json.loads(self._content()).items()
        turns = [turn for name, conversation in conversations for turn in _asking_turns(name, conversation["messages"])]
        texts = pl.DataFrame(turns, schema=dict.fromkeys(SOURCE_ROWS, pl.String()), orient="row").lazy()
        return source_rows(texts, {name: name for name in SOURCE_ROWS})

    def _content(self) -> str:
        try:
            return resources.files("chitchat_dataset").joinpath("dataset.json").read_text(encoding="utf-8")
        except (ModuleNotFoundError, FileNotFoundError):
            raise SourceError("the source 'chitchat' needs the package chitchat-dataset; install it") from None


def asks_something(messages: Sequence[str]) -> bool:
    """Return whether a message contains a question mark or begins with an interrogative or request word."""
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


PARQUET = ".parquet"
READERS = (PARQUET, *FORMATS)
"""Suffixes of readable files, in any letter case. All but the first may be followed by one of `PACKED`."""
CSV_REMEDY = ", or write the CSV with a header line and commas between cells"
TABLE_LOGS = ("_delta_log", ".hoodie")
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class FileSource:
    """A file with one of the suffixes of `READERS`, or a folder of such files, searched recursively.

    - `columns` maps our names (`text`, and optionally `user_id`, `created_at`, `language`, `instruction_id`) to the
      file's.
    - `instruction_id` should identify one row: rows of one user that share it count as one instruction. Without it,
      rows that agree in all mapped columns count once.
    - CSV has a header. JSON is one object a line, an array of objects, or objects one after the other. Chat messages
      in the column `text` are read as their first user turn.
    - The files of a folder may differ in format, in the order of columns and in further columns. A column that a file
      lacks may be given by the names of its folders (`day=2026-01-11`), as Hive, Spark and DuckDB write them.
    - Paths with a part that begins with a dot or an underscore are skipped.

    Raises:
      SourceError: the suffix or one of our names is unknown, or `text` is not mapped.
    """

    path: Path
    columns: Mapping[str, str]

    def __post_init__(self) -> None:
        check_mapping(self.columns)
        if not self.path.is_dir():
            _require_suffix(self.path, self._place)

    @property
    def locator(self) -> str:
        """The absolute path, with symbolic links resolved."""
        return f"file:{self.path.resolve()}"

    def require_opened(self) -> None:
        """Check the names and types of the files' columns. No row is read, so keys of JSON are not checked.

        Raises:
          SourceError: a file is missing or unreadable, a mapped column is not in it, or a column's type does not fit.
        """
        for file in self._files():
            if _is_parquet(file):
                self._rows_of_parquet(file)
            elif is_csv(file):
                self._require_columns(file, self._header_of(file))
            else:
                self._require_readable(file)

    def scan(self, scratch: Path | None = None) -> pl.LazyFrame:
        """Return the rows of all files.

        Raises:
          SourceError: see `parts`.
        """
        return pl.concat(self.parts(scratch).values())

    def parts(self, scratch: Path | None = None) -> Mapping[str, pl.LazyFrame]:
        """Return the rows of each file by its path. The path of a file in a folder is private.

        Rows of CSV and JSON are in `scratch` when this returns, or in memory if there is none.

        Raises:
          SourceError: see `require_opened`; or no object of all JSON files has a mapped key.
        """
        self.require_opened()
        seen = _Seen()
        parts = {str(file): self._part(file, seen, scratch) for file in self._files()}
        missing = sorted(set(self._names) - seen.keys)
        if seen.an_object and missing:
            raise SourceError(
                f"source.columns names {', '.join(missing)}, which no object of source.path {self.path} has as a key of"
                " its own; correct the mapping, or write nested values under keys of their own"
            )
        return parts

    @property
    def _place(self) -> str:
        """How messages refer to a file. They do not name one in a folder, because file names may be people's names."""
        return f"a file below {self.path}" if self.path.is_dir() else f"source.path {self.path}"

    @property
    def _names(self) -> list[str]:
        return sorted(set(self.columns.values()))

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            if not self.path.is_file():
                raise SourceError(f"source.path {self.path} is neither a file nor a folder; correct the path")
            return [self.path]
        if any(self.path.joinpath(log).exists() for log in TABLE_LOGS):
            raise SourceError(
                f"source.path {self.path} is a table with a transaction log, so its files may hold rows that were"
                " deleted from it; write the current rows to Parquet files of their own"
            )
        files = files_below(self.path)
        if not files:
            raise SourceError(
                f"source.path {self.path} holds no file with one of the suffixes {', '.join(READERS)}; correct it, or"
                " write the rows to such files"
            )
        for file in files:
            _require_suffix(file, self._place)
        return files

    def _require_columns(self, file: Path, columns: Sequence[str]) -> None:
        or_else = CSV_REMEDY if is_csv(file) else ""
        require_columns(self._names, [*columns, *self._from_folders(file)], place=self._place, or_else=or_else)

    def _from_folders(self, file: Path) -> dict[str, str | None]:
        """Return the mapped columns that the names of a file's folders give, as `name=value`.

        Raises:
          SourceError: two folders of a path name the same column.
        """
        folders = file.relative_to(self.path).parts[:-1] if self.path.is_dir() else ()
        split = (folder.partition("=") for folder in folders if "=" in folder)
        named = [(unquote(name), value) for name, _, value in split if unquote(name) in self._names]
        if len(named) != len(dict(named)):
            raise SourceError(f"a folder below {self.path} names a column that one above it names too; rename one")
        return {name: None if value == NO_VALUE else unquote(value) for name, value in named}

    def _rows_of_parquet(self, file: Path) -> pl.LazyFrame:
        rows = pl.scan_parquet(file, glob=False, hive_partitioning=False)
        try:
            columns = rows.collect_schema().names()
        except (pl.exceptions.PolarsError, OSError):
            raise SourceError(
                f"{self._place} is not a readable Parquet file; write it again, or take it out of the source"
            ) from None
        self._require_columns(file, columns)
        return self._typed(rows, self._from_folders(file))

    def _require_readable(self, file: Path) -> None:
        try:
            require_readable(file)
        except UnreadableFile as error:
            raise SourceError(f"{self._place} {error}") from None

    def _header_of(self, file: Path) -> list[str]:
        try:
            return header_of(file)
        except UnreadableFile as error:
            raise SourceError(f"{self._place} {error}") from None

    def _part(self, file: Path, seen: "_Seen", scratch: Path | None) -> pl.LazyFrame:
        if _is_parquet(file):
            return self._rows_of_parquet(file)
        batches = self._batches(file, _Seen() if is_csv(file) else seen)
        if scratch is None:
            return pl.concat([pl.DataFrame(schema=SCANNED_ROWS), *batches]).lazy()
        rows = Path(mkdtemp(dir=scratch, prefix="rows-"))
        spool(batches, rows)
        return spooled(rows)

    def _batches(self, file: Path, seen: "_Seen") -> Iterator[pl.DataFrame]:
        folders, rows = self._from_folders(file), self._rows_of(file)
        while batch := list(islice(rows, ROWS_IN_A_BATCH)):
            objects = [row for row in batch if row is not None]
            keys = set[str]().union(*objects)
            seen.an_object = seen.an_object or bool(objects)
            seen.keys |= keys.union(folders).intersection(self._names)
            others = other_spellings(keys, self._names).values()
            names = [*self._names, *dict.fromkeys(chain(*others))]
            columns = [as_stored([row and row.get(name) for row in batch], name) for name in names]
            broken = pl.Series(BROKEN, [row is None for row in batch])
            yield self._typed(pl.LazyFrame([*columns, broken]), folders).collect()

    def _rows_of(self, file: Path) -> Iterator[Row | None]:
        try:
            yield from rows_of(file)
        except UnreadableFile as error:
            raise SourceError(f"{self._place} {error}") from None
        except BrokenDocument as error:
            raise BrokenDocument(f"{file}: {error}") from None

    def _typed(self, rows: pl.LazyFrame, folders: Mapping[str, str | None]) -> pl.LazyFrame:
        """Return scanned rows, with a folder's value where a row has none."""
        if not folders:
            return source_rows(rows, self.columns)
        types = rows.collect_schema()
        lacking = [pl.lit(None, pl.String()).alias(name) for name in folders if name not in types]
        named = {ours: theirs for ours, theirs in self.columns.items() if theirs in folders}
        values = source_rows(pl.LazyFrame({name: [value] for name, value in folders.items()}), named).collect()
        return filled(source_rows(rows.with_columns(lacking), self.columns), values.row(0, named=True))


@dataclass
class _Seen:
    """Which of the mapped keys occur in the objects of JSON files, and whether there is an object at all."""

    keys: set[str] = field(default_factory=set)
    an_object: bool = False


def files_below(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted, without paths that have a part beginning with a dot or underscore."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [file for file in files if not any(part[0] in "._" for part in file.relative_to(folder).parts)]


def _is_parquet(file: Path) -> bool:
    return file.name.lower().endswith(PARQUET)


def _require_suffix(file: Path, place: str) -> None:
    if not _is_parquet(file) and suffix_of(file) is None:
        raise SourceError(
            f"{place} has an unknown suffix; use one of {', '.join(READERS)}, all but the first also with"
            f" {' or '.join(PACKED)} behind"
        )
