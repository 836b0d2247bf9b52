"""CSV and JSON as tools write them, and rows that cost no other when they are broken."""

import codecs
import gzip
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow
import pytest

from dp_assets.corpus import text_files
from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.sources import FileSource
from dp_assets.corpus.text_files import BrokenDocument, UnreadableFile, header_of, rows_of

ROWS = [{"t": "why?", "u": "käufer"}, {"t": 'a "quoted", text\nof two lines', "u": "7"}, {"t": "{[", "u": None}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, ensure_ascii=False)
DUCKDB_ARRAY = "[\n" + ",\n".join("\t" + json.dumps(row) for row in ROWS) + "\n]\n"
JQ = "\n".join(json.dumps(row, indent=2) for row in ROWS) + "\n"
PANDAS = '[\n  {\n    "t":"why?",\n    "u":"k\\u00e4ufer"\n  },' + json.dumps(ROWS[1:], indent=2)[1:]
CSV = 't,u\nwhy?,käufer\n"a ""quoted"", text\nof two lines",7\n{[,\n'
CRLF = 't,u\r\n"why?","käufer"\r\n"a ""quoted"", text\nof two lines","7"\r\n{[,\r\n'

WRITTEN = {
    "lines.jsonl": LINES,
    "lines.NDJSON": LINES,
    "lines.json": LINES,
    "no end.jsonl": LINES.rstrip("\n"),
    "blank lines.jsonl": "\n\n" + LINES.replace("\n", "\r\n\n"),
    "array.json": ARRAY,
    "array.jsonl": ARRAY,
    "array of DuckDB.json": DUCKDB_ARRAY,
    "pretty array.json": json.dumps(ROWS, indent=4),
    "pretty array of pandas.json": PANDAS,
    "pretty objects of jq.jsonl": JQ,
    "rows.csv": CSV,
    "rows.CSV": CRLF,
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_rows_come_of_every_layout_and_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (tmp_path / name).write_bytes(mark + WRITTEN[name].encode(encoding))
    assert list(rows_of(tmp_path / name)) == ROWS


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("array", ["[]", "[ ]", "[\n]", "[\n\t\n]\n", "\n[]\n\n\n", "[\n]\r\n\n\n"])
def test_an_array_without_objects_is_no_rows(tmp_path: Path, array: str, mark: str) -> None:
    (tmp_path / "rows.json").write_text(mark + array, newline="")
    assert list(rows_of(tmp_path / "rows.json")) == []


def test_an_empty_array_among_lines_is_a_broken_row_and_changes_no_other(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("[]\n" + LINES)
    assert list(rows_of(tmp_path / "rows.jsonl")) == [None, *ROWS]
    (tmp_path / "one.jsonl").write_text(json.dumps(ROWS[0]) + "\n[]\n")
    assert list(rows_of(tmp_path / "one.jsonl")) == [ROWS[0], None]


@pytest.mark.parametrize("row", ['{"t": "b", "u": "x", "u": null}', '{"t": "b", "u": {"id": 1, "id": 2}}'])
@pytest.mark.parametrize("layout", ["{}\n{}\n{}\n", "[{}, {}, {}]", "[\n{},\n{},\n{}\n]"])
def test_an_object_that_names_a_key_twice_is_a_broken_row(tmp_path: Path, layout: str, row: str) -> None:
    (tmp_path / "rows.json").write_text(layout.format('{"t": "a", "u": "1"}', row, '{"t": "c", "u": "1"}'))
    assert list(rows_of(tmp_path / "rows.json")) == [{"t": "a", "u": "1"}, None, {"t": "c", "u": "1"}]


@pytest.mark.parametrize("name", ["lines.jsonl", "array.json", "rows.csv"])
def test_packed_files_are_read_in_all_their_parts(tmp_path: Path, name: str) -> None:
    content = WRITTEN[name].encode()
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content[:9]) + gzip.compress(content[9:]))
    (tmp_path / f"{name}.ZST").write_bytes(pyarrow.compress(content, codec="zstd", asbytes=True))
    assert list(rows_of(tmp_path / f"{name}.gz")) == list(rows_of(tmp_path / f"{name}.ZST")) == ROWS


