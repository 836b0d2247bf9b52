import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from dp_assets.selection.votes import exact_votes, one_row_each_unit

DIMENSION = 4
CENTROIDS = np.eye(DIMENSION, dtype=np.float32)
ABSENT = None
MAX_ROWS = 3
SPOILT = (np.full(DIMENSION, np.nan), np.full(DIMENSION, np.inf), np.array([0, np.nan, 0, 1]))


def table(units: list[tuple[str, list[npt.NDArray[np.float64] | None]]]) -> pl.DataFrame:
    rows = [(unit, f"row-{n}", vector) for unit, vectors in units for n, vector in enumerate(vectors)]
    columns = {
        "unit_id": [unit for unit, _, _ in rows],
        "instruction_id": [row for _, row, _ in rows],
        "vector": [ABSENT if vector is None else vector.tolist() for _, _, vector in rows],
    }
    schema = {"unit_id": pl.String, "instruction_id": pl.String, "vector": pl.Array(pl.Float32, DIMENSION)}
    return pl.DataFrame(columns, schema=schema)


def some_vectors(rng: np.random.Generator) -> list[npt.NDArray[np.float64] | None]:
    """Between one and `MAX_ROWS` vectors, now and then one that is spoilt or absent."""
    vectors: list[npt.NDArray[np.float64] | None] = list(rng.normal(size=(rng.integers(1, MAX_ROWS + 1), DIMENSION)))
    if rng.random() < 0.3:
        vectors[0] = None if rng.random() < 0.3 else SPOILT[rng.integers(len(SPOILT))]
    return vectors


def votes(units: list[tuple[str, list[npt.NDArray[np.float64] | None]]], key: bytes = b"key") -> npt.NDArray[np.int64]:
    return exact_votes(table(units), CENTROIDS, key=key)


@pytest.mark.parametrize("seed", range(8))
def test_one_unit_moves_exact_votes_by_at_most_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = [(f"u{n}", some_vectors(rng)) for n in range(20)]
    full = votes(units)
    assert (full >= 0).all()
    for n in range(len(units)):
        change = full - votes(units[:n] + units[n + 1 :])
        assert np.abs(change).sum() <= 1
        assert change.min() >= 0


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_unit_of_any_number_of_rows_casts_one_vote(rows: int) -> None:
    assert votes([("u", [CENTROIDS[n % DIMENSION] for n in range(rows)])]).sum() == 1


def test_repeated_ids_in_a_unit_still_cast_one_vote() -> None:
    twice = table([("u", [CENTROIDS[0], CENTROIDS[1]])]).with_columns(instruction_id=pl.lit("same"))
    assert exact_votes(twice, CENTROIDS, key=b"key").sum() == 1


def test_votes_count_units_near_each_centroid() -> None:
    units = [(f"u{n}", [CENTROIDS[[0, 0, 0, 2, 3][n]] * 0.9]) for n in range(5)]
    counted = votes(units)
    assert counted.tolist() == [3, 0, 1, 1]
    assert counted.dtype == np.int64


@pytest.mark.parametrize("vector", [*SPOILT, None], ids=["nan", "inf", "mixed", "null"])
def test_a_unit_whose_vector_is_not_finite_does_not_vote(vector: npt.NDArray[np.float64] | None) -> None:
    assert votes([("good", [CENTROIDS[1]]), ("bad", [vector])]).tolist() == [0, 1, 0, 0]


def test_no_units_give_zero_votes_on_every_bin() -> None:
    assert votes([]).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_does_not_change_votes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = table([(f"u{n}", some_vectors(rng)) for n in range(20)])
    shuffled = rows.sample(fraction=1, shuffle=True, seed=seed)
    assert np.array_equal(exact_votes(rows, CENTROIDS, key=b"k"), exact_votes(shuffled, CENTROIDS, key=b"k"))


def test_the_key_decides_which_row_votes_and_every_row_can() -> None:
    rows = table([("u", [CENTROIDS[0], CENTROIDS[1], CENTROIDS[2]])])
    voters = {one_row_each_unit(rows, key=bytes([n]))["instruction_id"].item() for n in range(1, 40)}
    assert voters == {"row-0", "row-1", "row-2"}


@pytest.mark.parametrize("rows_in_a_block", [1, 3, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_that_part_a_unit_change_no_vote(
    monkeypatch: pytest.MonkeyPatch, seed: int, rows_in_a_block: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = table([(f"u{n}", some_vectors(rng)) for n in range(30)]).sample(fraction=1, shuffle=True, seed=seed)
    voters = one_row_each_unit(rows, key=b"k").drop_nulls("vector")
    expected = np.zeros(DIMENSION, dtype=np.int64)
    for vector in voters["vector"].to_numpy():
        if np.isfinite(vector).all():
            expected[((vector - CENTROIDS) ** 2).sum(axis=1).argmin()] += 1
    monkeypatch.setattr("dp_assets.selection.votes.BLOCK_ROWS", rows_in_a_block)
    ballots: list[tuple[str, int]] = []
    assert np.array_equal(exact_votes(rows.lazy(), CENTROIDS, key=b"k", ballots=ballots), expected)
    assert np.array_equal(np.bincount([bin_id for _, bin_id in ballots], minlength=len(expected)), expected)
    assert len({unit_id for unit_id, _ in ballots}) == len(ballots)
