"""What a handle on private rows gives away and to whom."""

import pickle

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


@pytest.mark.parametrize("other", [table(corpus_id="another"), table(snapshot="2")], ids=["corpus", "snapshot"])
def test_rows_of_two_corpora_or_snapshots_are_never_combined(other: PrivateTable) -> None:
    with pytest.raises(ChargeMismatch, match="different corpora or snapshots"):
        table().map(lambda rows, others: pl.concat([rows, others]), other)


def test_rows_that_come_of_differently_prepared_tables_have_no_known_preparation() -> None:
    combined = table().map(lambda rows, others: pl.concat([rows, others]), table(preparation="instruction-wise"))
    assert combined.preparation == UNKNOWN_PREPARATION
