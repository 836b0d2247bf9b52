"""The preview counts what `prepare` does, and warns of what is hardly meant so."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.artifacts import TRAIN_SPLIT
from dp_assets.corpus import preview as module
from dp_assets.corpus.cohorts import cohort_expr, cohort_names
from dp_assets.corpus.columns import understood
from dp_assets.corpus.prepare import Preparation, Step, drop_erased, prepare, unit_of_user
from dp_assets.corpus.preview import preview
from dp_assets.corpus.schemas import SOURCE_ROWS
from dp_assets.corpus.settings import CohortSettings
from dp_assets.corpus.sources import FileSource
from dp_assets.corpus.users import NobodyNamed, require_users
from dp_assets.privacy.units import PrivacyUnit, WithoutUser, keyed_hash
from tests.corpus.test_prepare import Row, row

KEY = b"key"
COLUMNS = {name: name for name in SOURCE_ROWS}
BUCKETS: dict[str, Any] = {"kind": "user_bucket", "num_buckets": 3}
LONG = "bake some more bread"


def settings_of(**changes: Any) -> dict[str, Any]:
    settings = {
        "unit": PrivacyUnit.USER,
        "key": KEY,
        "max_rows_per_unit": 2,
        "min_words": 2,
        "max_words": 6,
        "max_characters": 40,
        "languages": None,
        "train_fraction": 1.0,
    }
    settings |= changes
    return {"cohort_of": cohort_expr(CohortSettings(), unit=settings["unit"]), **settings}


def frame(rows: list[Row]) -> pl.LazyFrame:
    nothing = pl.lit(None, pl.String)
    return pl.LazyFrame(rows, schema=SOURCE_ROWS, orient="row").with_columns(unread=nothing, unread_value=nothing)


def shown(folder: Path, parts: Mapping[str, list[Row]], *, first: list[Step] | None = None, **changes: Any) -> Any:
    return preview(
        {name: frame(rows) for name, rows in parts.items()},
        Preparation(**settings_of(**changes)),
        columns=COLUMNS,
        cohorts=("all",),
        folder=folder,
        first=first or [],
    )


def messy(seed: int) -> list[Row]:
    """Rows that every step drops some of."""
    draw = random.Random(seed)
    texts = (None, " ", "one", "word " * 9, LONG, "Bake  some more bread", "why is it", "tell me a story", "go on then")
    users = (None, " ", "None", "7", "7.0", "anna", "bert")
    return [row(draw.choice(texts), user=draw.choice(users), language=draw.choice(["en", "de"])) for _ in range(300)]


def of(rows: pl.DataFrame) -> tuple[int, int]:
    """Rows and units."""
    return len(rows), rows["unit_id"].n_unique()


@pytest.mark.parametrize("without_user", list(WithoutUser))
@pytest.mark.parametrize("rows_in_a_batch", [20, 20_000])
def test_what_is_counted_is_what_prepare_does_whatever_the_number_of_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_user: WithoutUser, rows_in_a_batch: int
) -> None:
    monkeypatch.setattr(module, "ROWS_IN_A_BATCH", rows_in_a_batch)
    rows, cohorts = messy(0), cohort_names(CohortSettings(**BUCKETS))
    cohort_of = cohort_expr(CohortSettings(**BUCKETS), unit=PrivacyUnit.USER)
    settings = settings_of(without_user=without_user, languages=["en"], train_fraction=0.5, cohort_of=cohort_of)
    parts = {"first": frame(rows[:100]), "second": frame(rows[100:])}
    found = preview(parts, Preparation(**settings), columns=COLUMNS, cohorts=cohorts, folder=tmp_path)
    prepared = prepare(frame(rows), Preparation(**settings)).collect()
    assert len(list(tmp_path.glob("buckets/*"))) == 2 * (16 if rows_in_a_batch == 20 else 1)
    assert found["rows"] == len(rows) == sum(file["rows"] for file in found["files"])
    assert len(rows) - sum(step["dropped"] for step in found["steps"]) == len(prepared)
    assert all(step["dropped"] for step in found["steps"] if "cohort" not in step["rows_that"])
    for cohort in found["cohorts"]:
        theirs = prepared.filter(pl.col("cohort") == cohort["cohort"])
        training = theirs.filter(pl.col("split") == TRAIN_SPLIT)
        assert (cohort["rows"], cohort["units"]) == (len(theirs), theirs["unit_id"].n_unique())
        assert (cohort["rows_to_train_on"], cohort["units_to_train_on"]) == (
            len(training),
            training["unit_id"].n_unique(),
        )


def test_units_are_those_of_the_source_and_an_example_is_a_dropped_row_as_it_was_read(tmp_path: Path) -> None:
    rows = [row(LONG, user="7"), row("why is it", user="7.0"), row(LONG, user="7"), row("One", user=" "), row(None)]
    found = shown(tmp_path, {"file": rows})
    assert found["units"] == {
        "users": 1,
        "rows_as_units": 2,
        "rows_of_a_unit": {"1": 2, "3 to 5": 1},
        "busiest_users": [{"user_id": "7", "rows": 3}],
    }
    dropped = {step["rows_that"]: (step["reached"], step["dropped"], step["example"]) for step in found["steps"]}
    assert dropped["have no text"][:2] == (5, 1)
    short = dropped["are too short or too long (corpus.min_words, max_words ...)"]
    assert short[:2] == (4, 1)
    assert (short[2]["text"], short[2]["user_id"]) == ("One", " ")
    assert found["columns"]["user_id"] == {"from": "user_id", "missing": 2}
    assert found["first_rows"][0]["user_id"] == "7"


def test_rows_without_a_user_are_no_units_where_they_are_dropped(tmp_path: Path) -> None:
    rows = [row(LONG, user="anna"), row(LONG), row("why is it")]
    found = shown(tmp_path, {"file": rows}, without_user=WithoutUser.DROP)
    assert (found["units"]["users"], found["units"]["rows_as_units"]) == (1, 0)
    assert (found["steps"][0]["rows_that"], found["steps"][0]["dropped"]) == ("name no user (corpus.without_user)", 2)


def test_erased_units_are_counted_as_such_and_not_among_the_units(tmp_path: Path) -> None:
    """Anna's rows are dropped for being erased, the first thing, though one is too short besides."""
    rows = [row(LONG, user="anna"), row("One", user="anna"), row(LONG, user="bert"), row(LONG)]
    erased = frozenset([keyed_hash(KEY, "erased", unit_of_user("anna", key=KEY))])
    first = [Step(lambda kept: drop_erased(kept, erased=erased, key=KEY), "were erased")]
    found = shown(tmp_path, {"file": rows}, first=first)
    assert [(step["rows_that"], step["dropped"]) for step in found["steps"][:3]] == [
        ("were erased", 2),
        ("have no text", 0),
        ("are too short or too long (corpus.min_words, max_words ...)", 0),
    ]
    assert found["units"] == {
        "users": 1,
        "rows_as_units": 1,
        "rows_of_a_unit": {"1": 2},
        "busiest_users": [{"user_id": "bert", "rows": 1}],
    }
    assert found["cohorts"][0]["rows"] == 2