@pytest.mark.parametrize("size", range(1, 40))
def test_a_document_is_read_whatever_pieces_it_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(text_files, "CHARACTERS_IN_A_CHUNK", size)
    for name in ("lines.jsonl", "array.json", "array of DuckDB.json", "pretty objects of jq.jsonl"):
        (tmp_path / name).write_text(WRITTEN[name], encoding="utf-8")
        if size > 2 or "lines" in name:  # the layout shows in the first two pieces
            assert list(rows_of(tmp_path / name)) == ROWS


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        (r'"escaped \" quote, here",a', ['escaped " quote, here', "a"]),
        (r'"he said \"why?\"",a', ['he said "why?"', "a"]),
        (r'"at the end \"",a', ['at the end "', "a"]),
        (r'"C:\",a', ["C:\\", "a"]),
        ('"over\nlines with ""quotes""\n",a', ['over\nlines with "quotes"\n', "a"]),
        ('5" disk,a', ['5" disk', "a"]),
        ('"",a', [None, "a"]),
        ('"unmatched,a', None),
        ('"a" b,a', None),
        ("too,many,cells", None),
        ("too few", None),
        ('"too"",few",a",', None),
    ],
)
@pytest.mark.parametrize("after", [["how?,b"], ['"how, so?",b'], ['b,"how?"'], [], ["how?,b"] * 50])
def test_a_csv_row_costs_its_own_row_only_however_it_is_quoted(
    tmp_path: Path, row: str, cells: list[str | None] | None, after: list[str]
) -> None:
    alone, together = tmp_path / "alone.csv", tmp_path / "together.csv"
    alone.write_text("\n".join(["text,user", *after]))
    together.write_text("\n".join(["text,user", "who?,c", row, *after]))
    expected = None if cells is None else dict(zip(("text", "user"), cells, strict=True))
    assert list(rows_of(together)) == [{"text": "who?", "user": "c"}, expected, *rows_of(alone)]


@pytest.mark.parametrize(
    "damage", ["{", '{"t": "cut', "junk", '"', '{"t": 1}}', '{"t": "\x01"}', "[[" * 9, "[" * 9_999]
)
def test_damage_in_a_json_document_costs_its_own_line_only(tmp_path: Path, damage: str) -> None:
    lines = [json.dumps(row) for row in ROWS]
    for where in range(1, 4):
        (tmp_path / "a.json").write_text("[" + ",\n".join([*lines[:where], damage, *lines[where:]]) + "]")
        rows = [row for row in rows_of(tmp_path / "a.json") if row is not None and "u" in row]
        assert rows == ROWS


@pytest.mark.parametrize("indent", [0, 1, 4])
@pytest.mark.parametrize("before", [[], [{"u": "bert", "t": "who?"}]])
def test_damage_in_an_object_of_several_lines_breaks_the_document_and_makes_no_rows_of_what_is_nested(
    tmp_path: Path, indent: int, before: list[dict[str, str]]
) -> None:
    nested = {"u": "anna", "t": "why?", "replies": [{"t": "how?"}, {"t": "when?"}]}
    written = json.dumps([*before, nested, nested], indent=indent)
    for damaged in ('"u": anna', '"u": "an\\na"'):
        (tmp_path / "a.json").write_text(written.replace('"u": "anna"', damaged.replace("\\n", "\\q"), 1))
        with pytest.raises(BrokenDocument):
            list(rows_of(tmp_path / "a.json"))


def test_an_object_of_several_lines_after_one_of_one_line_makes_no_rows_of_what_is_nested(tmp_path: Path) -> None:
    nested = json.dumps({"u": "anna", "replies": [{"t": "how?"}]}, indent=1).replace('"anna"', "anna")
    (tmp_path / "a.json").write_text('[{"u": "bert", "t": "who?"},\n' + nested + "]")
    with pytest.raises(BrokenDocument):
        list(rows_of(tmp_path / "a.json"))


