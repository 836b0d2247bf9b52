"""Reads the rows of CSV and JSON files as Python values, each row independently of the others.

A file may be UTF-8, with or without a byte-order mark, or UTF-16 or UTF-32, and compressed by gzip or Zstandard. Types
are never guessed: CSV holds texts, JSON states each value's type, and its numbers keep their spelling. A row that
cannot be read is None and loses no other row: a CSV row ends by its own quotes, and a line of JSON lines is read by
itself.

Left out: a CSV row with an unmatched quote that, together with later lines, reads like one row with line breaks. Its
writer did not escape quotes, and no reader can detect it.
"""

import codecs
import gzip
import io
import json
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

FORMATS = (".csv", ".jsonl", ".ndjson", ".json")
PACKED = (".gz", ".zst")
SUFFIXES = FORMATS + tuple(form + packed for form in FORMATS for packed in PACKED)

ENCODINGS = {  # longest mark first, because that of UTF-32 begins with one of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SYNTAX = json.JSONDecoder()
DOCUMENT = re.compile(r"\[\s*\{\s*(?:[\"}]|\Z)|\{[ \t\r]*\n\s*\"")
NO_OBJECTS = re.compile(r"\A[\ufeff\s]*\[\s*\]\s*\Z")
BETWEEN_OBJECTS = re.compile(r"[\s,\[\]]*")
NEXT_OBJECT = re.compile(r"[\s,\[\]]*(?:\{|\Z)")
LONGEST_WORD = len("-Infinity")
LONGEST_ROW = 10_000_000
CHARACTERS_IN_A_CHUNK = 1_000_000

Row = Mapping[str, Any]


class RepeatedKey(ValueError):
    """An object has a key twice, so its value is ambiguous."""


def _object(pairs: Sequence[tuple[str, Any]]) -> Row:
    of_keys = dict(pairs)
    if len(of_keys) < len(pairs):
        raise RepeatedKey
    return of_keys


DECODER = json.JSONDecoder(parse_int=str, parse_float=str, object_pairs_hook=_object)


class UnreadableFile(ValueError):
    """A file cannot be read as the format that its name states. The message quotes nothing of the file."""


class BrokenDocument(RuntimeError):
    """A JSON document cannot be read to its end. The cause may be a private row."""


def suffix_of(path: Path) -> str | None:
    """Return the one of `SUFFIXES` that a file's name ends with, in any letter case."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def rows_of(path: Path) -> Iterator[Row | None]:
    """Yield the rows of a file with one of `SUFFIXES`, None for each that cannot be read.

    Raises:
      UnreadableFile: the file cannot be opened or unpacked. This may happen after some rows.
      BrokenDocument: a JSON document over several lines is damaged.
    """
    with _reading(), _opened(path) as text:
        yield from csv_rows(text) if is_csv(path) else json_rows(text)


def is_csv(path: Path) -> bool:
    """Return whether a file's name says that it is CSV, compressed or not."""
    return ".csv" in (suffix_of(path) or "")


def require_readable(path: Path) -> None:
    """Open and unpack the beginning of a file without reading a row.

    Raises:
      UnreadableFile: the file cannot be opened or unpacked.
    """
    with _reading(), _opened(path):
        pass


def header_of(path: Path) -> list[str]:
    """Return the names in the first line of a CSV file, none if it is empty.

    Raises:
      UnreadableFile: the file cannot be opened or unpacked, or a name occurs twice.
    """
    with _reading(), _opened(path) as text:
        names = _header(_Lines(text))
    if len(names) != len(set(names)):
        raise UnreadableFile("names a column twice; rename one of them in the header line")
    return names


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFile(
            f"cannot be opened or unpacked ({type(error).__name__}); replace the file, or correct who may read it"
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """Open a file as text. Bytes that UTF-8 cannot decode become lone surrogates, which `stored_text` recognizes."""
    with _unpacked(path) as stream:
        encoding = _encoding(stream.read(64), json=not is_csv(path))
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    with _unpacked(path) as stream, io.TextIOWrapper(stream, encoding, errors=errors, newline="\n") as text:
        yield text


def _unpacked(path: Path) -> Any:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path)
    if path.name.lower().endswith(".zst"):
        import pyarrow

        return pyarrow.input_stream(str(path), compression="zstd")
    return path.open("rb")


def _encoding(head: bytes, *, json: bool) -> str:
    """Return the encoding that the byte-order mark states, UTF-8 without one.

    In a JSON file a brace or bracket must follow, so that a broken first row is not mistaken for a mark.
    """
    for mark, encoding in ENCODINGS.items():
        if head.startswith(mark) and (not json or _bare(head.decode(encoding, "ignore"))[:1] in ("{", "[")):
            return encoding
    return "utf-8-sig"


def json_rows(text: IO[str]) -> Iterator[Row | None]:
    """Yield the objects of JSON lines, or of a document.

    A document begins with an array of objects, or with an opening brace on a line of its own.

    No row of JSON lines begins like that, so the first row does not affect how others are read. An array without
    objects at the beginning is not a row.
    """
    opening = NO_OBJECTS.sub("", _opening(text))
    if DOCUMENT.match(_bare(opening)):
        chunks = iter(lambda: text.read(CHARACTERS_IN_A_CHUNK), "")
        yield from _objects(chain([opening.lstrip("\ufeff")], chunks))
    else:
        whole = opening if opening.endswith("\n") else opening + text.readline()
        lines = chain(whole.split("\n"), text)
        yield from (_object_of(line) for line in map(_bare, lines) if line)


def _opening(text: IO[str]) -> str:
    """Read the first two lines that are not blank, each up to the size of a chunk."""
    pieces: list[str] = []
    while sum(map(bool, map(_bare, pieces))) < 2 and (piece := text.readline(CHARACTERS_IN_A_CHUNK)):
        pieces.append(piece)
    return "".join(pieces)


def _bare(line: str) -> str:
    return line.strip("\ufeff \t\r\n")


def _decoded(text: str, position: int) -> tuple[Any, int]:
    """Return a value and where it ends; None as the value if a key is repeated in it."""
    try:
        return DECODER.raw_decode(text, position)
    except RepeatedKey:
        return None, SYNTAX.raw_decode(text, position)[1]


def _object_of(line: str) -> Row | None:
    try:
        value = DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, Mapping) else None


