"""What leaves a private step when a source cannot be read: nothing of a row, wherever in the source it stands."""

import gzip
import json
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from dp_assets.pipeline.corpus import read_source, source_of
from dp_assets.privacy.errors import PublicError
from resources.private.private_step import PrivateStepFailed, private_step
from tests.tiny_pipeline import tiny_profile

MARK = "zq4711kumquat"
COLUMNS = {"text": "prompt", "user_id": "user"}
Described = dict[str, Any]


def file_of(name: str, content: str | bytes) -> Callable[[Path], Described]:
    """A source of one file with this content."""

    def written(folder: Path) -> Described:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return {"kind": "file", "path": str(path), "columns": COLUMNS}

    return written


def folder_of(name: str, content: str | bytes) -> Callable[[Path], Described]:
    """A source of the folder in which the file lies."""
    return lambda folder: file_of(f"files/{name}", content)(folder) | {"path": str(folder / "files")}


def parquet_of(**columns: Any) -> Callable[[Path], Described]:
    def written(folder: Path) -> Described:
        pl.DataFrame(columns).write_parquet(folder / "a.parquet")
        return {"kind": "file", "path": str(folder / "a.parquet"), "columns": COLUMNS}

    return written


def query_of(select: str) -> Callable[[Path], Described]:
    """A query on a DuckDB file whose one table holds the mark."""

    def written(folder: Path) -> Described:
        with duckdb.connect(folder / "chat.duckdb") as connection:
            connection.execute(f"create table chat as select '{MARK}' as prompt, '{MARK}' as user")
        return {"kind": "sql", "columns": COLUMNS, "path": str(folder / "chat.duckdb"), "query": select}

    return written


def sqlite_of(select: str) -> Callable[[Path], Described]:
    def written(folder: Path) -> Described:
        with sqlite3.connect(folder / "chat.sqlite") as connection:
            connection.execute("create table chat (prompt, user)")
            connection.execute("insert into chat values (?, ?)", [MARK, MARK])
        return {"kind": "sql", "columns": COLUMNS, "url_variable": "CORPUS_URL", "query": select}

    return written


SAID = {
    "CSV without a header line": file_of("a.csv", f"{MARK},anna\n"),
    "CSV with a header that names a cell twice": file_of("a.csv", f"{MARK},{MARK}\n"),
    "packed file that is damaged": file_of("a.csv.gz", gzip.compress(MARK.encode() * 99)[:30] + MARK.encode()),
    "packed file that is none": file_of("a.jsonl.gz", MARK),
    "JSON with other keys": file_of("a.jsonl", json.dumps({MARK: "why?", "user": MARK})),
    "Parquet with other columns": parquet_of(**{MARK: ["why?"], "user": [MARK]}),
    "Parquet with a nested type": parquet_of(prompt=[{MARK: 1}], user=[MARK]),
    "Parquet that is none": file_of("a.parquet", MARK),
    "damaged file of a folder": folder_of(f"{MARK}.parquet", MARK),
    "file of a folder without a column": folder_of(f"{MARK}.csv", f"prompt\n{MARK}\n"),
    "folders that name a column twice": folder_of(f"user={MARK}/user={MARK}/a.csv", f"prompt\n{MARK}\n"),
    "query that fails on the first row": query_of("select prompt::int as prompt, user from chat"),
    "query with a message of its own": query_of("select error(prompt) as prompt, user from chat"),
    "query with other columns": query_of(f"select prompt as {MARK}, user from chat"),
    "query that SQLite refuses": sqlite_of(f"select prompt, user from chat where json(prompt) = '{MARK}'"),
}
HIDDEN = {
    "JSON document that is damaged": file_of("a.json", f'[\n{{"prompt": "{MARK}",\n "user": {MARK}}}]'),
    "file that names nobody": folder_of(f"{MARK}.csv", f"prompt,user\n{MARK},\n"),
    "JSON document that is too deep": file_of("a.json", f'[{{"prompt": "{MARK}", "user": {"[" * 100_000}'),
}


def raised_outside(described: Described, folder: Path) -> BaseException:
    """What a private step raises that reads all rows of a source."""
    profile, scratch = tiny_profile(folder / "unused", folder, source=described), folder / "scratch"
    scratch.mkdir()
    with pytest.raises(PublicError) as caught, private_step(str(folder / "private")):
        read_source(source_of(profile), profile.corpus.unit, scratch).collect()
    return caught.value


def everything_said_by(error: BaseException) -> str:
    """The error as tracebacks print it, with its arguments and attributes."""
    return f"{''.join(traceback.format_exception(error))} {error.args!r} {vars(error)!r} {error.__context__!r}"


@pytest.mark.parametrize("kind", [*SAID, *HIDDEN])
def test_no_error_of_a_source_quotes_a_row_or_the_name_of_a_file_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("CORPUS_URL", f"sqlite:///{tmp_path}/chat.sqlite")
    error = raised_outside((SAID | HIDDEN)[kind](tmp_path), tmp_path)
    assert MARK not in everything_said_by(error)
    assert isinstance(error, PrivateStepFailed) == (kind in HIDDEN)
