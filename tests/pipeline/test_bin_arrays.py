"""Centroids and votes come in the order of the bin ids, in whichever order their tables were stored."""

import numpy as np
import polars as pl

from dp_assets.artifacts import Table
from dp_assets.pipeline.bin_arrays import centroids_of, histogram_of

STORED = [2, 0, 3, 1]


def test_centroids_and_votes_are_ordered_by_the_bin_id_and_noise_is_that_of_the_evidence() -> None:
    rows = pl.DataFrame(
        {"bin_id": STORED, "noisy_votes": [20, 0, 30, 10], "centroid": [[float(number)] * 2 for number in STORED]},
        schema_overrides={"centroid": pl.Array(pl.Float32, 2)},
    )
    table = Table(rows.lazy(), (), {"evidence": {"noise_stddev": 4.0}})
    assert histogram_of(table).votes.tolist() == [0, 10, 20, 30]
    centroids = centroids_of(table)
    assert centroids.dtype == np.float32
    assert centroids.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert histogram_of(table).noise_stddev == 4.0
