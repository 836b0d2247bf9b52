"""Looks for a text in everything a folder holds, decoded: a plain search misses what a format compresses or splits."""

import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import polars as pl


def files_holding(folder: Path, text: str) -> set[Path]:
    """The files under `folder` in which `text` occurs, whatever its case."""
    wanted = text.lower()
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"  # Opening a database changes files beside it, which its owner still uses.
        shutil.copytree(folder, copy)
        files = [path for path in copy.rglob("*") if path.is_file()]
        found = {path for path in files if wanted in path.read_bytes().decode(errors="replace").lower()}
        found |= {path for path in files if any(wanted in content.lower() for content in _decoded(path))}
        return {folder / path.relative_to(copy) for path in found}


def _decoded(path: Path) -> Iterator[str]:
    start = path.read_bytes()[:16] if path.exists() else b""
    for offset, mark, decode in DECODERS:
        if start.startswith(mark, offset):
            yield from decode(path)


def _parquet(path: Path) -> Iterator[str]:
    yield pl.read_parquet(path).write_json()
    yield repr(pl.read_parquet_metadata(path))


def _sqlite(path: Path) -> Iterator[str]:
    with closing(sqlite3.connect(path)) as connection:
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