def _objects(chunks: Iterable[str]) -> Iterator[Row | None]:
    """Yield the objects of a document.

    After damage, reading continues with the next line if every object so far was on one line. Otherwise the next line
    may lie inside the damaged object, and nested objects would be read as rows.
    """
    unread, has_one_a_line = "", None
    for chunk in chunks:
        unread, position = unread + chunk, 0
        while (position := _after(BETWEEN_OBJECTS, unread, position)) < len(unread):
            try:
                value, end = _decoded(unread, position)
                has_one_a_line = has_one_a_line is not False and "\n" not in unread[position:end]
                position = end
                yield value if isinstance(value, Mapping) else None
            except RecursionError:
                raise BrokenDocument(
                    "a JSON document holds an object nested too deeply to read; write one flat object a line instead"
                ) from None
            except json.JSONDecodeError as error:
                if _may_go_on(error, unread):
                    break
                position = unread.find("\n", position) + 1
                if not (position and has_one_a_line and NEXT_OBJECT.match(unread, position)):
                    raise BrokenDocument(
                        "a JSON document is damaged within its only line, or an object of several;"
                        " write one JSON object a line"
                    ) from None
                yield None
        unread = unread[position:]
        if len(unread) > LONGEST_ROW:
            raise BrokenDocument(
                "a JSON document holds an object that is too long to read; write one JSON object a line"
            )
    if unread:
        yield None


def _may_go_on(error: json.JSONDecodeError, text: str) -> bool:
    """Return whether the error may be only that the text ends too early."""
    return error.msg.startswith("Unterminated string") or error.pos > len(text) - LONGEST_WORD


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


class _Lines:
    """An iterator over lines that allows lines to be put back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._put_back = iter(lines), deque[str]()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return self._put_back.popleft() if self._put_back else next(self._lines)

    def put_back(self, lines: Sequence[str]) -> None:
        self._put_back.extendleft(reversed(lines))


def csv_rows(text: Iterable[str]) -> Iterator[Row | None]:
    """Yield the rows below the header. An empty cell is a missing value.

    A blank line is not a row. A row with more or fewer cells than the header is broken.
    """
    lines = _Lines(text)
    names = _header(lines)
    for line in lines:
        if line.strip("\r\n"):
            cells = _record(line, lines, len(names))
            yield None if cells is None else {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _header(lines: _Lines) -> list[str]:
    first = next((line for line in lines if line.strip("\r\n")), "")
    return (_cells(first, lines, DOUBLED) or []) if first else []


def _record(first: str, lines: _Lines, width: int) -> list[str] | None:
    """Return the cells of the row that begins with a line, None if neither way of quoting fits.

    Quotes inside quotes are read as doubled, as in the standard, else as escaped by backslashes. A broken row consumes
    its first line only, so that no later row is lost.
    """
    for quoting in (DOUBLED, ESCAPED):
        taken: list[str] = []
        cells = _cells(first, _noted(lines, taken), quoting)
        if cells is not None and len(cells) == width:
            return cells
        lines.put_back(taken)
    return None


def _noted(lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def _cells(first: str, further: Iterator[str], quoting: "Quoting") -> list[str] | None:
    """Return the cells of a row, None if it is broken.

    A row over several lines is broken if an unquoted cell contains a quote.
    """
    line, position, cells, is_plain = first, 0, list[str](), True
    while True:
        if line.startswith('"', position):
            cell, line, position = _quoted(line, position + 1, further, quoting)
        else:
            end = _after(UNQUOTED, line, position)
            cell, position = line[position:end].rstrip("\r"), end
            is_plain = is_plain and '"' not in cell
        if cell is None or not (is_plain or line is first):
            return None
        cells.append(cell)
        if line[position : position + 1] != ",":
            return None if line[position:].strip("\r\n") else cells
        position += 1


def _quoted(line: str, position: int, further: Iterator[str], quoting: "Quoting") -> tuple[str | None, str, int]:
    """Read a quoted cell, which may span lines. Return it with its last line and the position after it in that line."""
    parts, length = [], 0
    while True:
        end = _after(quoting.inside, line, position)
        parts.append(line[position:end])
        if line[end : end + 1] == '"':
            return quoting.escape.sub(r"\1", "".join(parts)), line, end + 1
        length += len(line)
        line, position = next(further, ""), 0
        if not line or length > LONGEST_ROW:
            return None, "", 0


@dataclass(frozen=True)
class Quoting:
    """What may be inside quotes on one line, and how a quote is written there."""

    inside: re.Pattern[str]
    escape: re.Pattern[str]


UNQUOTED = re.compile(r"[^,\n]*")
DOUBLED = Quoting(re.compile(r'[^"]*+(?:""[^"]*+)*+'), re.compile(r'"(")'))
ESCAPED = Quoting(re.compile(r'[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+', re.DOTALL), re.compile(r'\\(["\\])|"(?=")'))
