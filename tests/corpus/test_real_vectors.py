"""Vectors come batch by batch and are those of the whole table."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from dp_assets.corpus import real_vectors
from dp_assets.corpus.real_vectors import UNIT_COLUMNS, embed_training_rows, require_units_apart
from dp_assets.corpus.schemas import REAL_EMBEDDINGS, REAL_INSTRUCTIONS, check_schema
from dp_assets.corpus.stability import UnstablePreparation
from resources.models.hashed_ngrams import hashed_vectors

ROWS = pl.DataFrame(
    [
        (f"user:{n // 2}", str(n), f"text number {n}", "all", "test" if n % 5 == 0 else "train", None)
        for n in range(103)
    ],
    schema=REAL_INSTRUCTIONS,
    orient="row",
)


@pytest.mark.parametrize("rows_in_a_batch", [1, 7, 5_000])
def test_training_rows_get_their_own_vectors_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_in_a_batch: int
) -> None:
    monkeypatch.setattr(real_vectors, "ROWS_IN_A_BATCH", rows_in_a_batch)
    found = embed_training_rows(ROWS.lazy(), encode=hashed_vectors, folder=tmp_path).collect()
    training = ROWS.filter(pl.col("split") == "train")
    assert found.select(UNIT_COLUMNS).equals(training.select(UNIT_COLUMNS))
    assert (found["vector"].to_numpy() == hashed_vectors(training["text"].to_list())).all()


def test_no_more_texts_are_handed_over_at_once_than_a_batch_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_vectors, "ROWS_IN_A_BATCH", 8)
    sizes = []

    def encode(texts: list[str]) -> object:
        sizes.append(len(texts))
        return hashed_vectors(texts)

    embed_training_rows(ROWS.lazy(), encode=encode, folder=tmp_path)  # type: ignore[arg-type]
    assert max(sizes) <= 8
    assert sum(sizes) == 82


def test_no_training_rows_give_an_empty_table_with_its_columns(tmp_path: Path) -> None:
    nothing = ROWS.lazy().filter(pl.col("split") == "nowhere")
    found = embed_training_rows(nothing, encode=hashed_vectors, folder=tmp_path)
    check_schema(found, REAL_EMBEDDINGS, name="real_embeddings")
    assert found.collect().is_empty()


embed = partial(embed_training_rows, encode=hashed_vectors)


def once_a_text(rows: pl.LazyFrame, *, folder: Path) -> pl.LazyFrame:
    return embed(rows.collect().unique("text", keep="first", maintain_order=True).lazy(), folder=folder)


def the_text_of_the_next_row(rows: pl.LazyFrame, *, folder: Path) -> pl.LazyFrame:
    frame = rows.collect()
    moved = pl.concat([frame["text"].tail(-1), frame["text"].head(1)])
    return embed(frame.with_columns(text=moved).lazy(), folder=folder)


def less_the_mean(rows: pl.LazyFrame, *, folder: Path) -> pl.LazyFrame:
    frame = embed(rows, folder=folder).collect()
    vectors = frame["vector"].to_numpy()
    return frame.with_columns(vector=pl.Series(vectors - vectors.mean(axis=0))).lazy()


def no_short_text(rows: pl.LazyFrame, *, folder: Path) -> pl.LazyFrame:
    return embed(rows.filter(pl.col("text").str.len_chars() > 30), folder=folder)


def test_units_are_embedded_apart() -> None:
    require_units_apart(embed)


@pytest.mark.parametrize("defect", [once_a_text, the_text_of_the_next_row, less_the_mean, no_short_text])
def test_vectors_that_depend_on_other_units_or_lack_a_row_are_refused(defect: Callable[..., pl.LazyFrame]) -> None:
    with pytest.raises(UnstablePreparation, match="other units"):
        require_units_apart(defect)
