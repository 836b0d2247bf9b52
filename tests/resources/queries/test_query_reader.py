"""Queries as sources: read-only, in batches, one SELECT; refusals name configuration only."""

import sqlite3
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest

from resources.queries import query_reader
from resources.queries.query_reader import ROWS_IN_A_BATCH, QueryRefused, duckdb_batches, sql_batches

URL = "CORPUS_URL"
ENDLESS = 10**15


@pytest.fixture
def duckdb_file(tmp_path: Path) -> Path:
    with duckdb.connect(tmp_path / "chat.duckdb") as connection:
        connection.execute("create table messages (body varchar, who bigint, sent timestamptz)")
        connection.execute("insert into messages values ('Why?', 7, '2026-01-02 03:04:05+02'), (null, null, null)")
    return tmp_path / "chat.duckdb"


@pytest.fixture
def sqlite_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with sqlite3.connect(tmp_path / "chat.sqlite") as connection:
        connection.execute("create table messages (body text, who, sent text)")
        rows = [("Why?", 7, "2026-01-02"), ("How?", "7", None), ("What?", 7.0, None), (b"\xff", None, None)]
        connection.executemany("insert into messages values (?, ?, ?)", rows)
    monkeypatch.setenv(URL, f"sqlite:///{tmp_path / 'chat.sqlite'}")
    return tmp_path / "chat.sqlite"


def from_duckdb(query: str, folder: Path, database: Path | None = None) -> pl.DataFrame:
    return pl.concat(duckdb_batches(database, query, folder))


def test_a_duckdb_file_is_read_and_cannot_be_changed(duckdb_file: Path, tmp_path: Path) -> None:
    rows = from_duckdb("select body as text, who, sent from messages", tmp_path, duckdb_file)
    assert rows.select("text", "who").rows() == [("Why?", 7), (None, None)]
    assert rows["sent"].dt.convert_time_zone("UTC")[0].replace(tzinfo=None) == datetime(2026, 1, 2, 1, 4, 5)
    before = duckdb_file.read_bytes()
    for query in ("delete from messages", "insert into messages values ('x', 1, null) returning body"):
        with pytest.raises(QueryRefused, match="must be one SELECT"):
            from_duckdb(query, tmp_path, duckdb_file)
    assert duckdb_file.read_bytes() == before


def test_without_a_database_a_query_reads_the_files_that_it_names(tmp_path: Path) -> None:
    for number in range(2):
        pl.DataFrame({"body": [f"Question {number}?"]}).write_parquet(tmp_path / f"{number}.parquet")
    rows = from_duckdb(f"select body as text from '{tmp_path}/*.parquet' where body like '%1%'", tmp_path)
    assert rows["text"].to_list() == ["Question 1?"]


def test_an_endless_result_gives_its_first_batch(tmp_path: Path, sqlite_url: Path) -> None:
    """So a result is never held whole, neither by DuckDB nor by the driver."""
    batches = duckdb_batches(None, f"select 'x' || i as text from range({ENDLESS}) t(i)", tmp_path)
    assert [len(next(batches)) for _ in range(3)] == [0, ROWS_IN_A_BATCH, ROWS_IN_A_BATCH]
    batches.close()  # type: ignore[attr-defined]
    endless = f"with recursive n(i) as (select 1 union all select i + 1 from n where i < {ENDLESS}) select i from n"
    others = sql_batches(URL, endless)
    assert [len(next(others)) for _ in range(3)] == [0, ROWS_IN_A_BATCH, ROWS_IN_A_BATCH]
    others.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("selec body", r"DuckDB refuses source.query \(ParserException\)"),
        ("select body from nowhere", r"nowhere, which is no table of the database"),
        ("select nothing from messages", r"DuckDB refuses source.query \(BinderException\)"),
        ("select 1; select 2", "must be one SELECT"),
    ],
)
def test_a_query_that_cannot_run_is_refused_by_the_kind_of_its_error(
    duckdb_file: Path, tmp_path: Path, query: str, message: str
) -> None:
    with pytest.raises(QueryRefused, match=message):
        from_duckdb(query, tmp_path, duckdb_file)


def test_a_file_that_is_no_database_is_refused_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "x.duckdb").write_text("a secret " * 500)
    with pytest.raises(QueryRefused, match=r"cannot be opened as a DuckDB database \(\w+\)") as refusal:
        from_duckdb("select 1", tmp_path, tmp_path / "x.duckdb")
    assert "secret" not in str(refusal.value)


def test_what_another_database_holds_stays_as_its_driver_gives_it(sqlite_url: Path) -> None:
    rows = pl.concat(sql_batches(URL, "select body, who, sent from messages"))
    assert set(rows.dtypes) == {pl.Object()}
    assert rows.rows() == [
        ("Why?", 7, "2026-01-02"),
        ("How?", "7", None),
        ("What?", 7.0, None),
        (b"\xff", None, None),
    ]


@pytest.mark.parametrize("value", ["interval 1 day", "cast('x' as union(k varchar))"])
def test_a_type_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path, value: str) -> None:
    with pytest.raises(QueryRefused, match=r"source\.query selects who \((INTERVAL|UNION).*cast it to varchar"):
        from_duckdb(f"select 'why?' as body, {value} as who", tmp_path)


