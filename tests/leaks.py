"""Looks for texts in everything that folders hold, decoded: a plain search misses what a format compresses or splits.

Decoded are Parquet, Arrow, SQLite and DuckDB (with the logs of writes that are not merged yet), gzip, zlib and
Zstandard, zip archives (so the checkpoints of torch), pickles, the escapes of JSON, base64, and UTF-16 and UTF-32,
inside each other to a depth of six. Pickles are taken apart, never loaded. Safetensors need no decoding: tensors and
metadata lie in the file as they are. A store that cannot be read is an error and not a clean one.

Left out: pictures, whatever is encrypted, and a text that is cut into pieces.
"""

import base64
import gzip
import io
import pickletools
import re
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path

import duckdb
import polars as pl
import pyarrow

DEPTH = 6
ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# A database is read together with the files that hold its latest writes.
COMPANIONS = ("-wal", "-shm", "-journal", ".wal")
BASE64 = re.compile(rb"[A-Za-z0-9+/]{16,}|[A-Za-z0-9_-]{16,}")
BASE64_LINE_BREAK = re.compile(rb"(?<=[A-Za-z0-9+/]{60})\r?\n(?=[A-Za-z0-9+/])")
ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}

Needle = str | bytes


def files_holding(folder: Path, *needles: Needle) -> set[Path]:
    """The files and folders under `folder` that hold a needle in their name or content, texts whatever their case."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"  # Opening a database changes files beside it, which its owner still uses.
        shutil.copytree(folder, copy, symlinks=True)
        names = [path.relative_to(copy) for path in copy.rglob("*")]
        contents = [(name, content) for name in names for content in _contents_of(copy, name)]
    holding = _Spellings(needles).occur_in([content for _, content in contents])
    return {folder / name for (name, _), holds in zip(contents, holding, strict=True) if holds}


def needles_in(content: bytes, *needles: Needle) -> set[Needle]:
    """The needles that occur in a content, decoded."""
    contents = list(decoded(content))
    if not any(_Spellings(needles).occur_in(contents)):
        return set()
    return {needle for needle in needles if any(_Spellings([needle]).occur_in(contents))}


def _contents_of(root: Path, name: Path) -> Iterator[bytes]:
    yield str(name).encode()
    if (root / name).is_file():
        yield from decoded((root / name).read_bytes(), root / name)


class _Spellings:
    """Many needles at once: each text in every encoding, a needle of bytes as it is."""

    def __init__(self, needles: Collection[Needle]) -> None:
        self._all = sorted({spelling for needle in needles for spelling in _spellings(needle)})

    def occur_in(self, contents: Collection[bytes]) -> list[bool]:
        """For each content, whether any of them occurs in it."""
        # In latin-1 each byte is one character, so that any content can be searched as text.
        texts = pl.Series([content.decode("latin-1") for content in contents], dtype=pl.String)
        return texts.str.contains_any(self._all, ascii_case_insensitive=True).to_list()


def _spellings(needle: Needle) -> Iterator[str]:
    if isinstance(needle, bytes):
        yield needle.decode("latin-1")
        return
    cases = {needle} if needle.isascii() else {needle, needle.lower(), needle.upper()}  # the search folds ASCII itself
    for text in cases:
        for encoding in ENCODINGS:
            with suppress(UnicodeEncodeError):
                yield text.encode(encoding).decode("latin-1")


def decoded(content: bytes, path: Path | None = None, depth: int = DEPTH) -> Iterator[bytes]:
    """A content, and everything that can be decoded from it. `path` is where it lies, if it is a file."""
    yield content
    if depth == 0:
        return
    stores = [decode for offset, mark, decode in STORES if content.startswith(mark, offset)]
    others = [decode for mark, decode in OTHERS if content.startswith(mark)]
    for decode in stores or (*others, _without_escapes, _from_base64):
        for inner in decode(content, path):
            yield from decoded(inner, None, depth - 1)


def _without_escapes(content: bytes, _: Path | None) -> Iterator[bytes]:
    """One level of JSON's escapes undone. Escapes in escaped JSON are undone at the next depth."""

    def plain(match: re.Match[bytes]) -> bytes:
        code, character = match.groups()
        return chr(int(code, 16)).encode(errors="replace") if code else ESCAPED.get(character, character)

    if b"\\" in content:
        yield ESCAPE.sub(plain, content)


