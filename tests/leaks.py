"""Looks for a text in everything a folder holds, decoded: a plain search misses what a format compresses or splits."""

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import polars as pl


def files_holding(folder: Path, text: str) -> set[Path]:
    """The files under `folder` in which `text` occurs, whatever its case."""
    wanted = text.lower()
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path for path in files if any(wanted in content.lower() for content in _contents(path))}


def _contents(path: Path) -> Iterator[str]:
    raw = path.read_bytes()
    yield raw.decode(errors="replace")
    for offset, mark, decode in DECODERS:
        if raw.startswith(mark, offset):
            yield from decode(path)


def _parquet(path: Path) -> Iterator[str]:
    yield pl.read_parquet(path).write_json()
    yield repr(pl.read_parquet_metadata(path))


def _sqlite(path: Path) -> Iterator[str]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        for name in names:
            for row in connection.execute(f'select * from "{name}"'):
                yield from (_unpacked(value) for value in row)


def _unpacked(value: object) -> str:
    """A value as text; Dagster stores some of its records compressed."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return zlib.decompress(value).decode(errors="replace")
    except zlib.error:
        return value.decode(errors="replace")


def _duckdb(path: Path) -> Iterator[str]:
    with duckdb.connect(str(path), read_only=True) as connection:
        names = connection.execute("select table_name from information_schema.tables").fetchall()
        yield from (str(connection.execute(f'from "{name}"').fetchall()) for (name,) in names)


# Offset and bytes by which a format is known, whatever the file is called.
DECODERS: tuple[tuple[int, bytes, Callable[[Path], Iterator[str]]], ...] = (
    (0, b"PAR1", _parquet),
    (0, b"SQLite format 3", _sqlite),
    (8, b"DUCK", _duckdb),
)
