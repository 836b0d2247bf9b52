"""Vectors that depend on other texts or other units are not stored."""

from typing import Any

import polars as pl
import pytest

from dp_assets.assets import real_embeddings as embeddings_module
from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from resources.models.loaders import Embedder
from tests.disk_pipeline import DiskPipeline, failure_of


def test_vectors_that_depend_on_their_companions_are_not_stored(
    pipeline: DiskPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Embedder.encode_alone
    monkeypatch.setattr(Embedder, "encode_alone", lambda self, texts: encode(self, texts) * len(texts))
    result = pipeline.materialize(real_instructions, real_embeddings)
    assert "depends on the other texts of its batch" in failure_of(result)[1]
    assert not pipeline.private_folder("real_embeddings").exists()


def test_vectors_that_depend_on_rows_of_other_units_are_not_stored(
    pipeline: DiskPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = embeddings_module.embed_training_rows

    def centered(rows: pl.LazyFrame, **settings: Any) -> pl.LazyFrame:
        frame = embed(rows, **settings).collect()
        vectors = frame["vector"].to_numpy()
        return frame.with_columns(vector=pl.Series(vectors - vectors.mean(axis=0))).lazy()

    monkeypatch.setattr(embeddings_module, "embed_training_rows", centered)
    result = pipeline.materialize(real_instructions, real_embeddings)
    assert "depend on the rows of other units" in failure_of(result)[1]
    assert not pipeline.private_folder("real_embeddings").exists()
