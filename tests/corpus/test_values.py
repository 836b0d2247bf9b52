"""One table of the forms in which ids, texts, times and languages are stored, put to every reader.

Each form has one right answer. A reader gives it, or refuses the column by name and type; none gives null for what is
there and not understood.
"""

import csv
import datetime as dt
import json
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import duckdb
import polars as pl
import pytest

from dp_assets.corpus import hub_reader
from dp_assets.corpus.cohorts import cohort_expr
from dp_assets.corpus.columns import SourceError, understood
from dp_assets.corpus.prepare import Preparation, drop_erased, prepare, unit_of_user
from dp_assets.corpus.queries import QuerySource, ReadQuery
from dp_assets.corpus.schemas import SOURCE_ROWS
from dp_assets.corpus.settings import CohortSettings
from dp_assets.corpus.sources import FileSource
from dp_assets.corpus.users import canonical_user_ids
from dp_assets.privacy.units import PrivacyUnit, keyed_hash
from resources.queries.query_reader import duckdb_batches, sql_batches

ID = UUID("550e8400-e29b-41d4-a716-446655440000")
NINE = dt.datetime(2026, 1, 11, 9, 0, 7, tzinfo=dt.UTC)
MILLISECONDS = NINE.replace(microsecond=123_000)
NIGHT = NINE.replace(hour=0, minute=0, second=0)
SECONDS = int(NINE.timestamp())
TIMES_OF_ROLES = [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]
QUESTION = {"role": "user", "content": "why?"}

UNREAD = "unread"
"""The right answer for a value that is there and not understood: the row says so."""