@pytest.mark.parametrize("user_id", ["100", "7.50", '{"id": 100}', "1e3", "ANNA"])
def test_a_user_is_shown_as_the_source_writes_the_id(tmp_path: Path, user_id: str) -> None:
    found = shown(tmp_path, {"file": [row(LONG, user=user_id), row("why is it", user=user_id)]})
    assert found["units"]["busiest_users"] == [{"user_id": user_id, "rows": 2}]


TWO = [row(LONG, user="anna"), row("why is it", user="anna"), row(LONG, user="bert")]
STEPS_THAT_DROP_ALL: dict[str, tuple[list[Row], dict[str, Any]]] = {
    "name no user": ([row(LONG), row("why is it")], {"without_user": WithoutUser.DROP}),
    "have no text": ([row(None, user="anna"), row(" ", user="bert")], {}),
    "are too short": (TWO, {"min_words": 6}),
    "are in no wanted language": (TWO, {"languages": ["fr"]}),
    "lie in no cohort": (TWO, {"cohort_of": pl.lit(None, dtype=pl.String)}),
}


@pytest.mark.parametrize("drops", list(STEPS_THAT_DROP_ALL))
def test_a_step_that_drops_everything_is_warned_of_and_so_is_the_cohort_that_it_leaves_empty(
    tmp_path: Path, drops: str
) -> None:
    rows, changes = STEPS_THAT_DROP_ALL[drops]
    warnings = shown(tmp_path, {"file": rows}, **changes)["warnings"]
    (said,) = [warning for warning in warnings if warning.startswith("a step drops every row")]
    assert drops in said
    assert any(warning.startswith("the cohort all has no row to train on") for warning in warnings)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"named": TWO, "nameless": [row(LONG), row("why is it", user=" ")]},
            "no row of nameless that could be read names a user",
        ),
        ({"file": [*TWO, row(LONG, user="None")]}, "1 rows name the user 'None'"),
        ({"file": [row(LONG, user="a"), row(LONG, user="b")]}, "no user has a second row"),
        ({"file": TWO[:2]}, "name the same one"),
        ({"file": []}, "the source has no rows"),
        ({"file": [row(LONG, user="a", language=None)] * 2}, "mapped to language holds no value"),
    ],
)
def test_what_is_hardly_meant_so_is_warned_of(tmp_path: Path, parts: Mapping[str, list[Row]], said: str) -> None:
    assert any(said in warning for warning in shown(tmp_path, parts)["warnings"])


