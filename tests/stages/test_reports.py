"""What the reports compare: filtered rows with the vector of each, and a baseline chosen by the same rule."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from dp_assets.artifacts import PrivateTable
from dp_assets.evaluation.quality import SyntheticSet
from dp_assets.selection.histogram import NoisyHistogram
from dp_assets.selection.settings import SelectionSettings
from dp_assets.stages.reports import (
    compared_sets,
    filtered_set,
    resampled_to_votes,
    restricted_metadata,
    set_in_bins,
)

CENTROIDS = np.eye(4, dtype=np.float32)


def test_rows_of_the_pool_keep_their_vectors_and_only_those_of_the_top_up_are_embedded() -> None:
    pool = pl.DataFrame({"synthetic_id": ["p0", "p1"], "vector": CENTROIDS[:2]})
    filtered = pl.DataFrame({"synthetic_id": ["t0", "p1"], "text": ["new", "old"], "bin_id": [3, 1]})
    embedded: list[str] = []

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        embedded.extend(texts)
        return CENTROIDS[[3] * len(texts)]

    texts, bins, vectors = filtered_set(pool, filtered, encode)
    assert embedded == ["new"]
    assert vectors is not None
    found = {text: (number, vector.tolist()) for text, number, vector in zip(texts, bins, vectors, strict=True)}
    assert found == {"old": (1, CENTROIDS[1].tolist()), "new": (3, CENTROIDS[3].tolist())}
    filtered_set(pool, filtered.filter(pl.col("synthetic_id") == "p1"), encode)
    assert embedded == ["new"]


def test_the_sets_of_a_report_lie_in_the_same_bins_and_the_baseline_keeps_the_share_of_the_filtered_set() -> None:
    texts = [f"text {row}" for row in range(40)]
    ids = [f"p{row}" for row in range(40)]
    pool = pl.DataFrame({"synthetic_id": ids, "text": texts, "vector": np.repeat(CENTROIDS, 10, axis=0)})
    filtered = pl.DataFrame({"synthetic_id": ids[:10], "text": texts[:10], "bin_id": [0] * 10})
    sets = compared_sets(
        pool,
        filtered,
        [f"untrained {row}" for row in range(8)],
        NoisyHistogram(np.array([30, 10, 0, 0]), noise_stddev=0.0),
        SelectionSettings(target_size=10, top_up_samples=0, steered_top_up=False, rule="paper", seed=0),
        centroids=CENTROIDS,
        encode=lambda asked: CENTROIDS[[row % 4 for row in range(len(asked))]],
    )
    assert sets.pool.bin_ids.tolist() == [row // 10 for row in range(40)]
    assert sets.baseline is not None
    assert sets.baseline.bin_ids.tolist() == [0, 1, 2, 3] * 2
    assert sets.baseline_filtered is not None
    assert len(sets.baseline_filtered.texts) == len(texts[:10]) * 8 // 40


def resampled(votes: Sequence[int], share: float) -> SyntheticSet | None:
    vectors = np.repeat(CENTROIDS, 10, axis=0)
    drawn = set_in_bins([f"text {row}" for row in range(40)], vectors, CENTROIDS)
    return resampled_to_votes(
        drawn,
        NoisyHistogram(np.array(votes), noise_stddev=0.0),
        SelectionSettings(target_size=1, top_up_samples=0, steered_top_up=False, rule="paper", seed=0),
        centroids=CENTROIDS,
        share=share,
    )


def test_a_baseline_is_resampled_to_the_votes_with_nothing_drawn_anew() -> None:
    chosen = resampled([30, 10, 0, 0], 0.25)
    assert chosen is not None
    texts, bins, vectors = chosen
    assert len(set(texts)) == len(texts) == 10
    assert vectors is not None
    assert (vectors.argmax(axis=1) == bins).all()
    assert (bins == 0).sum() > (bins == 1).sum() > 0 == (bins > 1).sum()


def test_without_a_positive_vote_or_a_row_to_choose_there_is_no_resampled_baseline() -> None:
    assert resampled([-1, 0, 0, -4], 0.25) is None
    assert resampled([30, 10, 0, 0], 0.01) is None


def test_restricted_figures_are_shown_by_metric_and_set_where_they_are_defined() -> None:
    rows = {"metric": ["mauve", "recall"], "subject": ["base model", "pool"], "value": [0.5, float("nan")]}
    report = PrivateTable(pl.LazyFrame(rows), corpus_id="corpus", snapshot="1")
    assert restricted_metadata(report) == {"restricted/mauve_base_model": 0.5}