def test_damage_in_a_document_of_one_line_breaks_the_document_and_is_not_left_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"t": "why?"}, {"t": why?}, {"t": "how?"}]')
    with pytest.raises(BrokenDocument):
        list(rows_of(tmp_path / "a.json"))


@pytest.mark.parametrize("seed", range(200))
def test_correctly_written_csv_comes_back_as_it_was(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    cells = ["".join(draw.choices('ab,"\\\n\r ', k=draw.randrange(8))) for _ in range(40)]
    frame = pl.DataFrame({"t": cells[:20], "u": cells[20:]})
    frame.write_csv(tmp_path / "a.csv")
    read = [(row["t"] or "", row["u"] or "") for row in rows_of(tmp_path / "a.csv") if row is not None]
    assert read == frame.rows()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.json.zst"])
def test_a_packed_file_that_is_none_is_refused_and_nothing_of_it_is_quoted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a secret")
    with pytest.raises(SourceError, match=r"source\.path .* cannot be opened or unpacked \(\w+\)") as refusal:
        FileSource(tmp_path / name, {"text": "t"}).scan()
    assert "secret" not in str(refusal.value)
    whole = gzip.compress(LINES.encode() * 500)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableFile):
        list(rows_of(tmp_path / "cut.jsonl.gz"))


def test_a_csv_file_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,u,u\nwhy?,a,b\n")
    with pytest.raises(UnreadableFile, match="names a column twice"):
        header_of(tmp_path / "a.csv")


def test_a_column_that_a_file_lacks_may_stand_in_the_names_of_its_folders(tmp_path: Path) -> None:
    for folder, name in (("u=anna%3A1/day=2026-01-11", "a.jsonl"), ("day=2026-01-12/u=ben", "b.csv")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_text('{"t": "why?"}' if name.endswith("l") else "t\nwhy?\n")
    (tmp_path / "u=__HIVE_DEFAULT_PARTITION__/day=x").mkdir(parents=True)
    pl.DataFrame({"t": ["why?"]}).write_parquet(tmp_path / "u=__HIVE_DEFAULT_PARTITION__/day=x/c.parquet")
    columns = {"text": "t", "user_id": "u", "created_at": "day"}
    rows = FileSource(tmp_path, columns).scan().collect().sort("user_id")
    assert rows["user_id"].to_list() == [None, "anna:1", "ben"]
    assert [str(time)[:10] for time in rows["created_at"]] == ["None", "2026-01-11", "2026-01-12"]
    assert rows["unread"].to_list() == ["created_at", None, None]


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as a file of the format that its name says, with null where a row lacks a column of the first one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(rows)
    if file.suffix == ".parquet":
        frame.write_parquet(file)
    elif file.suffix == ".csv":
        frame.write_csv(file)
    else:
        frame.write_ndjson(file)


SUFFIXES_OF_FOLDERS = ("parquet", "csv", "jsonl")


@pytest.mark.parametrize("suffix", SUFFIXES_OF_FOLDERS)
def test_a_folder_names_the_user_of_rows_that_name_nobody_themselves(tmp_path: Path, suffix: str) -> None:
    rows = [{"t": "a", "u": None, "day": "2026-01-11"}, {"t": "b", "u": "alice", "day": None}]
    write(tmp_path / f"u=alice/day=2026-01-11 00%3A00%3A00/a.{suffix}", rows)
    scanned = FileSource(tmp_path, {"text": "t", "user_id": "u", "created_at": "day"}).scan().collect()
    assert scanned["user_id"].to_list() == ["alice", "alice"]
    assert [str(time)[:10] for time in scanned["created_at"]] == ["2026-01-11"] * 2
    assert scanned["unread"].to_list() == [None, None]


@pytest.mark.parametrize("suffix", SUFFIXES_OF_FOLDERS)
def test_a_row_that_contradicts_its_folder_is_dropped_and_counted(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"u=7/a.{suffix}", [{"t": "a", "u": "7.0"}, {"t": "b", "u": "8"}])
    scanned = FileSource(tmp_path, {"text": "t", "user_id": "u"}).scan().collect()
    assert scanned["unread"].to_list() == [None, "folder"]


def test_two_folders_of_a_path_that_name_the_same_column_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "u=alice/u=ben/a.csv", [{"t": "a"}])
    with pytest.raises(SourceError, match="names a column that one above it names too") as refusal:
        FileSource(tmp_path, {"text": "t", "user_id": "u"}).require_opened()
    assert "alice" not in str(refusal.value)