def test_another_database_is_not_changed(sqlite_url: Path) -> None:
    before = sqlite_url.read_bytes()
    for query in ("delete from messages", "drop table messages"):
        with pytest.raises(QueryRefused, match="must be one SELECT"):
            list(sql_batches(URL, query))
    assert sqlite_url.read_bytes() == before


def test_an_address_is_never_repeated(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(QueryRefused, match=r"CORPUS_URL, named by source.url_variable, is not set"):
        list(sql_batches(URL, "select 1"))
    for address in ("sqlite:////nowhere/hunter2.db", "nosuch://me:hunter2@host/db", "me:hunter2@host", "://hunter2"):
        monkeypatch.setenv(URL, address)
        with pytest.raises(QueryRefused, match="CORPUS_URL cannot be reached") as refusal:
            list(sql_batches(URL, "select 1"))
        assert "hunter2" not in str(refusal.value)
        assert refusal.value.__cause__ is None
    assert "hunter2" not in "".join(capfd.readouterr())


def test_a_query_that_the_database_refuses_is_named_by_the_kind_of_its_error(sqlite_url: Path) -> None:
    with pytest.raises(QueryRefused, match=r"the database refuses source.query \(OperationalError\)"):
        list(sql_batches(URL, "select nothing from messages"))


PLAIN = "select body, '12:30 :name %s %(x)s 50% ;' as note from messages where body <> ':x' and sent like '%'"


@pytest.mark.parametrize(
    "query",
    [
        PLAIN,
        f"-- what people wrote\n/* it's all; of it */\n{PLAIN}",
        f"{PLAIN};",
        f"  {PLAIN} -- the end; really\n;\n -- yes",
        f"with m as (select * from messages) {PLAIN}",
        f"SELECT(body), note from ({PLAIN})",
        f'select body, note as "a;b" from ({PLAIN})',
    ],
)
def test_a_query_is_sent_as_it_stands_without_comments_and_semicolons_around_it(sqlite_url: Path, query: str) -> None:
    rows = pl.concat(sql_batches(URL, query))
    assert rows.rows() == [("Why?", "12:30 :name %s %(x)s 50% ;")]


@pytest.mark.parametrize(
    "query",
    [
        "-- select\ndelete from messages",
        "/* select */ delete from messages",
        "select 1; delete from messages",
        "select ';' as a; -- \n delete from messages",
        "; delete from messages",
        "-- nothing",
        ";",
        "explain select 1",
    ],
)
def test_what_is_no_single_select_is_refused_whatever_comments_say(sqlite_url: Path, query: str) -> None:
    with pytest.raises(QueryRefused, match="must be one SELECT"):
        list(sql_batches(URL, query))


def test_two_columns_of_one_name_are_refused_by_that_name(sqlite_url: Path, duckdb_file: Path, tmp_path: Path) -> None:
    query, message = "select body, who, body from messages", r"gives the column 'body' twice; name one of them with AS"
    with pytest.raises(QueryRefused, match=message):
        list(sql_batches(URL, query))
    with pytest.raises(QueryRefused, match=message):
        list(duckdb_batches(duckdb_file, query, tmp_path))


def test_what_duckdb_cannot_hold_goes_to_the_folder_that_is_handed_over(
    duckdb_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_reader, "not_row_wise", lambda *_: [])  # else the setting could not be asked for
    spilled = tmp_path / "spilled"
    rows = from_duckdb("select current_setting('temp_directory') as place from messages", spilled, duckdb_file)
    assert set(rows["place"]) == {str(spilled)}


@pytest.mark.parametrize(
    "files", ["['{0}/a.parquet', '{0}/b.parquet']", "['{0}/b.parquet', '{0}/a.parquet']", "'{0}/*.parquet'"]
)
def test_files_with_floats_in_one_and_whole_numbers_in_another_are_refused(tmp_path: Path, files: str) -> None:
    """DuckDB would cast 9007199254740993 of one file to 9007199254740992, or read the float as if it was exact."""
    pl.DataFrame({"t": ["a"], "u": [2**53 + 1], "n": [["x"]]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"t": ["b"], "u": [2.0**53], "n": [["y"]]}).write_parquet(tmp_path / "b.parquet")
    read = f"read_parquet({files.format(tmp_path)})"
    for query in (f"select t, u from {read}", f"from {read}", f"with x as (from {read}) select u as v, t from x"):
        with pytest.raises(QueryRefused, match="the column 'u' as floats from one file and as another type"):
            from_duckdb(query, tmp_path)
    assert from_duckdb(f"select t, n from {read}", tmp_path).height == 2


def test_a_table_name_of_files_is_looked_at_as_read_parquet_is(tmp_path: Path) -> None:
    pl.DataFrame({"u": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"u": [1.0]}, schema={"u": pl.Float32}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(QueryRefused, match="the column 'u' as floats"):
        from_duckdb(f"from '{tmp_path}/*.parquet'", tmp_path)