def _from_base64(content: bytes, _: Path | None) -> Iterator[bytes]:
    """What runs of base64 stand for, at each of the four places where a group of letters may begin."""
    for run in BASE64.findall(BASE64_LINE_BREAK.sub(b"", content)):
        for start in range(4):
            whole = run[start : start + (len(run) - start) // 4 * 4]
            rest = run[start + len(whole) :]
            padded = whole + (rest.ljust(4, b"A") if len(rest) > 1 else b"")
            yield base64.b64decode(padded.translate(bytes.maketrans(b"-_", b"+/")))


def _frame(frame: pl.DataFrame) -> Iterator[bytes]:
    """The values of all columns as they lie in memory, text contiguous and numbers as their bytes."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    for column in table.columns:
        for chunk in column.chunks:
            yield from (bytes(buffer) for buffer in _buffers(chunk))
    yield frame.write_json().encode()


def _buffers(chunk: pyarrow.Array) -> Iterator[pyarrow.Buffer]:
    yield from (buffer for buffer in chunk.buffers() if buffer is not None)
    if pyarrow.types.is_dictionary(chunk.type):
        yield from _buffers(chunk.dictionary)


def _parquet(content: bytes, _: Path | None) -> Iterator[bytes]:
    yield from _frame(pl.read_parquet(io.BytesIO(content)))
    yield repr(pl.read_parquet_metadata(io.BytesIO(content))).encode()


def _arrow(content: bytes, _: Path | None) -> Iterator[bytes]:
    yield from _frame(pl.read_ipc(io.BytesIO(content)))


def _sqlite(content: bytes, path: Path | None) -> Iterator[bytes]:
    with _beside_its_log(content, path) as database, closing(sqlite3.connect(database)) as connection:
        connection.text_factory = bytes
        names = [name.decode() for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        for name in names:
            values = [value for row in connection.execute(f'select * from "{name}"') for value in row]
            yield b"\0".join(value if isinstance(value, bytes) else str(value).encode() for value in values)
            yield from (value for value in values if isinstance(value, bytes))


def _duckdb(content: bytes, path: Path | None) -> Iterator[bytes]:
    with _beside_its_log(content, path) as database, duckdb.connect(str(database)) as connection:
        named = "select table_schema, table_name from information_schema.tables"
        for schema, name in connection.execute(named).fetchall():
            yield from _frame(connection.sql(f'from "{schema}"."{name}"').pl())


class _beside_its_log:
    """A copy of a database with the files of its latest writes, for as long as it is read."""

    def __init__(self, content: bytes, path: Path | None) -> None:
        self._content, self._path = content, path

    def __enter__(self) -> Path:
        self._folder = tempfile.TemporaryDirectory()
        database = Path(self._folder.name) / "database"
        database.write_bytes(self._content)
        for suffix in COMPANIONS if self._path is not None else ():
            companion = Path(f"{self._path}{suffix}")
            if companion.exists():
                shutil.copy(companion, f"{database}{suffix}")
        return database

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _gzip(content: bytes, _: Path | None) -> Iterator[bytes]:
    with suppress(OSError, EOFError, zlib.error):  # two bytes may stand at the beginning of anything
        yield gzip.decompress(content)


def _zlib(content: bytes, _: Path | None) -> Iterator[bytes]:
    with suppress(zlib.error):
        yield zlib.decompressobj().decompress(content)


def _zstandard(content: bytes, _: Path | None) -> Iterator[bytes]:
    yield pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd").read()


def _zip(content: bytes, _: Path | None) -> Iterator[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        yield "\0".join(archive.namelist()).encode()
        yield from (archive.read(name) for name in archive.namelist())


def _pickle(content: bytes, _: Path | None) -> Iterator[bytes]:
    arguments: list[object] = []
    with suppress(Exception):  # much begins like a pickle, and the module that reads them fails in any way
        arguments.extend(argument for _, argument, _ in pickletools.genops(content))
    yield "\0".join(argument for argument in arguments if isinstance(argument, str)).encode(errors="replace")
    yield from (bytes(argument) for argument in arguments if isinstance(argument, bytes | bytearray))


Decoder = Callable[[bytes, Path | None], Iterator[bytes]]
# Offset and bytes by which a format is known for sure, whatever the file is called.
STORES: tuple[tuple[int, bytes, Decoder], ...] = (
    (0, b"PAR1", _parquet),
    (0, b"ARROW1", _arrow),
    (0, b"SQLite format 3", _sqlite),
    (8, b"DUCK", _duckdb),
    (0, b"PK\x03\x04", _zip),
    (0, b"\x28\xb5\x2f\xfd", _zstandard),
)
# Beginnings that something else may have as well.
OTHERS: tuple[tuple[bytes | tuple[bytes, ...], Decoder], ...] = (
    (b"\x1f\x8b", _gzip),
    ((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), _zlib),
    ((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(", b"]", b"}", b"c", b"V", b"S"), _pickle),
)
