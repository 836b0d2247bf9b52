"""From text on, a newcomer adds at most one vote to one bin, and everybody else votes as before."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from dp_assets.artifacts import TRAIN_SPLIT
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.selection import votes
from dp_assets.selection.bins import fit_bins
from resources.models.loaders import Embedder
from tests.replay import checks
from tests.replay.neighbors import CASES, KEY, PLACES, THINGS, VERBS, neighbors

PUBLIC_TEXTS = [f"how do i {verb} {thing}?" for verb in VERBS for thing in THINGS]


def embedded(table: pl.DataFrame, embedder: Embedder) -> pl.DataFrame:
    """`real_embeddings` of prepared rows, without the asset around it."""
    training = table.filter(pl.col("split") == TRAIN_SPLIT)
    vectors = pl.Series("vector", embedder.encode_alone(training["text"].to_list()))
    return training.select("unit_id", "instruction_id", vectors)


def bins_of(embedder: Embedder) -> npt.NDArray[np.float32]:
    return fit_bins(embedder.encode(PUBLIC_TEXTS), num_bins=8, seed=0)


def votes_of(vectors: pl.DataFrame, centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return votes.exact_votes(vectors, centroids, key=KEY)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("unit", "case"), CASES)
def test_a_newcomer_adds_at_most_one_vote_and_moves_no_other(
    tmp_path: Path, unit: PrivacyUnit, case: str, place: str
) -> None:
    embedder, pair = Embedder(model="hashing"), neighbors(tmp_path, unit, case, place=place)
    before, after = embedded(pair.without, embedder), embedded(pair.joined, embedder)
    centroids = bins_of(embedder)
    checks.at_most_one_vote_moves(votes_of(before, centroids), votes_of(after, centroids))
    assert votes_of(after, centroids).sum() == after["unit_id"].n_unique()
    checks.others_keep_their_vectors(before, after)


@pytest.mark.slow
@pytest.mark.packaged
def test_vectors_and_votes_of_the_packaged_embedder_stay_when_a_unit_joins(tmp_path: Path) -> None:
    embedder, pair = Embedder(device="cpu"), neighbors(tmp_path, PrivacyUnit.USER, "enormous texts", num_users=6)
    before, after = embedded(pair.without, embedder), embedded(pair.joined, embedder)
    centroids = fit_bins(embedder.encode(PUBLIC_TEXTS[:32]), num_bins=4, seed=0)
    checks.at_most_one_vote_moves(votes_of(before, centroids), votes_of(after, centroids))
    checks.others_keep_their_vectors(before, after)