# What is stored, and what is right.
Forms = dict[str, tuple[Any, Any]]
IDS: Forms = {
    "text": ("käufer-1", "käufer-1"),
    "text of a number": (" 007 ", "7"),
    "number": (7, "7"),
    "whole float": (7.0, "7"),
    "float": (1.5, "1.5"),
    "float of seventeen digits": (1.2345678901234568e18, UNREAD),
    "float of sixteen digits": (9007199254740992.0, UNREAD),
    "text of a float of seventeen digits": (" 1.2345678901234568e18", UNREAD),
    "number of nineteen digits": (1234567890123456789, "1234567890123456789"),
    "largest float that is exact": (9007199254740991.0, "9007199254740991"),
    "object of a float of seventeen digits": ({"id": 1.2345678901234568e18}, UNREAD),
    "text of a hexadecimal number": ("1234e567", "1.234E+570"),
    "beyond 64 bits": ("18446744073709551617", "18446744073709551617"),
    "decimal": (Decimal("7.00"), "7"),
    "boolean": (True, "true"),
    "text of a boolean, as Python writes it": ("True", "true"),
    "JSON text of a boolean": ('{"id": true}', '{"id": "true"}'),
    "object of a text of a boolean": ({"id": "TRUE"}, '{"id": "true"}'),
    "bytes of a text": ("käufer-1".encode(), "käufer-1"),
    "other bytes": (b"\xff\x01", r"\xff01"),
    "text of bytes, as Postgres writes it": (r"\x" + "käufer-1".encode().hex(), "käufer-1"),
    "text of bytes of a number": (r"\x" + b" 07 ".hex(), "7"),
    "text of bytes of blanks": (r"\x2020", None),
    "text of other bytes": (r"\xFF01", r"\xff01"),
    "bytes of a padded text": (b"anna\0\0", "anna"),
    "bytes of control characters": (bytes(15) + b"\1", "00000000-0000-0000-0000-000000000001"),
    "bytes of zeros": (bytes(8), "\\x" + "0" * 16),
    "no bytes": (b"", None),
    "text of control characters": ("\1\2", "\1\2"),
    "UUID": (ID, str(ID)),
    "UUID in capitals": (str(ID).upper(), str(ID)),
    "UUID as a URN": (ID.urn, str(ID)),
    "UUID as a URN in capitals": (ID.urn.upper(), str(ID)),
    "UUID in braces": (f"{{{str(ID).upper()}}}", str(ID)),
    "UUID in parentheses": (f"({ID})", str(ID)),
    "UUID without hyphens": (ID.hex, str(ID)),
    "text of UUID bytes in hexadecimal": (rf"\x{ID.hex}", str(ID)),
    "UUID as bytes": (b"\xff" + ID.bytes[1:], "ff" + str(ID)[2:]),
    "object": ({"name": "x", "id": 1}, '{"id": "1", "name": "x"}'),
    "object in another order": ({"id": 1.0, "name": "x", "more": None}, '{"id": "1", "name": "x"}'),
    "JSON text of an object": ('{"name": "x", "id": 1}', '{"id": "1", "name": "x"}'),
    "JSON text of a text": ('"käufer-1"', "käufer-1"),
    "list": (["a", "b"], '["a", "b"]'),
    "date": (dt.date(2026, 1, 11), "2026-01-11"),
    "not a number": (float("nan"), None),
    "blank": (" \u00a0", None),
    "missing": (None, None),
    "object of nothing": ({"id": None}, None),
}
TEXTS: Forms = {
    "text": ("why?", "why?"),
    "bytes of a text": ("wieso, käufer?".encode(), "wieso, käufer?"),
    "other bytes": (b"\xff\xfe", UNREAD),
    "bytes of control characters": (b"why\0\1", UNREAD),
    "text of a list": ('["a", "string"]', '["a", "string"]'),
    "text of an object": ('{"a": 1}', '{"a": 1}'),
    "text of an empty list": ("[]", "[]"),
    "messages": ([QUESTION], "why?"),
    "messages with others first": ([*TIMES_OF_ROLES, QUESTION, QUESTION | {"content": "and?"}], "why?"),
    "messages without a user": (TIMES_OF_ROLES, None),
    "no messages": ([], None),
    "JSON text of messages": (json.dumps([*TIMES_OF_ROLES, QUESTION]), "why?"),
    "JSON text of a conversation": (json.dumps({"model": "m", "messages": [QUESTION]}), "why?"),
    "ShareGPT": ([{"from": "system", "value": "s"}, {"from": "human", "value": "why?"}], "why?"),
    "JSON text of ShareGPT": (json.dumps([{"from": "human", "value": "why?"}]), "why?"),
    "sender and text": ([{"sender": "human", "text": "why?"}], "why?"),
    "parts": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "text": None},
                    {"type": "text", "text": "why?"},
                    {"type": "text", "text": "how?"},
                ],
            }
        ],
        "why?\nhow?",
    ),
    "parts without a text": ([{"role": "user", "content": [{"type": "image_url", "url": "x"}]}], None),
    "parts of Gemini": ([{"role": "user", "parts": [{"text": "why?"}]}], "why?"),
    "parts as texts": ([{"role": "user", "content": ["why?", "how?"]}], "why?\nhow?"),
    "a list of texts": (["why?"], UNREAD),
    "messages of another form": ([{"speaker": "a", "line": "why?"}], UNREAD),
    "an object": ({"question": "why?"}, UNREAD),
    "missing": (None, None),
}
TIMES: Forms = {
    "ISO 8601": ("2026-01-11T09:00:07Z", NINE),
    "without an offset": ("2026-01-11 09:00:07", NINE),
    "Postgres": ("2026-01-11 09:00:07.123+00", MILLISECONDS),
    "Postgres elsewhere": ("2026-01-11 14:30:07.123+05:30", MILLISECONDS),
    "Postgres in the west": ("2026-01-11 06:00:07.123-03", MILLISECONDS),
    "BigQuery": ("2026-01-11 09:00:07.123000 UTC", MILLISECONDS),
    "Spark": ("2026-01-11T09:00:07.123Z", MILLISECONDS),
    "Spark with an offset": ("2026-01-11T10:00:07.123+01:00", MILLISECONDS),
    "pandas": ("2026-01-11 09:00:07.123000+00:00", MILLISECONDS),
    "nanoseconds": ("2026-01-11T09:00:07.123000000", MILLISECONDS),
    "SQL Server": ("2026-01-11 09:00:07.1230000 +00:00", MILLISECONDS),
    "Snowflake": ("2026-01-11 09:00:07.123 +0000", MILLISECONDS),
    "without seconds": ("2026-01-11T09:00Z", NINE.replace(second=0)),
    "small letters": ("2026-01-11t09:00:07z", NINE),
    "basic": ("20260111T090007Z", NINE),
    "day": ("2026-01-11", NIGHT),
    "basic day": ("20260111", NIGHT),
    "basic day as a number": (20260111, NIGHT),
    "seconds": (SECONDS, NINE),
    "seconds as a text": (str(SECONDS), NINE),
    "seconds with a fraction": (SECONDS + 0.125, NINE.replace(microsecond=125_000)),
    "milliseconds": (SECONDS * 1000 + 123, MILLISECONDS),
    "milliseconds as a float": (SECONDS * 1000.0 + 123, MILLISECONDS),
    "microseconds": (SECONDS * 10**6 + 123_000, MILLISECONDS),
    "nanoseconds since": (SECONDS * 10**9 + 123_000_000, MILLISECONDS),
    "a time": (MILLISECONDS, MILLISECONDS),
    "a local time": (NINE.replace(tzinfo=None), NINE),
    "a time elsewhere": (NINE.astimezone(ZoneInfo("Asia/Kolkata")), NINE),
    "a date": (dt.date(2026, 1, 11), NIGHT),
    "day and month in doubt": ("01/02/2026", UNREAD),
    "no such day": ("2026-02-30", UNREAD),
    "a word": ("someday", UNREAD),
    "infinity": ("infinity", UNREAD),
    "a compact time": ("20260111090007", UNREAD),
    "too few seconds": (12, UNREAD),
    "blank": (" ", None),
    "missing": (None, None),
}
LANGUAGES: Forms = {
    "code": ("en", "en"),
    "capitals": ("EN", "en"),
    "region": ("en-US", "en"),
    "locale": ("en_US.UTF-8", "en"),
    "three letters": ("eng", "en"),
    "name": ("English", "en"),
    "name and region": ("English (US)", "en"),
    "script": ("zh-Hans-CN", "zh"),
    "name in capitals": ("CHINESE", "zh"),
    "unknown name": ("Klingon", "klingon"),
    "number": (7, "7"),
    "blank": (" ", None),
    "missing": (None, None),
}
FORMS = {"user_id": IDS, "text": TEXTS, "created_at": TIMES, "language": LANGUAGES}
Read = Callable[[Path, dict[str, list[Any]], dict[str, str]], pl.DataFrame]


