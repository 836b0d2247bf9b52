"""However a file format or a tool spells a user's id, it is one unit; ids of different users stay apart."""

import json
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest

from dp_assets.corpus.cohorts import cohort_expr
from dp_assets.corpus.columns import understood
from dp_assets.corpus.prepare import Preparation, prepare, unit_of_user
from dp_assets.corpus.schemas import SOURCE_ROWS
from dp_assets.corpus.settings import CohortSettings
from dp_assets.corpus.sources import FileSource
from dp_assets.corpus.users import NobodyNamed, canonical_user_ids, require_users
from dp_assets.privacy.units import PrivacyUnit


def respelled(*user_ids: str | None) -> list[str | None]:
    rows = pl.LazyFrame({"user_id": list(user_ids)}, schema={"user_id": pl.String})
    return canonical_user_ids(rows).collect()["user_id"].to_list()


@pytest.mark.parametrize(
    "spellings",
    [
        ("1", " 1", "1 ", "1.0", "01", "+1", "1.", "1e0", "1.00", "\ufeff1", "\u00a01\u200b", "\t1\r"),
        ("1000", "1e3", "1E+3", "1000.0", "0001000"),
        ("0", "-0", "0.0", "00"),
        ("12345678901234567890123", "12345678901234567890123.0"),
        ("-7", "-7.0", "-07"),
        ("1.5", "1.50", "01.5"),
        ("caf\u00e9", "cafe\u0301", " caf\u00e9", '"caf\\u00e9"'),
        ("550e8400-e29b-41d4-a716-446655440000", "550E8400-E29B-41D4-A716-446655440000"),
        ('{"a": 1, "b": "x"}', '{"b":"x","a":1.0}', '{"b": "x", "c": null, "a": "01", "d": " "}'),
        ('{"a": {"b": [1, null]}}', '{ "a" : {"c": {}, "b": ["1", null]} }'),
    ],
)
def test_spellings_of_one_id_are_one(spellings: tuple[str, ...]) -> None:
    assert len(set(respelled(*spellings))) == 1


@pytest.mark.parametrize(
    "user_ids",
    [
        ("1", "-1", "10", "1.5", "1a", "a1", "1 2", "u1"),
        ("12345678901234567890123", "12345678901234567890124"),
        ("anna", "Anna", "anna b"),
        ("1e9999999", "1e99999999", "inf", "nan", "0x1"),
        ("1e5", "1e6", "1e999999"),
        ('{"a": 1}', '{"a": 2}', '{"b": 1}', '{"a": [1]}', "[1]", "[1, null]", '{"a', "1"),
        ('"\\ud800"', '"\\ud801"'),
        ("\x01", "\x02", "\x00", "\ue000", "\U0001fae6\U000e0fff", "\U000e0ffe"),
    ],
)
def test_ids_of_different_users_stay_apart(user_ids: tuple[str, ...]) -> None:
    found = respelled(*user_ids)
    assert all(first != second for first, second in combinations(found, 2))


def test_a_blank_id_names_nobody() -> None:
    assert respelled("", "  ", "\t\n", "\u00a0", "\ufeff", None) == [None] * 6
    assert respelled("{}", "[]", '""', '{"id": null}', '{"id": {"name": " "}}') == [None] * 5


def test_an_id_is_spelled_by_itself() -> None:
    user_ids = ["1.0", None, " x", "", "2"]
    assert respelled(*user_ids) == [respelled(user_id)[0] for user_id in user_ids]


def units_of(path: Path) -> set[str]:
    columns = {"text": "prompt", "user_id": "who"}
    prepared = prepare(
        understood(FileSource(path, columns).scan()),
        Preparation(
            unit=PrivacyUnit.USER,
            key=b"key",
            max_rows_per_unit=2,
            min_words=1,
            max_words=9,
            max_characters=99,
            languages=None,
            cohort_of=cohort_expr(CohortSettings(), unit=PrivacyUnit.USER),
            train_fraction=0.5,
        ),
    )
    return set(prepared.collect()["unit_id"])


def test_a_user_is_one_unit_across_the_files_of_a_folder_whatever_their_formats(tmp_path: Path) -> None:
    lines = [{"prompt": "json int", "who": 1}, {"prompt": "float", "who": 1.0}, {"prompt": "string", "who": " 1"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "b.csv").write_text('prompt,who\ncsv, 1 \nquoted,"1.0"\n')
    pl.DataFrame({"prompt": ["ints"], "who": [1]}).write_parquet(tmp_path / "c.parquet")
    pl.DataFrame({"prompt": ["floats"], "who": [1.0]}).write_parquet(tmp_path / "d.parquet")
    assert units_of(tmp_path) == {unit_of_user("1", key=b"key")}


def test_rows_with_a_blank_id_are_units_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"prompt": text, "who": " "}) + "\n" for text in ("a", "b")))
    units = units_of(tmp_path / "a.jsonl")
    assert len(units) == 2
    assert all(unit.startswith("instruction:") for unit in units)


@pytest.mark.parametrize("spelling", [" 7", "7.0", "07", "7"])
def test_a_user_is_found_under_any_spelling(spelling: str) -> None:
    assert unit_of_user(spelling, key=b"key") == unit_of_user("7", key=b"key")
    assert pl.Schema(SOURCE_ROWS)["user_id"] == pl.String


BLANKS = ("", "  ", "\t", "\u00a0", "\ufeff\u200b", None)


def part(*user_ids: str | None) -> pl.LazyFrame:
    return pl.LazyFrame({"user_id": list(user_ids)}, schema={"user_id": pl.String})


@pytest.mark.parametrize("user_ids", [BLANKS, (None,), ("",)], ids=["blanks", "null", "empty"])
def test_a_part_that_names_nobody_is_refused_by_name_beside_parts_that_do(user_ids: tuple[str | None, ...]) -> None:
    with pytest.raises(NobodyNamed, match=r"^the second: no readable row names a user"):
        require_users({"the first": part("anna", None), "the second": part(*user_ids)})


def test_a_part_without_rows_or_with_one_user_is_not_refused() -> None:
    require_users({"empty": part(), "one user": part(*BLANKS, "anna", *BLANKS)})


@pytest.mark.parametrize("word", ["nan", "None", "NULL", "null", "\\N", "undefined", "anonymous"])
def test_a_word_for_a_missing_value_stays_an_id_so_that_nobody_of_that_name_is_split(word: str) -> None:
    assert respelled(word) == [word]
    require_users({"all rows": part(word, word)})


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_each_file_of_a_folder_is_looked_at_by_itself(tmp_path: Path, suffix: str) -> None:
    rows = pl.DataFrame({"prompt": ["one text", "another"], "who": ["anna", None]})
    rows.write_parquet(tmp_path / "a.parquet")
    source = FileSource(tmp_path, {"text": "prompt", "user_id": "who"})
    require_users(source.parts())
    rows = rows.with_columns(who=pl.lit(None, dtype=pl.String))
    write = {".parquet": rows.write_parquet, ".csv": rows.write_csv, ".jsonl": rows.write_ndjson}
    write[suffix](tmp_path / f"b{suffix}")
    with pytest.raises(NobodyNamed, match=f"b{suffix}: "):
        require_users(source.parts())
