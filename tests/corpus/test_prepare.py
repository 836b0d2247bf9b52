import datetime as dt
import random
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import pytest

from dp_assets.corpus.cohorts import cohort_expr
from dp_assets.corpus.prepare import (
    Preparation,
    drop_erased,
    name_own_units,
    name_units,
    normalize_text,
    prepare,
    unit_of_user,
)
from dp_assets.corpus.redaction import Redaction
from dp_assets.corpus.schemas import REAL_INSTRUCTIONS, SOURCE_ROWS, SchemaError
from dp_assets.corpus.settings import CohortSettings
from dp_assets.privacy.units import PrivacyUnit, WithoutUser, keyed_hash

Row = tuple[str | None, str | None, str | None, str | None, dt.datetime | None]
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def row(text: str | None, *, user: str | None = None, name: str | None = None, language: str | None = "en") -> Row:
    return name, user, text, language, NOON


def prepared(rows: Sequence[Row], **changes: Any) -> pl.DataFrame:
    settings = {
        "unit": PrivacyUnit.USER,
        "key": b"key",
        "max_rows_per_unit": 2,
        "min_words": 2,
        "max_words": 6,
        "max_characters": 40,
        "languages": None,
        "cohort_of": cohort_expr(CohortSettings(), unit=PrivacyUnit.USER),
        "train_fraction": 0.5,
    }
    return prepare(
        pl.LazyFrame(list(rows), schema=SOURCE_ROWS, orient="row"), Preparation(**(settings | changes))
    ).collect()


def test_rows_without_a_user_are_dropped_where_the_owner_says_so_and_change_nobodys_else() -> None:
    nobodys = [row("why is it", user=None, name="b"), row("why is it so", user=" ", name="c")]
    rows = [row("bake some bread", user="anna", name="a"), *nobodys]
    kept = prepared(rows, without_user=WithoutUser.DROP)
    assert kept["instruction_id"].to_list() == ["a"]
    assert kept.equals(prepared(rows[:1]))
    assert prepared(rows).height == 3


def test_without_users_as_units_no_row_is_dropped_for_naming_none() -> None:
    settings = {
        "unit": PrivacyUnit.INSTRUCTION,
        "cohort_of": cohort_expr(CohortSettings(), unit=PrivacyUnit.INSTRUCTION),
    }
    assert prepared([row("why is it")], without_user=WithoutUser.DROP, **settings).height == 1


def test_units_are_named_alike_whether_or_not_rows_were_collected_before() -> None:
    rows = pl.LazyFrame([row("why is it"), row("why is it", user="anna")], schema=SOURCE_ROWS, orient="row")
    own = name_own_units(rows, key=b"key")
    at_once, later = (name_units(known, unit=PrivacyUnit.USER, key=b"key") for known in (own, own.collect().lazy()))
    assert at_once.collect().equals(later.collect())


def corpus(seed: int) -> list[Row]:
    """Rows that collide in every way: few users, few texts in several spellings, few ids, all sometimes null."""
    draw = random.Random(seed)
    texts = (
        "bake some bread",
        "Bake  some bread",
        "bake some\tbread",
        "why is it",
        "one",
        "tell me a story",
        None,
        " ",
    )
    return [
        (
            draw.choice([None, "a", "b", "c"]),
            draw.choice([None, "u1", "u2", "u3", "u4"]),
            draw.choice(texts),
            draw.choice([None, "en", "de"]),
            draw.choice([None, NOON, NOON + dt.timedelta(days=40)]),
        )
        for _ in range(60)
    ]


@pytest.mark.parametrize("unit", list(PrivacyUnit))
@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_source_changes_nothing(seed: int, unit: PrivacyUnit) -> None:
    rows = corpus(seed)
    shuffled = random.Random(seed + 1).sample(rows, len(rows))
    assert prepared(rows, unit=unit).equals(prepared(shuffled, unit=unit))