def scanned(path: Path, columns: dict[str, str]) -> pl.DataFrame:
    (path.parent / "scratch").mkdir()
    return FileSource(path, columns).scan(path.parent / "scratch").collect()


def of_parquet(folder: Path, table: dict[str, list[Any]], columns: dict[str, str]) -> pl.DataFrame:
    return scanned(write_parquet(folder, table), columns)


def write_parquet(folder: Path, table: dict[str, list[Any]]) -> Path:
    pl.DataFrame(table).write_parquet(folder / "a.parquet")
    return folder / "a.parquet"


def of_hub(folder: Path, table: dict[str, list[Any]], columns: dict[str, str]) -> pl.DataFrame:
    nothing = {"dataset": None, "subset": None, "revision": None, "preset": None, "steps": None}
    where = {"path": str(write_parquet(folder, table)), "split": "train", "own_columns": columns}
    return pl.concat(hub_reader.batches_of(nothing | where))


def of_json_lines(folder: Path, table: dict[str, list[Any]], columns: dict[str, str]) -> pl.DataFrame:
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    lines = [json.dumps(row, default=json_form, ensure_ascii=False) for row in rows]
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return scanned(folder / "a.jsonl", columns)


def json_form(value: object) -> str | float:
    return float(value) if isinstance(value, Decimal) else str(value)


