from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from dp_assets.selection.filtering import Filtered, filter_pool
from dp_assets.selection.histogram import NoisyHistogram
from dp_assets.selection.resample import NoPositiveVotes, PoolTooSmall
from dp_assets.selection.settings import SelectionSettings
from dp_assets.vocabulary import Steering

CENTROIDS = np.eye(3, dtype=np.float32)
POOL = pl.DataFrame(
    {
        "synthetic_id": [f"pool-{n:06d}" for n in range(20)],
        "text": [f"{0 if n < 18 else 1} pool {n}" for n in range(20)],
        "num_tokens": 3,
        "bin_id": [0] * 18 + [1] * 2,
        "origin": "pool",
    }
)


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return CENTROIDS[[int(text[0]) for text in texts]]


def draw(steerings: Sequence[Steering], seed: int) -> list[str]:
    """Texts of the first two bins in turn, which go on with their opening where there is one."""
    return [f"{opening or n % 2} drawn {seed} {n} {n * n}" for n, (_, opening) in enumerate(steerings)]


def filtered(
    votes: Sequence[int], *, target_size: int = 10, top_up_samples: int = 0, steered_top_up: bool = False
) -> Filtered:
    return filter_pool(
        POOL,
        NoisyHistogram(np.array(votes, dtype=np.int64), noise_stddev=1.0),
        SelectionSettings(
            target_size=target_size, top_up_samples=top_up_samples, steered_top_up=steered_top_up, rule="paper", seed=0
        ),
        vectors=[CENTROIDS[POOL["bin_id"].to_numpy()]],
        centroids=CENTROIDS,
        draw=draw,
        embed=embed,
    )


def test_short_bins_are_topped_up_and_the_rest_goes_to_bins_with_rows() -> None:
    result = filtered([4, 4, 2], top_up_samples=8)
    assert result.rows.columns == ["synthetic_id", "text", "bin_id", "origin"]
    assert result.rows.group_by("bin_id", "origin").len().sort("bin_id", "origin").rows() == [
        (0, "pool", 6),
        (1, "pool", 2),
        (1, "top_up", 2),
    ]
    assert result.figures == {
        "rule": "paper",
        "dagster/row_count": 10,
        "shortage_before_top_up": 4,
        "shortage_after_top_up": 2,
        "bins_short_before_top_up": 2,
        "bins_short_after_top_up": 1,
        "bins_given_up": 0,
        "top_up_rows": 2,
        "top_up_samples_drawn": 8,
        "top_up_copies_dropped": 0,
        "top_up_drawn_unsteered": 8,
        "top_up_kept_unsteered": 2,
        "rows_from_pool": 8,
        "rows_from_top_up": 2,
    }


def test_figures_tell_of_steered_rows_by_strategy_and_origin() -> None:
    figures = filtered([1, 9, 0], top_up_samples=32, steered_top_up=True).figures
    assert figures["shortage_after_top_up"] == 0
    assert figures["rows_from_steered"] + figures.get("rows_from_top_up", 0) == figures["top_up_rows"] == 7
    strategies = ("unsteered", "earlier_turns", "opening")
    assert sum(figures[f"top_up_drawn_{name}"] for name in strategies) == figures["top_up_samples_drawn"]
    assert sum(figures[f"top_up_kept_{name}"] for name in strategies) == 7
    assert {type(value) for value in figures.values()} <= {int, float, str}


@pytest.mark.parametrize("target_size", [1, 7, 20])
def test_the_result_has_the_target_size_without_a_top_up(target_size: int) -> None:
    result = filtered([1, 5, -2], target_size=target_size)
    assert result.rows.height == target_size
    assert result.rows["text"].is_unique().all()


def test_a_top_up_makes_up_for_a_small_pool() -> None:
    assert filtered([1, 1, 0], target_size=36, top_up_samples=64).rows.height == 36


def test_a_pool_that_stays_too_small_and_votes_of_noise_alone_are_refused() -> None:
    with pytest.raises(PoolTooSmall):
        filtered([1, 1, 1], target_size=30)
    with pytest.raises(NoPositiveVotes):
        filtered([0, -1, 0])
