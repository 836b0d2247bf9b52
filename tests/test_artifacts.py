"""What a handle on private rows gives away and to whom."""

import pickle
from dataclasses import dataclass, field, replace

import polars as pl
import pytest

from dp_assets.artifacts import UNKNOWN_PREPARATION, ChargeMismatch, PrivateTable

ROWS = pl.LazyFrame({"text": ["only the private zone knows"]})


def table(*, corpus_id: str = "corpus", snapshot: str = "1", preparation: str = "user-wise") -> PrivateTable:
    return PrivateTable(ROWS, corpus_id=corpus_id, snapshot=snapshot, preparation=preparation)


def test_a_private_table_neither_shows_nor_pickles_its_rows() -> None:
    assert "knows" not in repr(table()) + str(table())
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(table())


def test_a_private_table_looks_alike_whatever_its_rows_are() -> None:
    many = pl.LazyFrame({"text": ["a", "b", "c"], "language": ["en", "de", None]})
    other = PrivateTable(many, corpus_id="another", snapshot="2", empty_cohorts=["2026-01"])
    assert repr(other) == repr(table())


def test_rows_leave_a_private_table_in_the_known_ways_only() -> None:
    """A further way out is a decision about privacy, so the list stands here once more."""
    known = {"corpus_id", "empty_cohorts", "made_with", "preparation", "snapshot"}
    assert {name for name in dir(PrivateTable) if not name.startswith("_")} == known | {
        "as_stored",
        "map",
        "open",
        "drop_held",
        "store",
        "width",
    }


def test_the_width_of_a_column_is_known_without_reading_a_row() -> None:
    def unreadable(_: pl.DataFrame) -> pl.DataFrame:
        raise AssertionError("a row was read")

    schema = {"vector": pl.Array(pl.Float32, 3)}
    rows = pl.LazyFrame({"vector": [[0.0, 0.0, 0.0]]}, schema=schema).map_batches(unreadable, schema=schema)
    assert PrivateTable(rows, corpus_id="corpus", snapshot="1").width("vector") == 3


@pytest.mark.parametrize("other", [table(corpus_id="another"), table(snapshot="2")], ids=["corpus", "snapshot"])
def test_rows_of_two_corpora_or_snapshots_are_never_combined(other: PrivateTable) -> None:
    with pytest.raises(ChargeMismatch, match="different corpora or snapshots"):
        table().map(lambda rows, others: pl.concat([rows, others]), other)


def test_rows_that_come_of_differently_prepared_tables_have_no_known_preparation() -> None:
    combined = table().map(lambda rows, others: pl.concat([rows, others]), table(preparation="instruction-wise"))
    assert combined.preparation == UNKNOWN_PREPARATION


def test_what_made_a_table_is_said_of_what_is_made_of_it_too() -> None:
    redacted = PrivateTable(ROWS, corpus_id="corpus", snapshot="1", made_with={"spacy": "3.8.7"})
    embedded = redacted.map(lambda rows: rows, made_with={"embedder": "some"})
    assert embedded.made_with == {"spacy": "3.8.7", "embedder": "some"}


@dataclass(frozen=True)
class Charged:
    """A charge that notes when it is marked as opened."""

    corpus_id: str = "corpus"
    snapshot: str = "1"
    cohort: str = "mine"
    marked: list[str] = field(default_factory=list)

    def mark_opened(self) -> None:
        self.marked.append("opened")


PLACED = pl.LazyFrame(
    [("a", "mine", "train"), ("b", "mine", "test"), ("c", "another", "train")],
    schema=["text", "cohort", "split"],
    orient="row",
)


def test_a_charge_opens_the_training_rows_of_its_own_cohort_and_no_others() -> None:
    charge = Charged()
    opened = PrivateTable(PLACED, corpus_id="corpus", snapshot="1").open(charge)
    assert charge.marked == ["opened"]
    assert opened.collect()["text"].to_list() == ["a"]


def test_rows_are_compared_only_under_the_charge_that_opened_them() -> None:
    private, charge = PrivateTable(PLACED, corpus_id="corpus", snapshot="1"), Charged()
    with pytest.raises(ChargeMismatch, match="not opened"):
        private.as_stored(charge)
    private.open(charge)
    assert private.as_stored(charge).collect()["text"].to_list() == ["a"]
    with pytest.raises(ChargeMismatch, match="not opened"):
        private.as_stored(Charged(cohort="another"))


@pytest.mark.parametrize("other", [{"corpus_id": "another"}, {"snapshot": "2"}], ids=["corpus", "snapshot"])
def test_a_charge_for_another_corpus_or_snapshot_opens_nothing_and_stays_unopened(other: dict[str, str]) -> None:
    charge = replace(Charged(), **other)
    with pytest.raises(ChargeMismatch, match="differs from the table's"):
        PrivateTable(PLACED, corpus_id="corpus", snapshot="1").open(charge)
    assert charge.marked == []