def of_csv(folder: Path, table: dict[str, list[Any]], columns: dict[str, str]) -> pl.DataFrame:
    with (folder / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows([csv_form(value) for value in row] for row in zip(*table.values(), strict=True))
    return scanned(folder / "a.csv", columns)


def csv_form(value: object) -> object:
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def of_duckdb(folder: Path, table: dict[str, list[Any]], columns: dict[str, str]) -> pl.DataFrame:
    with duckdb.connect(folder / "chat.duckdb") as connection:
        connection.execute("set timezone = 'UTC'")
        if any(isinstance(value, UUID) for value in values_of(table)):
            names = ", ".join(f"? as {name}" for name in table)
            connection.execute(f"create table messages as select {names}", [values[0] for values in table.values()])
        else:
            write_parquet(folder, table)
            connection.execute(f"create table messages as from '{folder}/a.parquet'")
    read = partial(duckdb_batches, folder / "chat.duckdb", "from messages")
    return queried(folder, columns, read)


def queried(folder: Path, columns: dict[str, str], read: ReadQuery) -> pl.DataFrame:
    (folder / "scratch").mkdir()
    return QuerySource("chat", "", columns, read).scan(folder / "scratch").collect()


def of_sqlite(folder: Path, table: dict[str, list[Any]], columns: dict[str, str]) -> pl.DataFrame:
    """Whatever SQLite can hold; a column without a type takes a value of any kind in each row."""
    with sqlite3.connect(folder / "chat.sqlite") as connection:
        connection.execute(f"create table messages ({', '.join(table)})")
        rows = zip(*table.values(), strict=True)
        connection.executemany(f"insert into messages values ({', '.join('?' * len(table))})", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORPUS_URL", f"sqlite:///{folder / 'chat.sqlite'}")
        return queried(folder, columns, lambda _: sql_batches("CORPUS_URL", "select * from messages"))


def of_a_driver(folder: Path, table: dict[str, list[Any]], columns: dict[str, str]) -> pl.DataFrame:
    """The objects that drivers of other databases give, such as those of jsonb, uuid and timestamptz."""
    frame = pl.DataFrame([pl.Series(name, values, dtype=pl.Object) for name, values in table.items()])
    return queried(folder, columns, lambda _: (batch for batch in [frame]))


def values_of(table: dict[str, list[Any]]) -> list[Any]:
    return [value for values in table.values() for value in values]


READERS: dict[str, Read] = {
    "Parquet": of_parquet,
    "CSV": of_csv,
    "JSON lines": of_json_lines,
    "DuckDB": of_duckdb,
    "SQLAlchemy": of_sqlite,
    "a driver's objects": of_a_driver,
    "hub": of_hub,
}
LACKED: dict[str, Callable[[Any], bool]] = {
    "Parquet": lambda value: isinstance(value, UUID),
    "CSV": lambda value: isinstance(value, (bytes, bool)) or value != value,
    "JSON lines": lambda value: isinstance(value, bytes),
    "SQLAlchemy": lambda value: type(value) not in (str, int, float, bytes, type(None)),
    "hub": lambda value: isinstance(value, UUID),
}
"""Which values a format has no form for."""
CASES = [
    (column, form, reader)
    for column, forms in FORMS.items()
    for form, (value, _) in forms.items()
    for reader in READERS
    if reader not in LACKED or not LACKED[reader](value)
]
# Forms of columns that are refused where a column has one type. A text in JSON may be any of these in one row.
REFUSED = {
    ("text", "a list of texts"): "List",
    ("text", "messages of another form"): "List",
    ("text", "an object"): "Struct",
    ("text", "no messages"): "List",
}
# A text is all that CSV can hold, and it looks the same as one of a list.
MEANT_AS_TEXT = {
    ("text", "no messages"),
    ("text", "a list of texts"),
    ("text", "messages of another form"),
    ("text", "an object"),
}


@pytest.fixture(autouse=True)
def _caches_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def read_form(read: Read, folder: Path, column: str, value: Any) -> dict[str, Any]:
    """The one row that a reader gives of a value, beside a text."""
    table = {"stored": [value]} | ({} if column == "text" else {"body": ["why?"]})
    columns = {"text": "body"} | {column: "stored"}
    return canonical_user_ids(read(folder, table, columns).lazy()).collect().row(0, named=True)


@pytest.mark.parametrize(("column", "form", "reader"), CASES)
def test_a_stored_form_has_one_answer_whatever_reads_it(tmp_path: Path, reader: str, column: str, form: str) -> None:
    value, right = FORMS[column][form]
    if reader == "CSV" and (column, form) in MEANT_AS_TEXT:
        right = json.dumps(value)
    refusal = REFUSED.get((column, form))
    if refusal is not None and reader in ("Parquet", "DuckDB", "hub"):
        with pytest.raises(SourceError, match=rf"column 'stored', mapped to {column}, holds {refusal}; it must hold"):
            read_form(READERS[reader], tmp_path, column, value)
        return
    row = read_form(READERS[reader], tmp_path, column, value)
    if right == UNREAD:
        assert row["unread"] == column
        assert column == "user_id" or (row[column] is None and row["unread_value"])
    else:
        assert (row[column], row["unread"]) == (right, None)


@pytest.mark.parametrize("reader", sorted(set(READERS) - {"SQLAlchemy"}))  # its table is made by unquoted names
@pytest.mark.parametrize("key", ["käufer", "a\\b", "a\tb", 'a"b', "a.b", "[0]", "$", "日本", "with space"])
def test_a_column_is_found_whatever_characters_its_name_has(tmp_path: Path, reader: str, key: str) -> None:
    rows = READERS[reader](tmp_path, {"body": ["why?", "how?"], key: ["u1", "u2"]}, {"text": "body", "user_id": key})
    assert rows.select("text", "user_id").rows() == [("why?", "u1"), ("how?", "u2")]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["usr", "User", "author.id"])
def test_a_column_that_is_not_there_is_refused_by_its_name(tmp_path: Path, reader: str, name: str) -> None:
    table = {"body": ["a secret"], "author": ["anna"]}
    with pytest.raises(SourceError, match=rf"source\.columns names {name}, which .*correct the mapping") as refusal:
        READERS[reader](tmp_path, table, {"text": "body", "user_id": name})
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("reader", sorted(set(READERS) - {"DuckDB", "SQLAlchemy"}))
def test_a_user_under_another_spelling_of_the_column_is_not_read_as_nobody(tmp_path: Path, reader: str) -> None:
    table = {"body": ["a", "b"], "user_id": ["anna", None], "userId": [None, "ben"]}
    rows = READERS[reader](tmp_path, table, {"text": "body", "user_id": "user_id"})
    assert rows.select("user_id", "unread").rows() == [("anna", None), (None, "spelling")]


@pytest.mark.parametrize("reader", ["DuckDB", "SQLAlchemy"])
def test_a_query_gives_no_user_under_another_spelling_of_the_column_as_nobody(tmp_path: Path, reader: str) -> None:
    table = {"body": ["a", "b"], "user_id": ["anna", None], "user_ID_": [None, "ben"]}
    rows = READERS[reader](tmp_path, table, {"text": "body", "user_id": "user_id"})
    assert rows.select("user_id", "unread").rows() == [("anna", None), (None, "spelling")]


@pytest.mark.parametrize("reader", ["CSV", "JSON lines", "SQLAlchemy", "a driver's objects"])
def test_types_are_not_guessed_from_the_first_rows(tmp_path: Path, reader: str) -> None:
    count = 6_000  # more than one batch
    late = ["anna", "1e400", "0.5", "käufer"]
    ids: list[Any] = [*range(count), *late] if reader != "CSV" else [*map(str, range(count)), *late]
    times = [
        *[SECONDS] * count,
        "2026-01-11 09:00:07+00",
        "2026-01-11T09:00:07Z",
        "2026-01-11 09:00:07",
        SECONDS * 1000,
    ]
    table = {"body": ["why?"] * len(ids), "who": ids, "sent": times}
    rows = READERS[reader](tmp_path, table, {"text": "body", "user_id": "who", "created_at": "sent"})
    assert rows["user_id"].to_list() == list(map(str, ids))
    assert rows["created_at"].to_list() == [NINE] * len(ids)


def test_objects_of_one_user_are_one_unit_in_whichever_order_their_keys_come(tmp_path: Path) -> None:
    lines = ['{"t": "a", "u": {"id": 1, "name": "x"}}', '{"t": "b", "u": {"name": "x", "id": 1}}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    pl.DataFrame({"t": ["c"], "u": [{"name": "x", "id": 1.0}]}).write_parquet(tmp_path / "b.parquet")
    users = FileSource(tmp_path, {"text": "t", "user_id": "u"}).scan().collect()["user_id"].to_list()
    units = {unit_of_user(user, key=b"key") for user in users}
    assert len(users) == 3
    assert units == {unit_of_user('{"id": 1, "name": "x"}', key=b"key")}


@pytest.mark.parametrize("reader", READERS)
def test_people_are_units_whole_and_are_erased_whole(tmp_path: Path, reader: str) -> None:
    """Where an id is read as null, each row is a unit of its own and an erasure leaves it."""
    whose = [f"kunde-{number % 3}".encode() for number in range(40)]
    ids = (
        whose
        if reader in ("Parquet", "DuckDB", "hub", "SQLAlchemy", "a driver's objects")
        else [*map(bytes.decode, whose)]
    )
    table = {"body": [f"how do i bake bread number {number}?" for number in range(40)], "kaeufer": ids}
    key = "kaeufer" if reader == "SQLAlchemy" else "käufer \\\t"
    table[key] = table.pop("kaeufer")
    rows = understood(READERS[reader](tmp_path, table, {"text": "body", "user_id": key}).lazy())
    prepared = prepare(
        rows,
        Preparation(
            unit=PrivacyUnit.USER,
            key=b"key",
            max_rows_per_unit=20,
            min_words=1,
            max_words=20,
            max_characters=99,
            languages=None,
            cohort_of=cohort_expr(CohortSettings(), unit=PrivacyUnit.USER),
            train_fraction=0.5,
        ),
    )
    assert prepared.collect()["unit_id"].value_counts()["count"].sort().to_list() == [13, 13, 14]
    erased = keyed_hash(b"key", "erased", unit_of_user("kunde-1", key=b"key"))
    left = drop_erased(prepared, erased=[erased], key=b"key").collect()
    assert {text.rstrip("?").split()[-1] for text in left["text"]} == {str(n) for n in range(40) if n % 3 != 1}


def test_a_value_of_a_type_without_a_known_text_fails_and_is_not_null(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="values of type object cannot be read"):
        of_a_driver(tmp_path, {"body": ["why?"], "stored": [object()]}, {"text": "body", "user_id": "stored"})


def test_a_decimal_is_an_id_to_its_last_digit(tmp_path: Path) -> None:
    table = {"body": ["why?"], "stored": [Decimal("1234567890123456789.00")]}
    row = of_parquet(tmp_path, table, {"text": "body", "user_id": "stored"}).row(0, named=True)
    assert (row["user_id"], row["unread"]) == ("1234567890123456789", None)


def test_every_mapped_column_but_the_instruction_id_has_a_table_of_forms() -> None:
    assert set(FORMS) == set(SOURCE_ROWS) - {"instruction_id"}