def test_names_of_columns_are_unquoted_in_folders_as_their_values_are(tmp_path: Path) -> None:
    write(tmp_path / "user%20id=a%2Fb/a.csv", [{"t": "a"}])
    assert FileSource(tmp_path, {"text": "t", "user_id": "user id"}).scan().collect()["user_id"].to_list() == ["a/b"]


@pytest.mark.parametrize("other", ["userId", "User_ID", "USERID", "user id", "user-id", "\ufeffuser_id"])
@pytest.mark.parametrize("suffix", SUFFIXES_OF_FOLDERS)
def test_a_row_whose_user_stands_under_another_spelling_of_the_column_is_dropped_and_counted(
    tmp_path: Path, suffix: str, other: str
) -> None:
    rows = [{"t": "a", "user_id": "anna", other: None}, {"t": "b", "user_id": None, other: "ben"}]
    rows += [{"t": "c", "user_id": None, other: None}, {"t": "d", "user_id": "dora", other: "d"}]
    write(tmp_path / f"a.{suffix}", rows)
    scanned = FileSource(tmp_path, {"text": "t", "user_id": "user_id"}).scan().collect()
    assert scanned.select("user_id", "unread").rows() == [
        ("anna", None),
        (None, "spelling"),
        (None, None),
        ("dora", None),
    ]


def test_keys_of_json_that_are_spelled_otherwise_from_some_line_on_cost_their_rows_alone(tmp_path: Path) -> None:
    lines = ['{"t": "a", "user_id": 1}'] * 6_000 + ['{"t": "b", "userId": 1}', '{"T": "c", "user_id": 2}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    scanned = FileSource(tmp_path, {"text": "t", "user_id": "user_id"}).scan().collect()
    assert scanned["unread"].to_list() == [None] * 6_000 + ["spelling"] * 2


def test_a_parquet_file_of_a_folder_with_another_spelling_of_the_column_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [{"t": "a", "user_id": 1}])
    write(tmp_path / "b.parquet", [{"t": "b", "userId": 1}])
    with pytest.raises(SourceError, match=r"names user_id, which a file below .* lacks"):
        FileSource(tmp_path, {"text": "t", "user_id": "user_id"}).require_opened()


def test_a_column_of_punctuation_is_no_spelling_of_another(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"t": "a", "$": None, "_": "x"}])
    assert FileSource(tmp_path, {"text": "t", "user_id": "$"}).scan().collect()["unread"].to_list() == [None]


def test_a_table_with_a_log_is_refused_because_its_folder_holds_deleted_rows_too(tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()
    pl.DataFrame({"t": ["deleted"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="may hold rows that were deleted from it"):
        FileSource(tmp_path, {"text": "t"}).require_opened()


def test_checking_a_source_reads_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.csv").write_text(CSV)
    monkeypatch.setattr(text_files, "json_rows", None)
    monkeypatch.setattr(text_files, "csv_rows", None)
    FileSource(tmp_path, {"text": "t", "user_id": "u"}).require_opened()


def test_bytes_that_are_not_of_the_encoding_make_no_text_and_keep_the_id(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("t,u\nwhy?,J\xfcrgen\nwieso K\xe4ufer?,ben\n".encode("latin-1"))
    (tmp_path / "b.jsonl").write_bytes('{"t": "why?", "u": "J\xfcrgen"}\n{"t": "\xe4", "u": "ben"}\n'.encode("latin-1"))
    rows = FileSource(tmp_path, {"text": "t", "user_id": "u"}).scan().collect()
    assert rows["user_id"].to_list() == ["J\\udcfcrgen", "ben"] * 2
    assert rows.select("text", "unread").rows() == [("why?", None), (None, "text")] * 2
