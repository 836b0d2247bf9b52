"""Rows whose preparation was not seen to treat units apart are not stored, or not charged for."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from dp_assets.artifacts import UNKNOWN_PREPARATION
from dp_assets.assets import real_embeddings as embeddings_module
from dp_assets.assets import real_instructions as module
from dp_assets.assets.dp_generator import dp_generator
from dp_assets.assets.dp_histogram import dp_histogram
from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.assets.synthetic_bins import synthetic_bins
from dp_assets.assets.synthetic_embeddings import synthetic_embeddings
from dp_assets.assets.synthetic_pool import synthetic_pool
from dp_assets.corpus import buckets
from resources.models.loaders import Embedder
from resources.private.private_log import CONSTANT_MESSAGE
from resources.storage.adapter_io import PROVENANCE_FILE
from resources.storage.artifact_files import read_artifact
from tests.tiny_pipeline import PARTITION, register, tiny_profile, tiny_resources, write_corpus

Plant = Callable[[pytest.MonkeyPatch], None]
STORED = "data/private/artifacts"


class Corpus:
    """A registered tiny corpus and its resources."""

    def __init__(self, home: Path, model: Path) -> None:
        profile = tiny_profile(write_corpus(home / "corpus.parquet"), model)
        self.home, self.resources = home, tiny_resources(profile, home / "data")
        register(self.resources["ledger"], profile)

    def materialize(self, *assets: Any) -> dg.ExecuteInProcessResult:
        below = [synthetic_pool, synthetic_embeddings, synthetic_bins]
        known = [real_instructions, real_embeddings, dp_generator, dp_histogram, *below]
        partition = PARTITION if any(asset.partitions_def for asset in assets) else None
        return dg.materialize(
            known, selection=list(assets), partition_key=partition, resources=self.resources, raise_on_error=False
        )

    def forget_the_probe(self, asset: str) -> None:
        """Leave the table as a version before the probe stored it."""
        file = self.home / STORED / asset / PROVENANCE_FILE
        provenance = json.loads(file.read_text())
        assert provenance["preparation"] == "user-wise"
        file.write_text(json.dumps(provenance | {"preparation": UNKNOWN_PREPARATION}))


@pytest.fixture
def corpus(tmp_path: Path, tiny_model_folder: Path) -> Corpus:
    return Corpus(tmp_path, tiny_model_folder)


def message_of(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    return "" if error is None else "\n".join(part.message for part in (error, error.cause) if part is not None)


def test_a_corpus_prepared_across_units_is_not_stored(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = module.prepare

    def without_duplicates(*args: Any, **kwargs: Any) -> pl.LazyFrame:
        return prepare(*args, **kwargs).unique("text", keep="first", maintain_order=True)

    monkeypatch.setattr(module, "prepare", without_duplicates)
    result = corpus.materialize(real_instructions)
    assert "lets one unit change what becomes of another" in message_of(result)
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
    return lambda patch: patch.setattr(module, "prepare", lambda rows, **steps: prepare(change(rows), **steps))


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
    assert "lets one unit change what becomes of another" in message_of(result)
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


def test_vectors_that_depend_on_their_companions_are_not_stored(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Embedder.encode_alone
    monkeypatch.setattr(Embedder, "encode_alone", lambda self, texts: encode(self, texts) * len(texts))
    result = corpus.materialize(real_instructions, real_embeddings)
    assert "depends on the texts beside it" in message_of(result)
    assert not (corpus.home / STORED / "real_embeddings").exists()


def test_vectors_that_depend_on_rows_of_other_units_are_not_stored(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = embeddings_module.embed_training_rows

    def centred(rows: pl.LazyFrame, **settings: Any) -> pl.LazyFrame:
        frame = embed(rows, **settings).collect()
        vectors = frame["vector"].to_numpy()
        return frame.with_columns(vector=pl.Series(vectors - vectors.mean(axis=0))).lazy()

    monkeypatch.setattr(embeddings_module, "embed_training_rows", centred)
    result = corpus.materialize(real_instructions, real_embeddings)
    assert "depend on the rows of other units" in message_of(result)
    assert not (corpus.home / STORED / "real_embeddings").exists()


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
