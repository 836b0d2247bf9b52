"""Rows whose preparation was not seen to treat units apart are not stored, or not charged for."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from dp_assets.artifacts import UNKNOWN_PREPARATION
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
from resources.storage.adapter_io import PROVENANCE_FILE
from resources.storage.artifact_files import read_artifact
from tests.disk_pipeline import DiskPipeline, failure_of

Plant = Callable[[pytest.MonkeyPatch], None]


def test_a_corpus_prepared_across_units_is_not_stored(pipeline: DiskPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = module.prepare

    def without_duplicates(*args: Any, **kwargs: Any) -> pl.LazyFrame:
        return prepare(*args, **kwargs).unique("text", keep="first", maintain_order=True)

    monkeypatch.setattr(module, "prepare", without_duplicates)
    result = pipeline.materialize(real_instructions)
    assert "lets one unit affect another" in failure_of(result)[1]
    assert not pipeline.private_folder("real_instructions").exists()


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
    pipeline: DiskPipeline, monkeypatch: pytest.MonkeyPatch, plant: Plant
) -> None:
    plant(monkeypatch)
    result = pipeline.materialize(real_instructions)
    assert "lets one unit affect another" in failure_of(result)[1]
    assert not pipeline.private_folder("real_instructions").exists()


def test_a_table_beyond_the_contribution_bound_is_refused_in_private(
    pipeline: DiskPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_in_buckets = module.prepare_in_buckets

    def with_more_rows(rows: pl.LazyFrame, *args: Any, **kwargs: Any) -> Any:
        """Of real users, each row is stored three times."""
        found = prepare_in_buckets(rows, *args, **kwargs)
        is_real = not rows.filter(pl.col("user_id") == "user-1").collect().is_empty()
        return replace(found, rows=pl.concat([found.rows] * 3)) if is_real else found

    monkeypatch.setattr(module, "prepare_in_buckets", with_more_rows)
    result = pipeline.materialize(real_instructions)
    assert CONSTANT_MESSAGE in failure_of(result)[1]
    assert "more rows than corpus.max_rows_per_unit" not in failure_of(result)[1]
    assert "more rows than corpus.max_rows_per_unit" in (pipeline.home / "private/log/errors.log").read_text()
    assert not pipeline.private_folder("real_instructions").exists()


def test_the_verdict_travels_with_the_tables(pipeline: DiskPipeline) -> None:
    assert pipeline.materialize(real_instructions, real_embeddings).success
    for asset in ("real_instructions", "real_embeddings"):
        assert read_artifact(pipeline.private_folder(asset)).preparation == "user-wise"  # type: ignore[union-attr]


def forget_the_probe(pipeline: DiskPipeline, asset: str) -> None:
    """Leave the table as a version before the probe stored it."""
    file = pipeline.private_folder(asset) / PROVENANCE_FILE
    provenance = json.loads(file.read_text())
    assert provenance["preparation"] == "user-wise"
    file.write_text(json.dumps(provenance | {"preparation": UNKNOWN_PREPARATION}))


def units_of(pipeline: DiskPipeline) -> set[str]:
    kept: list[pl.DataFrame] = []
    table = read_artifact(pipeline.private_folder("real_instructions"))
    table.store(lambda rows: kept.append(rows.collect()))  # type: ignore[union-attr]
    return set(kept[0]["unit_id"])


def test_an_erased_unit_is_left_out_whenever_the_source_is_prepared_again(pipeline: DiskPipeline) -> None:
    ledger = pipeline.resources["ledger"]
    (corpus_id,) = ledger.state().registrations
    assert pipeline.materialize(real_instructions).success
    before = units_of(pipeline)
    ledger.record_erasure(corpus_id, erased := min(before), "asked for")
    assert pipeline.materialize(real_instructions).success
    assert units_of(pipeline) == before - {erased}


@pytest.mark.slow
def test_tables_of_an_earlier_version_are_refused_before_a_charge(pipeline: DiskPipeline) -> None:
    ledger = pipeline.resources["ledger"]
    assert pipeline.materialize(real_instructions, real_embeddings).success
    forget_the_probe(pipeline, "real_instructions")
    assert "materialize real_instructions again" in failure_of(pipeline.materialize(dp_generator))[1]
    assert list(ledger.state().charges) == []
    assert pipeline.materialize(
        real_instructions, dp_generator, synthetic_pool, synthetic_embeddings, synthetic_bins
    ).success
    forget_the_probe(pipeline, "real_embeddings")
    assert "materialize real_instructions again" in failure_of(pipeline.materialize(dp_histogram))[1]
    assert [charge.mechanism for charge in ledger.state().charges.values()] == ["dp_generator"]
