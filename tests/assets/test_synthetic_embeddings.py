"""The vectors of the pool: one a text, of unit length, and the table says whose they are."""

import numpy as np

from dp_assets.artifacts import EMBEDDER
from dp_assets.assets.synthetic_embeddings import synthetic_embeddings
from resources.models.loaders import Embedder
from tests.assets.one_asset import SYNTHETIC_IDS, TEXTS, Workbench


def test_each_text_of_the_pool_gets_its_vector_and_the_table_names_the_embedder(bench: Workbench) -> None:
    bench.put_pool()
    bench.make(synthetic_embeddings)
    made, embedder = bench.table("synthetic_embeddings"), Embedder(model="hashing")
    assert made.collect()["synthetic_id"].to_list() == SYNTHETIC_IDS
    vectors = made.collect()["vector"].to_numpy()
    assert np.array_equal(vectors, embedder.encode(TEXTS))
    assert np.linalg.norm(vectors, axis=1).round(5).tolist() == [1.0] * len(TEXTS)
    assert made.record == {EMBEDDER: embedder.public_name, "dimension": embedder.dimension}
    assert bench.shown["synthetic_embeddings"]["embedder"] == embedder.public_name
