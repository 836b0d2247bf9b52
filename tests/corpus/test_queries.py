"""A query's rows become source rows through the same mapping as a file's."""

from collections.abc import Generator, Iterator
from pathlib import Path

import polars as pl
import pytest

from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.queries import QuerySource, query_digest
from dp_assets.corpus.schemas import SCANNED_ROWS
from dp_assets.corpus.spool import spool, spooled

COLUMNS = {"text": "body", "user_id": "who"}


def source(*batches: pl.DataFrame, query: str = "select 1") -> QuerySource:
    return QuerySource("chat.duckdb", query, COLUMNS, lambda spilled: (batch for batch in batches))


def test_batches_are_typed_and_put_into_the_scratch_folder(tmp_path: Path) -> None:
    first, second = pl.DataFrame({"body": ["a"], "who": [7.0]}), pl.DataFrame({"body": ["b"], "who": [8.0]})
    rows = source(first, second).scan(tmp_path).collect()
    assert rows.schema == SCANNED_ROWS
    assert rows.select("text", "user_id").rows() == [("a", "7"), ("b", "8")]


def test_a_result_without_rows_is_a_corpus_without_rows(tmp_path: Path) -> None:
    assert source(pl.DataFrame(schema={"body": pl.String, "who": pl.String})).scan(tmp_path).collect().is_empty()


def test_a_result_without_a_mapped_column_or_of_another_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(SourceError, match=r"names who, which the result of source\.query lacks"):
        source(pl.DataFrame({"body": ["a secret"]})).scan(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(SourceError, match="mapped to text, holds Int64"):
        source(pl.DataFrame({"body": [1], "who": [1]})).scan(tmp_path / "b")


def test_the_database_is_left_where_reading_breaks_off(tmp_path: Path) -> None:
    left = []

    def batches(spilled: Path) -> Generator[pl.DataFrame, None, None]:
        try:
            yield pl.DataFrame({"body": ["why?"]})
        finally:
            left.append(True)

    with pytest.raises(SourceError) as refusal:
        QuerySource("chat.duckdb", "select 1", COLUMNS, batches).scan(tmp_path)
    assert left == [True], refusal  # which holds the frames that were reading


def test_a_query_is_the_same_source_however_it_is_laid_out() -> None:
    assert source(query="select  *\n from t").locator == source(query="select * from t").locator
    assert source(query="select * from t").locator == source(query="select * from u").locator


def test_each_batch_is_put_down_before_the_next_one_is_asked_for(tmp_path: Path) -> None:
    files_beside: list[int] = []

    def batches() -> Iterator[pl.DataFrame]:
        for _ in range(5):
            files_beside.append(len(list(tmp_path.iterdir())))
            yield pl.DataFrame([[None] * len(SCANNED_ROWS)], schema=SCANNED_ROWS, orient="row")

    spool(batches(), tmp_path)
    assert files_beside == [1, 2, 3, 4, 5]  # one of them empty, for the schema
    assert len(spooled(tmp_path).collect()) == 5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("select replace(a, '  ', '')", "select replace(a, ' ', '')"),
        ('select "a  b"', 'select "a b"'),
        ("select a -- b\n, c", "select a -- b , c"),
        ("select $$  $$", "select $$ $$"),
        ("select a # b\n, c", "select a # b , c"),
    ],
)
def test_white_space_that_says_something_makes_another_query(one: str, other: str) -> None:
    assert query_digest(one) != query_digest(other)
