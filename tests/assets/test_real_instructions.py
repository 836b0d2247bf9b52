"""Rows whose preparation was not seen to treat units apart are not stored, or not charged for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from dp_assets.assets.dp_generator import dp_generator
from dp_assets.assets.dp_histogram import dp_histogram
from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.assets.synthetic_bins import synthetic_bins
from dp_assets.assets.synthetic_embeddings import synthetic_embeddings
from dp_assets.assets.synthetic_pool import synthetic_pool
from dp_assets.corpus import buckets
from dp_assets.stages import preparation as module
from resources.private.private_step import CONSTANT_MESSAGE
from resources.storage.artifact_files import read_artifact
from tests.assets.tiny_corpus import STORED, Corpus, message_of

Plant = Callable[[pytest.MonkeyPatch], None]


def test_a_corpus_prepared_across_units_is_not_stored(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = module.prepare

    def without_duplicates(*args: Any, **kwargs: Any) -> pl.LazyFrame:
        return prepare(*args, **kwargs).unique("text", keep="first", maintain_order=True)

    monkeypatch.setattr(module, "prepare", without_duplicates)
    result = corpus.materialize(real_instructions)
    assert "lets one unit affect another" in message_of(result)
    assert not (corpus.home / STORED / "real_instructions").exists()


def without_copies(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.unique("text", keep="first", maintain_order=True)


def spread_without_copies(patch: pytest.MonkeyPatch) -> None:
    """Copies are left out over all users, while rows are spread into buckets."""
    spread = buckets.spread
    patch.setattr(buckets, "spread", lambda named, *args: spread(without_copies(named), *args))


def read_without_copies(patch: pytest.MonkeyPatch) -> None:
    read_source = module.read_source
    patch.setattr(module, "read_source", lambda *args: without_copies(read_source(*args)))


def prepare_changed(change: Callable[[pl.LazyFrame], pl.LazyFrame]) -> Plant:
    prepare = module.prepare
    return lambda patch: patch.setattr(module, "prepare", lambda rows, steps: prepare(change(rows), steps))


def without_what_many_wrote(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.filter(pl.col("user_id").n_unique().over("text") < 200)


def without_what_few_wrote(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.filter(pl.col("user_id").n_unique().over("text") < 2)


def without_the_longest(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Texts more than twice as long as they are on average, where there are enough to have one."""
    lengths = pl.col("text").str.len_chars()
    return rows.filter((lengths <= 2 * lengths.mean()) | (pl.len() < 100))


def without_the_older_half(rows: pl.LazyFrame) -> pl.LazyFrame:
    written = pl.col("created_at")
    return rows.filter(written.is_null() | (written >= written.median()))


@pytest.mark.parametrize(
    "plant",
    [
        spread_without_copies,
        read_without_copies,
        prepare_changed(without_what_many_wrote),
        prepare_changed(without_what_few_wrote),
        prepare_changed(without_the_longest),
        prepare_changed(without_the_older_half),
    ],
    ids=[
        "copies while spread",
        "copies while read",
        "what many wrote",
        "what two wrote",
        "what is rather long",
        "what is rather old",
    ],
)
def test_rows_of_which_other_units_decide_anywhere_on_the_way_to_the_table_are_not_stored(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, plant: Plant
) -> None:
    plant(monkeypatch)
    result = corpus.materialize(real_instructions)
    assert "lets one unit affect another" in message_of(result)
    assert not (corpus.home / STORED / "real_instructions").exists()


def test_a_table_beyond_the_contribution_bound_is_refused_in_private(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_in_buckets = module.prepare_in_buckets

    def with_more_rows(rows: pl.LazyFrame, *args: Any, **kwargs: Any) -> Any:
        """Of real users, each row is stored three times."""
        found = prepare_in_buckets(rows, *args, **kwargs)
        is_real = not rows.filter(pl.col("user_id") == "user-1").collect().is_empty()
        return replace(found, rows=pl.concat([found.rows] * 3)) if is_real else found

    monkeypatch.setattr(module, "prepare_in_buckets", with_more_rows)
    result = corpus.materialize(real_instructions)
    assert CONSTANT_MESSAGE in message_of(result)
    assert "more rows than corpus.max_rows_per_unit" not in message_of(result)
    assert "more rows than corpus.max_rows_per_unit" in (corpus.home / "data/private/log/errors.log").read_text()
    assert not (corpus.home / STORED / "real_instructions").exists()


def test_the_verdict_travels_with_the_tables(corpus: Corpus) -> None:
    assert corpus.materialize(real_instructions, real_embeddings).success
    for asset in ("real_instructions", "real_embeddings"):
        assert read_artifact(corpus.home / STORED / asset).preparation == "user-wise"  # type: ignore[union-attr]


def units_of(corpus: Corpus) -> set[str]:
    kept: list[pl.DataFrame] = []
    table = read_artifact(corpus.home / STORED / "real_instructions")
    table.store(lambda rows: kept.append(rows.collect()))  # type: ignore[union-attr]
    return set(kept[0]["unit_id"])


def test_an_erased_unit_is_left_out_whenever_the_source_is_prepared_again(corpus: Corpus) -> None:
    ledger = corpus.resources["ledger"]
    (corpus_id,) = ledger.state().registrations
    assert corpus.materialize(real_instructions).success
    before = units_of(corpus)
    ledger.record_erasure(corpus_id, erased := min(before), "asked for")
    assert corpus.materialize(real_instructions).success
    assert units_of(corpus) == before - {erased}


@pytest.mark.slow
def test_tables_of_an_earlier_version_are_refused_before_a_charge(corpus: Corpus) -> None:
    ledger = corpus.resources["ledger"]
    assert corpus.materialize(real_instructions, real_embeddings).success
    corpus.forget_the_probe("real_instructions")
    assert "materialize real_instructions again" in message_of(corpus.materialize(dp_generator))
    assert list(ledger.state().charges) == []
    assert corpus.materialize(
        real_instructions, dp_generator, synthetic_pool, synthetic_embeddings, synthetic_bins
    ).success
    corpus.forget_the_probe("real_embeddings")
    assert "materialize real_instructions again" in message_of(corpus.materialize(dp_histogram))
    assert [charge.mechanism for charge in ledger.state().charges.values()] == ["dp_generator"]
