"""The second count: which bins each unit may vote for, and whether what was counted is just that."""

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from dp_assets.selection.bins import NO_BIN
from dp_assets.selection.recount import adds_up, are_own, is_everybody, recount
from dp_assets.selection.votes import exact_votes

KEY = b"key"
CENTROIDS = np.eye(4, dtype=np.float32)
ALLOWED = {"a": {0}, "b": {1, 2}, "silent": {NO_BIN}, "maybe": {3, NO_BIN}}


def table(*rows: tuple[str, str, list[float] | None]) -> pl.LazyFrame:
    schema = {"unit_id": pl.String(), "instruction_id": pl.String(), "vector": pl.Array(pl.Float32, 4)}
    return pl.DataFrame(rows, schema=schema, orient="row").lazy()


def towards(bin_id: int) -> list[float]:
    return [float(number) for number in CENTROIDS[bin_id]]


def test_the_recount_allows_just_the_bins_that_were_counted() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"unit-{unit}", f"row-{row}", None if rng.random() < 0.1 else [float(n) for n in rng.normal(size=4)])
        for unit in range(40)
        for row in range(rng.integers(1, 4))
    ]
    ballots: list[tuple[str, int]] = []
    exact_votes(table(*rows), CENTROIDS, key=KEY, ballots=ballots)
    allowed = recount(table(*rows), CENTROIDS, key=KEY)
    assert {unit: {bin_id} for unit, bin_id in ballots} == {u: b for u, b in allowed.items() if b != {NO_BIN}}


def test_rows_of_one_id_in_a_unit_leave_the_choice_between_their_bins() -> None:
    rows = [("a", "same", towards(1)), ("a", "same", towards(3)), ("b", "alone", None)]
    assert recount(table(*rows), CENTROIDS, key=KEY) == {"a": {1, 3}, "b": {NO_BIN}}


@pytest.mark.parametrize(
    ("voters", "is_sound"),
    [("ab", True), (["a", "b", "maybe"], True), ("a", False), (["a", "b", "silent"], False), ("abc", False)],
)
def test_everybody_who_has_a_vote_casts_it_and_nobody_else_does(voters: str | list[str], is_sound: bool) -> None:
    assert is_everybody([(unit, 0) for unit in voters], ALLOWED) == is_sound


@pytest.mark.parametrize(
    ("unit", "bin_id", "is_sound"), [("a", 0, True), ("b", 2, True), ("a", 1, False), ("c", 0, False)]
)
def test_a_vote_is_for_a_bin_that_the_units_own_rows_allow(unit: str, bin_id: int, is_sound: bool) -> None:
    assert are_own([(unit, bin_id)], ALLOWED) == is_sound


def counted(vectors: pl.LazyFrame) -> npt.NDArray[np.int64]:
    return exact_votes(vectors, CENTROIDS, key=KEY)


def test_a_count_that_looks_across_units_or_lets_one_vote_twice_does_not_add_up() -> None:
    def once_a_vector(vectors: pl.LazyFrame) -> npt.NDArray[np.int64]:
        return counted(vectors.collect().unique("vector", keep="first", maintain_order=True).lazy())

    def once_a_row(vectors: pl.LazyFrame) -> npt.NDArray[np.int64]:
        return counted(vectors.with_columns(unit_id=pl.concat_str("unit_id", "instruction_id")))

    assert adds_up(counted, CENTROIDS)
    assert not adds_up(once_a_vector, CENTROIDS)
    assert not adds_up(once_a_row, CENTROIDS)
