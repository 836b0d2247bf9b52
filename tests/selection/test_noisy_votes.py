"""The votes that are released carry noise on every bin and the evidence of what was counted."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from dp_assets.artifacts import EMBEDDER, PrivateTable, Table, content_digest
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.plan import VotesPlan
from dp_assets.selection.bins import digest_of
from dp_assets.selection.noisy_votes import EmbeddersDiffer, NoisyVotes, require_same_embedder
from tests.privacy.plans import small_plan

CENTROIDS = np.eye(4, dtype=np.float32)
IDENTITY = {"corpus_id": "corpus", "snapshot": "1"}
UNITS = 12


def real_table(**changed: Any) -> PrivateTable:
    rows = pl.LazyFrame(
        {
            "unit_id": [f"unit-{number}" for number in range(UNITS)],
            "instruction_id": [f"row-{number}" for number in range(UNITS)],
            "cohort": ["all"] * UNITS,
            "split": ["train"] * UNITS,
            "vector": CENTROIDS[np.arange(UNITS) % 2],
        },
        schema_overrides={"vector": pl.Array(pl.Float32, 4)},
    )
    return PrivateTable(rows, **IDENTITY, preparation="user-wise", **changed)


def released(noise_stddev: float, *, bins: str | None = None) -> tuple[Table, Evidence, list[str]]:
    """The release, its evidence, and what the charge was told."""
    told: list[str] = []
    charge: Any = SimpleNamespace(**IDENTITY, cohort="all", mark_opened=lambda: told.append("opened"))
    plan = replace(small_plan(), votes=VotesPlan(num_bins=len(CENTROIDS), noise_stddev=noise_stddev))
    above, digest = Table(pl.LazyFrame(), ("above",)), bins or digest_of(CENTROIDS)
    votes, evidence = NoisyVotes(plan, real_table(), above, CENTROIDS, digest, embedder="e", key=b"key").run(charge)
    return votes, evidence, told


def test_without_noise_the_released_votes_are_the_exact_ones_of_every_bin() -> None:
    votes, evidence, told = released(0.0)
    assert votes.collect().rows() == [(0, 6), (1, 6), (2, 0), (3, 0)]
    assert votes.charge_ids == ("above",)
    assert told == ["opened"]
    assert (evidence.public["population"], evidence.public["votes"]) == ("units", "of each unit alone")


def test_every_bin_is_noised_and_the_release_is_what_was_observed() -> None:
    votes, evidence, _ = released(50.0)
    noisy = votes.collect()["noisy_votes"].to_numpy()
    assert (noisy != [6, 6, 0, 0]).any()
    assert (evidence.public["noise_coordinates"], evidence.public["noised_bins"]) == (4, 4)
    assert evidence.content == content_digest(votes)


def test_votes_for_other_bins_than_the_stored_ones_say_so() -> None:
    assert released(1.0)[1].public["bins"] == "as stored"
    assert released(1.0, bins=digest_of(CENTROIDS + 1))[1].public["bins"] != "as stored"


@pytest.mark.parametrize(
    ("real", "synthetic", "configured", "dimension"),
    [("e", "e", "other", 4), ("other", "e", "e", 4), ("e", "other", "e", 4), ("e", "e", "e", 3)],
)
def test_vectors_of_different_embedders_are_refused_before_they_are_voted_on(
    real: str, synthetic: str, configured: str, dimension: int
) -> None:
    def bins(embedder: str, dimension: int) -> Table:
        centroids = pl.DataFrame({"bin_id": [0], "centroid": np.zeros((1, dimension), np.float32)})
        return Table(centroids.lazy(), (), {EMBEDDER: embedder})

    require_same_embedder(real_table(made_with={EMBEDDER: "e"}), bins("e", 4), "e")
    with pytest.raises(EmbeddersDiffer, match="materialize real_embeddings"):
        require_same_embedder(real_table(made_with={EMBEDDER: real}), bins(synthetic, dimension), configured)