def test_an_ordinary_corpus_is_not_warned_of(tmp_path: Path) -> None:
    rows = [("1", user, text, "en", TWO[0][4]) for user, *_ in [("a",), ("b",)] for text in (LONG, "why is it")]
    assert shown(tmp_path, {"file": rows})["warnings"] == []


def test_a_file_name_that_no_text_can_hold_is_shown_with_a_mark(tmp_path: Path) -> None:
    name = b"chat-\xff.parquet".decode(errors="surrogateescape")
    assert shown(tmp_path, {name: TWO})["files"][0]["name"] == "chat-?.parquet"


def shown_file(path: Path, columns: Mapping[str, str]) -> Any:
    """The preview of a file; without users, every row is a unit."""
    scratch = path.parent / "scratch"
    scratch.mkdir()
    unit = PrivacyUnit.USER if "user_id" in columns else PrivacyUnit.INSTRUCTION
    settings = Preparation(**settings_of(unit=unit))
    return preview(
        FileSource(path, columns).parts(scratch), settings, columns=columns, cohorts=("all",), folder=scratch
    )


def test_what_is_there_and_not_understood_is_not_missing_and_is_shown_as_it_is_written(tmp_path: Path) -> None:
    lines = [
        '{"t": "why is it", "d": "3 May", "u": 1}',
        '{"t": ["a"], "d": "2026-01-11", "u": 1}',
        '{"t": {"b": "c"}, "d": "4 May"}',
        "{cut",
        '{"t": "why is it"}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = shown_file(tmp_path / "a.jsonl", {"text": "t", "created_at": "d", "user_id": "u"})
    missing = {name: column["missing"] for name, column in found["columns"].items()}
    assert missing == {"text": 0, "created_at": 1, "user_id": 2}
    forms = [(each["not_understood"], each["text"], each["created_at"]) for each in found["first_rows"]]
    assert forms == [
        ("created_at", "why is it", "3 May"),
        ("text", '["a"]', "2026-01-11T00:00:00+00:00"),
        ("text", '{"b": "c"}', None),
        ("line", None, None),
        (None, "why is it", None),
    ]
    examples = [step["example"] for step in found["steps"][:3]]
    assert [(each["text"], each["created_at"]) for each in examples[1:]] == [forms[1][1:], forms[0][1:]]


@pytest.mark.parametrize(
    "lines",
    [
        "why is it so,\ncut\n",
        "why is it so,\n\xff why is it,anna\n",
        "cut\ncut\n",
        "why is it so,anna\ncut\n",
        "\xff why is it,anna\n",
    ],
)
def test_a_file_is_said_to_name_nobody_where_and_only_where_a_run_stops_for_that(tmp_path: Path, lines: str) -> None:
    """Whatever rows could not be read: nothing is known of whom they name."""
    (tmp_path / "a.csv").write_bytes(("t,u\n" + lines).encode("latin-1"))
    columns = {"text": "t", "user_id": "u"}
    said = any(
        "that could be read names a user" in each for each in shown_file(tmp_path / "a.csv", columns)["warnings"]
    )
    try:
        require_users({"a": understood(FileSource(tmp_path / "a.csv", columns).scan())})
        stops = False
    except NobodyNamed:
        stops = True
    assert said == stops


def test_the_example_of_a_broken_line_says_which_row_of_which_file_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/a.csv").write_text("t,u\nwhy is it,anna\n")
    (tmp_path / "a/b.csv").write_text("t,u\nwhy is it,anna\nhow is it,anna\ncut\ncut\n")
    columns = {"text": "t", "user_id": "u"}
    example = shown_file(tmp_path / "a", columns)["steps"][0]["example"]
    assert (example["not_understood"], example["row"]) == ("line", f"3 of {tmp_path / 'a/b.csv'}")


@pytest.mark.parametrize(("written", "is_warned_of"), [(3, True), (1, False)])
def test_chats_written_as_python_writes_them_are_warned_of(tmp_path: Path, written: int, is_warned_of: bool) -> None:
    chats = [row("[{'role': 'user', 'content': 'why?'}]", user="a"), row("{'role': 'user'}", user="a")] * 2
    rows = [*chats[:written], *(row("{why} is it", user="a") for _ in range(150))]
    warnings = shown(tmp_path, {"file": rows})["warnings"]
    assert any(f"{written} rows of file hold a text that begins" in each for each in warnings) == is_warned_of


def test_rows_that_an_open_quote_swallowed_are_warned_of_and_a_text_of_many_lines_is_not(tmp_path: Path) -> None:
    swallowed = ['1,"why is it,anna', "2,how is it,bert", "3,what is it,carl", '4,who is it",dora']
    (tmp_path / "a.csv").write_text("\n".join(["i,t,u", *swallowed, "5,where is it,anna"]))
    found = shown_file(tmp_path / "a.csv", {"text": "t", "user_id": "u"})
    assert found["rows"] == 2
    assert any("seem to hold further rows inside" in warning for warning in found["warnings"])
    (tmp_path / "b").mkdir()
    plain = ['1,"Dear all,', "why, say,", "is it so?", 'Yours",anna', "2,how is it,bert", "3,how was it,bert"]
    (tmp_path / "b/b.csv").write_text("\n".join(["i,t,u", *plain]))
    assert shown_file(tmp_path / "b/b.csv", {"text": "t", "user_id": "u"})["warnings"] == []


def test_a_form_that_is_seldom_not_understood_is_not_warned_of(tmp_path: Path) -> None:
    lines = [
        f'{{"t": "why is it {number}", "d": "{"3 May" if number < 2 else "2026-05-03"}"}}' for number in range(201)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert shown_file(tmp_path / "a.jsonl", {"text": "t", "created_at": "d"})["warnings"] == []


def test_rows_that_are_not_understood_are_counted_by_what_that_is_before_any_other_step(tmp_path: Path) -> None:
    lines = [
        '{"t": "bake some bread", "d": "2026-01-11"}',
        '{"t": ["a"]}',
        '{"t": "why is it", "d": "someday"}',
        "{cut",
    ]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, lines[2]]))
    found = shown_file(tmp_path / "a.jsonl", {"text": "t", "created_at": "d"})
    counted = [(step["reached"], step["dropped"]) for step in found["steps"]]
    assert found["rows"] == 5
    assert counted[:4] == [(5, 1), (4, 1), (3, 2), (1, 0)]
    assert found["steps"][2]["rows_that"] == "hold a time of a form that is not read"
    assert found["steps"][2]["example"]["text"] == "why is it"