MONTHS = {"kind": "month", "first": "2026-01", "last": "2026-01"}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("unit", "cohorts"),
    [
        (PrivacyUnit.USER, {"kind": "all"}),
        (PrivacyUnit.USER, {"kind": "user_bucket", "num_buckets": 3}),
        (PrivacyUnit.INSTRUCTION, MONTHS),
    ],
)
def test_a_further_unit_changes_no_row_of_another_unit(seed: int, unit: PrivacyUnit, cohorts: dict[str, Any]) -> None:
    rows = corpus(seed)
    added = [
        [(name, "new user", text, language, time) for name, _, text, language, time in corpus(seed + 100)],
        [("a", None, "bake SOME bread", "en", NOON)],
    ]
    if unit is PrivacyUnit.INSTRUCTION:
        added = [[each] for each in added[0]]
    settings: dict[str, Any] = {"unit": unit, "cohort_of": cohort_expr(CohortSettings(**cohorts), unit=unit)}
    before = set(prepared(rows, **settings).rows())
    for new in added:
        after = set(prepared(rows + new, **settings).rows())
        assert before <= after
        assert len({unit_id for unit_id, *_ in after - before}) <= 1
        assert len(after - before) <= 2


@pytest.mark.parametrize("bound", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_no_unit_has_more_rows_than_the_bound(seed: int, bound: int) -> None:
    counts = prepared(corpus(seed), max_rows_per_unit=bound).group_by("unit_id").len()["len"]
    assert counts.max() == bound


@pytest.mark.parametrize("seed", range(5))
def test_ids_and_folded_texts_are_unique_inside_a_unit(seed: int) -> None:
    rows = prepared(corpus(seed), max_rows_per_unit=9).with_columns(pl.col("text").str.replace_all(r"\s+", " "))
    for columns in (["unit_id", "instruction_id"], ["unit_id", pl.col("text").str.to_lowercase()]):
        assert rows.select(columns).is_unique().all()


def test_the_result_has_the_tables_columns() -> None:
    rows = prepared([row("bake some bread", user="u1", name="row-7")])
    assert rows.schema == REAL_INSTRUCTIONS
    assert rows.select("instruction_id", "text", "cohort", "created_at").row(0) == (
        "row-7",
        "bake some bread",
        "all",
        NOON,
    )
    assert prepared([]).schema == REAL_INSTRUCTIONS


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (None, False),
        ("", False),
        (" \n\x00 ", False),
        ("one", False),
        ("one two", True),
        ("1 2 3 4 5 6", True),
        ("1 2 3 4 5 6 7", False),
        ("a " + "b" * 38, True),
        ("a " + "b" * 39, False),
    ],
)
def test_a_text_out_of_bounds_is_dropped_alone(text: str | None, kept: bool) -> None:
    assert prepared([row(text, user="u1"), row("stay as it is", user="u1")]).height == 1 + kept


def test_languages_keep_only_rows_that_name_one_of_them() -> None:
    rows = [row("bake some bread", name=str(language), language=language) for language in ("en", "de", "fr", None)]
    assert prepared(rows).height == 4
    assert prepared(rows, languages=["en", "de"]).height == 2


def test_rows_of_one_user_are_one_unit_and_rows_without_a_user_are_units_of_their_own() -> None:
    rows = [row(f"text number {n}", user=user) for n, user in enumerate(["u1", "u1", "u2", None, None])]
    units = prepared(rows)["unit_id"].sort()
    assert units.str.extract("^(user|instruction):[0-9a-f]{32}$").to_list() == ["instruction"] * 2 + ["user"] * 3
    assert units.n_unique() == 4


def test_with_the_unit_instruction_every_row_is_a_unit() -> None:
    rows = [row("the same text", user=user, name=name) for user in ("u1", None) for name in ("a", "b")]
    assert prepared(rows, unit=PrivacyUnit.INSTRUCTION)["unit_id"].n_unique() == 4


def test_rows_that_differ_only_in_the_unnamed_writers_are_one_unit() -> None:
    assert prepared([row("the same text"), row("the same text")]).height == 1


def test_the_same_text_of_two_users_stays_twice() -> None:
    assert prepared([row("the same text", user="u1"), row("the same text", user="u2")]).height == 2


@pytest.mark.parametrize(
    "changes", [{"redaction": Redaction(["email"])}, {"detect_language": True}, {"max_rows_per_unit": 1}]
)
@pytest.mark.parametrize("unit", PrivacyUnit)
def test_no_setting_of_the_preparation_gives_a_row_another_unit(unit: PrivacyUnit, changes: dict[str, Any]) -> None:
    rows = [row(f"write to {number}@example.org", user=f"u{number}" if number % 2 else None) for number in range(40)]
    before, after = prepared(rows, unit=unit), prepared(rows, unit=unit, **changes)
    assert set(after["unit_id"]) == set(before["unit_id"])
    assert len(set(before["unit_id"])) == 40


