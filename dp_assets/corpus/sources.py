"""Where real instructions come from: a packaged public corpus, or files of the user's.

Data sets of the Hugging Face hub (`hub.py`) and queries (`queries.py`) are further sources. Each one is scanned into
the columns of `SOURCE_ROWS`, every one nullable. How a row is read never depends on another row: no type, date format
or separator is guessed from data, and a value that does not parse becomes null. Errors concern configuration (paths,
column names and types) and quote no value.

Left out: nested columns other than chat messages, and CSV whose quotes do not match, where no reader can tell the rows
apart.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import polars as pl

from dp_assets.corpus.columns import (
    SourceError,
    check_mapping,
    first_user_turn_of,
    parsed_time,
    require_columns,
    source_rows,
)
from dp_assets.corpus.schemas import SOURCE_ROWS

CHITCHAT_WORDS = (5, 60)
INTERROGATIVES = (
    "what what's whats who who's whose why how how's where when do does did is are was were can could would will should"
    " has don't doesn't didn't isn't aren't can't couldn't won't wouldn't shouldn't"
)
REQUESTS = "tell give show describe explain write suggest recommend name list help please"
OPENERS = frozenset(f"{INTERROGATIVES} {REQUESTS}".split())


class Source(Protocol):
    """Real instructions, not yet prepared."""

    @property
    def locator(self) -> str:
        """The canonical public name: the same source has the same locator however it is configured."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Which of the source's columns ours are read from; registration fixes those of user and time."""

    def scan(self, scratch: Path) -> pl.LazyFrame:
        """The rows with the columns of `SOURCE_ROWS`.

        What cannot be scanned where it lies is put into `scratch`, an empty folder of the private zone that outlives
        the rows' use.
        """


def parts_of(source: Source, scratch: Path) -> Mapping[str, pl.LazyFrame]:
    """A source's rows by what they are read from: each file of a folder, else all of them.

    Raises:
      SourceError: the source cannot be read as configured.
    """
    return source.parts() if isinstance(source, FileSource) else {source.locator: source.scan(scratch)}


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

    @property
    def columns(self) -> Mapping[str, str]:
        return {}

    def scan(self, scratch: Path | None = None) -> pl.LazyFrame:
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
        return texts.with_columns(parsed_time("created_at"))


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
    """A Parquet, CSV (with a header), JSONL or gzipped JSONL file, or a folder of such files, searched to the bottom.

    `columns` maps our names (`text`, and optionally `user_id`, `created_at`, `language`, `instruction_id`) to the
    file's. `instruction_id` should name one row: rows of one user that share it count as one instruction. Without it,
    rows that agree in all mapped columns count once. Times are ISO 8601; one without an offset is taken as UTC. JSON
    values that are not strings are taken as they are spelt. Chat messages as the text, in Parquet or JSON, stand for
    their first user turn.

    Files of a folder may differ in format, in the order of columns and in further ones. Hidden files and those that
    begin with an underscore are passed over, as Spark and Hive do.

    Raises:
      SourceError: the suffix or one of our names is unknown, or `text` is not mapped.
    """

    path: Path
    columns: Mapping[str, str]

    def __post_init__(self) -> None:
        check_mapping(self.columns)
        if not self.path.is_dir():
            _reader_of(self.path, place=f"source.path {self.path}")

    @property
    def locator(self) -> str:
        return f"file:{self.path.resolve()}"

    def scan(self, scratch: Path | None = None) -> pl.LazyFrame:
        """The rows.

        Raises:
          SourceError: the file is missing or unreadable, a mapped column is not in it, or a column's type does not fit.
        """
        return pl.concat(self.parts().values())

    def parts(self) -> Mapping[str, pl.LazyFrame]:
        """The rows of each file, by its path, which is private where it lies in a folder.

        Raises:
          SourceError: as `scan`.
        """
        if not self.path.is_dir():
            if not self.path.is_file():
                raise SourceError(f"source.path {self.path} is neither a file nor a folder")
            return {str(self.path): self._rows_of(self.path, place=f"source.path {self.path}")}
        files = files_below(self.path)
        if not files:
            raise SourceError(f"source.path {self.path} holds no file with one of the suffixes {', '.join(READERS)}")
        # Which file it is stays unsaid: names of files may be those of people.
        return {str(file): self._rows_of(file, place=f"a file below {self.path}") for file in files}

    def _rows_of(self, file: Path, *, place: str) -> pl.LazyFrame:
        return source_rows(_reader_of(file, place=place)(file, self.columns, place), self.columns)


def files_below(folder: Path) -> list[Path]:
    """The files of a folder and of the folders in it, sorted, without those whose path has a hidden or `_` part."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [file for file in files if not any(part[0] in "._" for part in file.relative_to(folder).parts)]


def _reader_of(file: Path, *, place: str) -> "Reader":
    for suffix, reader in READERS.items():
        if file.name.lower().endswith(suffix):
            return reader
    raise SourceError(f"{place} has an unknown suffix; use one of {', '.join(READERS)}")


def _scan_parquet(path: Path, columns: Mapping[str, str], place: str) -> pl.LazyFrame:
    rows = pl.scan_parquet(path, glob=False)
    try:
        found = rows.collect_schema().names()
    except pl.exceptions.PolarsError:
        raise SourceError(f"{place} is not a readable Parquet file") from None
    require_columns(sorted(set(columns.values())), found, place=place)
    return rows


def _scan_csv(path: Path, columns: Mapping[str, str], place: str) -> pl.LazyFrame:
    rows = pl.scan_csv(
        path,
        infer_schema=False,
        ignore_errors=True,
        truncate_ragged_lines=True,
        raise_if_empty=False,
        encoding="utf8-lossy",
        glob=False,
    )
    require_columns(sorted(set(columns.values())), rows.collect_schema().names(), place=place)
    return rows


def _scan_json_lines(path: Path, columns: Mapping[str, str], place: str) -> pl.LazyFrame:
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
    values = {name: line.str.json_path_match(f"$[{json.dumps(name)}]") for name in sorted(set(columns.values()))}
    return lines.select(**values | {columns["text"]: _text_or_first_turn(line, columns["text"])})


def _text_or_first_turn(line: pl.Expr, name: str) -> pl.Expr:
    """A value of a line of JSON as it is spelt, or the first user turn of chat messages."""
    path = f"$[{json.dumps(name)}]"
    value = line.str.json_path_match(path)
    # A string may read like a list; only a list has elements.
    is_list = line.str.json_path_match(f"{path}[0]").is_not_null() | value.str.contains(r"^\[\s*\]$")
    turns = pl.when(is_list).then(value).map_batches(_first_user_turns, return_dtype=pl.String(), is_elementwise=True)
    return pl.when(is_list).then(turns).otherwise(value)


def _first_user_turns(conversations: pl.Series) -> pl.Series:
    turns = [None if messages is None else first_user_turn_of(json.loads(messages)) for messages in conversations]
    return pl.Series(conversations.name, turns, dtype=pl.String)


Reader = Callable[[Path, Mapping[str, str], str], pl.LazyFrame]
READERS: Mapping[str, Reader] = {
    ".parquet": _scan_parquet,
    ".csv": _scan_csv,
    ".jsonl": _scan_json_lines,
    ".jsonl.gz": _scan_json_lines,
}
