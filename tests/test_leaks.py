"""The search for leaks finds a planted text in every kind of store that a run writes, and nothing in a clean one."""

import base64
import gzip
import io
import json
import pickle
import shutil
import sqlite3
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow
import pytest
import torch
from safetensors.numpy import save_file

from tests.leaks import files_holding, needles_in

SECRET = "zqé4711-Kumquat"
CLEAN = "nothing to be seen, however long one looks"

Plant = Callable[[Path, str], object]


def sqlite(path: Path, value: str | bytes) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table events (body)")
    connection.executemany("insert into events values (?)", [(value,), ("filler " * 3000,), (value,)])
    connection.commit()
    connection.close()


def sqlite_log(path: Path, text: str) -> None:
    """A database as a crash leaves it: what was written last is in the log only, and compressed."""
    with sqlite3.connect(path.with_suffix(".live")) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table events (body)")
        connection.execute("insert into events values (?)", (zlib.compress(text.encode()),))
        connection.commit()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path.with_suffix('.live')}{suffix}", f"{path}{suffix}")
    connection.close()
    path.with_suffix(".live").unlink()


def database(path: Path, text: str) -> None:
    """Stored backwards, so that only a reader of the view sees the text."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("create table texts as select ? as text", (text[::-1],))
        connection.execute("create view readable as select reverse(text) as text from texts")


def compressed_column(path: Path, text: str) -> None:
    pl.DataFrame({"lists": [[f"{text} and {n}", "x"] for n in range(2000)]}).write_parquet(path, compression="zstd")


def zstandard(path: Path, text: str) -> None:
    with pyarrow.output_stream(str(path), compression="zstd") as stream:
        stream.write(text.encode() * 50)


def archive(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("member", text * 50)


STORES: dict[str, Plant] = {
    "text": lambda path, text: path.write_text(f"before {text} after"),
    "text in capitals": lambda path, text: path.write_text(text.upper()),
    "latin-1": lambda path, text: path.write_text(text, encoding="latin-1"),
    "utf-16": lambda path, text: path.write_text(text, encoding="utf-16"),
    "array of texts": lambda path, text: np.save(path.open("wb"), np.array([text])),
    "parquet": lambda path, text: pl.DataFrame({"text": [text]}).write_parquet(path),
    "parquet, compressed lists": compressed_column,
    "parquet, categories": lambda path, text: pl.DataFrame(
        {"a": pl.Series([text], dtype=pl.Categorical)}
    ).write_parquet(path),
    "parquet metadata": lambda path, text: pl.DataFrame({"a": [1]}).write_parquet(path, metadata={"note": text}),
    "arrow": lambda path, text: pl.DataFrame({"text": [text * 50]}).write_ipc(path, compression="zstd"),
    "sqlite": sqlite,
    "sqlite, compressed": lambda path, text: sqlite(path, zlib.compress(text.encode())),
    "sqlite, not merged": sqlite_log,
    "duckdb": database,
    "gzip": lambda path, text: path.write_bytes(gzip.compress(text.encode())),
    "zlib": lambda path, text: path.write_bytes(zlib.compress(text.encode())),
    "zstandard": zstandard,
    "zip": archive,
    "pickle": lambda path, text: path.write_bytes(pickle.dumps({"key": [text]})),
    "pickle, oldest protocol": lambda path, text: path.write_bytes(pickle.dumps([text], protocol=0)),
    "checkpoint of torch": lambda path, text: torch.save({"text": text, "tensor": torch.ones(2)}, path),
    "safetensors metadata": lambda path, text: save_file({"a": np.ones(2)}, path, metadata={"note": text}),
    "safetensors tensor": lambda path, text: save_file({"a": np.frombuffer(text.encode(), np.uint8)}, path),
    "json": lambda path, text: path.write_text(json.dumps({"key": text})),
    "json in json": lambda path, text: path.write_text(json.dumps(json.dumps(json.dumps(text)))),
    "base64": lambda path, text: path.write_bytes(b"image/png;base64," + base64.b64encode(text.encode() * 9)),
    "base64 after letters": lambda path, text: path.write_bytes(b"abc" + base64.b64encode(text.encode() * 9)),
    "base64 for addresses": lambda path, text: path.write_bytes(base64.urlsafe_b64encode(b"\xff\xfe" + text.encode())),
    "base64 in lines": lambda path, text: path.write_bytes(base64.encodebytes(b"x" * 50 + text.encode())),
    "gzip of a pickle": lambda path, text: path.write_bytes(gzip.compress(pickle.dumps([text] * 50))),
    "base64 of a zip of a pickle": lambda path, text: path.write_bytes(base64.b64encode(zipped(pickle.dumps(text)))),
    "json of base64 of gzip": lambda path, text: path.write_text(
        json.dumps({"body": base64.b64encode(gzip.compress(text.encode() * 50)).decode()})
    ),
}


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("data.pkl", content * 20)
    return stream.getvalue()


@pytest.mark.parametrize("store", STORES)
def test_a_planted_text_is_found_in_every_kind_of_store(tmp_path: Path, store: str) -> None:
    planted, clean = tmp_path / "planted", tmp_path / "clean"
    STORES[store](planted, SECRET)
    STORES[store](clean, CLEAN)
    found = files_holding(tmp_path, SECRET)
    assert planted in found
    assert clean not in found


def test_a_text_is_found_in_the_name_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / f"part-{SECRET}").mkdir()
    assert files_holding(tmp_path, SECRET) == {tmp_path / f"part-{SECRET}"}


def test_of_many_texts_those_that_occur_are_named(tmp_path: Path) -> None:
    needles = [f"needle number {number} of many" for number in range(500)]
    content = pickle.dumps([needles[3].upper(), needles[499]])
    assert needles_in(content, *needles, b"\x00\x01\x02\x03") == {needles[3], needles[499]}


def test_numbers_are_found_as_the_bytes_that_they_are_in_memory(tmp_path: Path) -> None:
    vector = np.random.default_rng(0).normal(size=64).astype(np.float32)
    rows = {"vector": [vector.tolist(), [0.0] * 64]}
    pl.DataFrame(rows, schema={"vector": pl.Array(pl.Float32, 64)}).write_parquet(tmp_path / "vectors")
    torch.save({"weights": torch.from_numpy(vector)}, tmp_path / "checkpoint")
    assert files_holding(tmp_path, vector.tobytes()) == {tmp_path / "vectors", tmp_path / "checkpoint"}
    assert files_holding(tmp_path, (vector + 1).tobytes()) == set()


def test_a_store_that_cannot_be_read_is_no_clean_one(tmp_path: Path) -> None:
    pl.DataFrame({"text": [CLEAN] * 99}).write_parquet(tmp_path / "rows")
    (tmp_path / "rows").write_bytes((tmp_path / "rows").read_bytes()[:-20])
    with pytest.raises(pl.exceptions.PolarsError):
        files_holding(tmp_path, SECRET)


def test_a_search_changes_nothing_in_what_it_searches(tmp_path: Path) -> None:
    sqlite_log(tmp_path / "events.db", SECRET)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    files_holding(tmp_path, SECRET)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
