"""The map keeps neighbors together, marks what the votes changed, and depends on synthetic rows and public seeds."""

import json

import numpy as np
import pytest

from dp_assets.evaluation.synthetic_map import MOST_ROWS, NOTED_BINS, BinnedSet, SyntheticMap, synthetic_map

CENTROIDS = np.eye(4, 8, dtype=np.float32) * 5
VOTES = np.array([10, 60, 20, 10])


def rows_of(counts: tuple[int, ...], word: str) -> BinnedSet:
    """So many rows around each centroid; the first of each bin lies nearest to it."""
    bins = np.repeat(np.arange(len(counts)), counts)
    spread = np.random.default_rng(1).normal(scale=0.3, size=(len(bins), CENTROIDS.shape[1]))
    spread[np.unique(bins, return_index=True)[1]] *= 0.01
    texts = [f"{word} {bin_id} {row}" for row, bin_id in enumerate(bins)]
    return BinnedSet(texts, (CENTROIDS[bins] + spread).astype(np.float32), bins)


POOL = rows_of((40, 20, 20, 20), "pool")
FILTERED = rows_of((5, 30, 10, 5), "kept")


def drawn(pool: BinnedSet = POOL, filtered: BinnedSet = FILTERED, seed: int = 0) -> SyntheticMap:
    return synthetic_map(pool, filtered, noisy_votes=VOTES, centroids=CENTROIDS, seed=seed)


@pytest.fixture(scope="module")
def usual() -> SyntheticMap:
    return drawn()


def test_rows_of_one_bin_lie_nearer_to_each_other_than_to_those_of_others(usual: SyntheticMap) -> None:
    gaps = np.linalg.norm(usual.pool_xy[:, None] - usual.pool_xy[None], axis=2)
    alike = POOL.bin_ids[:, None] == POOL.bin_ids[None]
    assert np.median(gaps[alike]) < np.median(gaps[~alike]) / 2


def test_the_bins_that_the_votes_asked_for_more_of_come_first(usual: SyntheticMap) -> None:
    assert [(noted.number, noted.bin_id, noted.grown) for noted in usual.noted] == [
        (1, 1, True),
        (2, 0, False),
        (3, 3, False),
    ]
    assert (usual.noted[0].votes, usual.noted[0].before, usual.noted[0].after) == (0.6, 0.2, 0.6)


def test_the_example_is_the_text_nearest_to_the_center_of_its_bin_and_marked_where_it_lies(usual: SyntheticMap) -> None:
    grown, shrunk = usual.noted[0], usual.noted[1]
    assert (grown.text, shrunk.text) == ("kept 1 5", "pool 0 0")
    np.testing.assert_allclose(shrunk.xy, usual.pool_xy[0], atol=1e-3)
    np.testing.assert_allclose(grown.xy, usual.filtered_xy[5], atol=1e-3)


def test_the_same_seed_draws_the_same_map(usual: SyntheticMap) -> None:
    np.testing.assert_array_equal(drawn().pool_xy, usual.pool_xy)


def test_a_kept_row_lies_where_it_lay_in_the_pool() -> None:
    kept = BinnedSet(POOL.texts[::3], POOL.vectors[::3], POOL.bin_ids[::3])
    found = drawn(filtered=kept)
    np.testing.assert_array_equal(found.filtered_xy, found.pool_xy[::3])


def test_the_map_survives_json(usual: SyntheticMap) -> None:
    again = SyntheticMap.from_json(json.loads(json.dumps(usual.to_json(), allow_nan=False)))
    assert again.noted == usual.noted
    np.testing.assert_allclose(again.pool_xy, usual.pool_xy, atol=1e-3)


def test_a_handful_of_texts_and_a_set_of_equal_texts_have_a_map_too() -> None:
    few = BinnedSet(["a", "b"], CENTROIDS[:2], np.array([0, 1]))
    assert drawn(few, few).pool_xy.shape == (2, 2)
    alike = BinnedSet(["a"] * 9, np.repeat(CENTROIDS[:1], 9, axis=0), np.zeros(9, dtype=np.int64))
    assert np.isfinite(drawn(alike, few).pool_xy).all()


@pytest.mark.slow
def test_a_large_pool_is_drawn_in_part_and_every_bin_counted_whole() -> None:
    large = rows_of((1000, 500, 500, 500), "pool")
    found = drawn(pool=large)
    assert MOST_ROWS / 2 <= len(found.pool_xy) <= MOST_ROWS
    assert found.noted[0].before == 0.2
    assert len(found.noted) <= 2 * NOTED_BINS