def test_which_rows_stay_depends_on_the_key() -> None:
    rows = [row(f"text number {n}", user="u1") for n in range(30)]
    kept = {frozenset(prepared(rows, key=key)["text"]) for key in (b"1", b"2", b"3")}
    assert len(kept) == 3


def test_a_unit_lies_in_one_split_and_train_holds_the_asked_share() -> None:
    rows = [row(f"text number {n}", user=f"u{n // 2}") for n in range(4000)]
    splits = prepared(rows, train_fraction=0.9).group_by("unit_id").agg(pl.col("split").unique())
    assert splits["split"].list.len().max() == 1
    in_train = splits["split"].list.first().eq("train").mean()
    assert isinstance(in_train, float)
    assert abs(in_train - 0.9) < 0.03  # 4.5 standard deviations
    assert prepared(rows[:50], train_fraction=1.0)["split"].unique().to_list() == ["train"]


def test_a_row_without_a_cohort_is_dropped() -> None:
    settings = {
        "unit": PrivacyUnit.INSTRUCTION,
        "cohort_of": cohort_expr(CohortSettings(**MONTHS), unit=PrivacyUnit.INSTRUCTION),
    }
    rows = [
        row("bake some bread"),
        (None, None, "why is it", "en", None),
        (None, None, "why is it", "en", NOON.replace(year=2027)),
    ]
    assert prepared(rows, **settings)["cohort"].to_list() == ["2026-01"]


def test_a_user_is_found_by_the_name_that_the_source_gives() -> None:
    for name in ("u1", " u1", "1", "é"):
        (unit_id,) = prepared([row("bake some bread", user=name)])["unit_id"]
        assert unit_of_user(name, key=b"key") == unit_id


@pytest.mark.parametrize("seed", range(3))
def test_erased_units_go_whole_and_leave_every_other_unit_as_it_was(seed: int) -> None:
    rows = prepared(corpus(seed))
    erased = rows["unit_id"].unique().sort().gather_every(2)
    hashes = {keyed_hash(b"key", "erased", unit_id) for unit_id in erased}
    kept = drop_erased(rows.lazy(), erased=hashes, key=b"key").collect()
    assert kept.equals(rows.filter(~pl.col("unit_id").is_in(erased.implode())))
    assert drop_erased(rows.lazy(), erased=hashes, key=b"another key").collect().equals(rows)
    assert drop_erased(rows.lazy(), erased=(), key=b"key").collect().equals(rows)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("a\u00a0b\u3000c", "a b c"),
        ("a\x00b\x1b[0m\ufeff", "ab[0m"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("a  \n\n\n\n\tb ", "a\n\n\tb"),
        ("def f():\n    return 1", "def f():\n    return 1"),
    ],
)
def test_normalizing_unifies_spelling_and_keeps_indentation(raw: str, expected: str) -> None:
    assert normalize_text(pl.LazyFrame({"text": [raw]})).collect()["text"].to_list() == [expected]


def test_normalizing_twice_changes_nothing_more() -> None:
    rows = pl.LazyFrame({"text": ["e\u0301 \r\n \n\x07\n\n \tx\u00a0", "\x00 \x00", "\n\x00\n\n a \x85 b"]})
    once = normalize_text(rows).collect()
    assert normalize_text(once.lazy()).collect().equals(once)


@pytest.mark.parametrize(
    "change", [lambda rows: rows.drop("language"), lambda rows: rows.cast({"created_at": pl.String})]
)
def test_rows_of_another_shape_are_refused(change: Callable[[pl.LazyFrame], pl.LazyFrame]) -> None:
    rows = change(pl.LazyFrame(schema=SOURCE_ROWS))
    with pytest.raises(SchemaError, match="source rows"):
        prepare(
            rows,
            Preparation(
                unit=PrivacyUnit.USER,
                key=b"key",
                max_rows_per_unit=1,
                min_words=1,
                max_words=9,
                max_characters=99,
                languages=None,
                cohort_of=pl.lit("all"),
                train_fraction=0.5,
            ),
        )
