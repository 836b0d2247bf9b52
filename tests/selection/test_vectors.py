"""Vectors are read in blocks, and what is made of them is what all of them at once would give."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from benchmarks.harness import peak_memory, python
from dp_assets.selection import vectors
from dp_assets.selection.bins import nearest_bin
from dp_assets.selection.vectors import assigned, sampled_vectors

ROWS, D = 1000, 6


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[pl.LazyFrame, npt.NDArray[np.float32]]:
    """A table in several shards, read in blocks that do not end with them."""
    monkeypatch.setattr(vectors, "BLOCK_ROWS", 64)
    values = np.random.default_rng(0).normal(size=(ROWS, D)).astype(np.float32)
    rows = pl.DataFrame({"synthetic_id": [f"pool-{n:04d}" for n in range(ROWS)], "vector": values})
    for number, shard in enumerate(rows.iter_slices(300)):
        shard.write_parquet(tmp_path / f"part-{number:05d}.parquet")
    return pl.scan_parquet(sorted(tmp_path.glob("*.parquet"))), values


def test_the_blocks_are_small_and_hold_every_row_in_its_place(
    stored: tuple[pl.LazyFrame, npt.NDArray[np.float32]],
) -> None:
    found = list(vectors.blocks(stored[0]))
    assert max(block.height for block in found) <= 64
    assert pl.concat(found).equals(stored[0].collect())


def test_rows_are_assigned_as_all_at_once_would_be(stored: tuple[pl.LazyFrame, npt.NDArray[np.float32]]) -> None:
    rows, values = stored
    centroids = values[:7]
    found = assigned(rows, centroids)
    assert found["synthetic_id"].to_list() == rows.collect()["synthetic_id"].to_list()
    assert np.array_equal(found["bin_id"].to_numpy(), nearest_bin(values, centroids))
    assert assigned(rows.head(0), centroids).schema == {"synthetic_id": pl.String, "bin_id": pl.Int64}


def test_a_sample_is_of_distinct_rows_and_follows_the_public_seed(
    stored: tuple[pl.LazyFrame, npt.NDArray[np.float32]],
) -> None:
    rows, values = stored
    sample = sampled_vectors(rows, most=200, seed=3)
    places = [int(np.flatnonzero((values == row).all(axis=1)).item()) for row in sample]
    assert len(set(places)) == 200
    assert places == sorted(places)
    assert np.array_equal(sample, sampled_vectors(rows, most=200, seed=3))
    assert not np.array_equal(sample, sampled_vectors(rows, most=200, seed=4))


def test_every_row_is_in_the_sample_equally_often(stored: tuple[pl.LazyFrame, npt.NDArray[np.float32]]) -> None:
    """300 samples of a fifth: a row's count is binomial, and outside 20 to 105 with a chance below 1e-9 each."""
    rows = stored[0].head(50)
    counts = sum(
        np.isin(rows.collect()["vector"].to_numpy()[:, 0], sampled_vectors(rows, most=10, seed=seed)[:, 0]).astype(int)
        for seed in range(300)
    )
    assert np.all((counts >= 20) & (counts <= 105))


def test_a_table_that_is_small_enough_is_taken_whole(stored: tuple[pl.LazyFrame, npt.NDArray[np.float32]]) -> None:
    rows, values = stored
    assert np.array_equal(sampled_vectors(rows, most=ROWS, seed=0), values)


@pytest.mark.slow
def test_assigning_takes_far_less_memory_than_the_vectors(tmp_path: Path) -> None:
    """400,000 vectors of 384 numbers are 614 MB; reading the same table's ids alone is taken off."""
    work = (
        "import sys; from pathlib import Path; import numpy as np, polars as pl\n"
        "from dp_assets.selection.vectors import assigned\n"
        "folder, take = Path(sys.argv[1]), int(sys.argv[2])\n"
        "rows = pl.scan_parquet(sorted(folder.glob('*.parquet'))).head(take)\n"
        "print(assigned(rows, np.eye(20, 384, dtype=np.float32)).height)"
    )
    values = np.random.default_rng(0).standard_normal((50_000, 384), dtype=np.float32)
    shard = pl.DataFrame({"synthetic_id": [f"pool-{n:07d}" for n in range(50_000)], "vector": values})
    for number in range(8):
        shard.write_parquet(tmp_path / f"part-{number:05d}.parquet", row_group_size=25_000)
    few, all_rows = (peak_memory(python("-c", work, str(tmp_path), str(take))).bytes for take in (1000, 400_000))
    assert all_rows - few < 350e6
