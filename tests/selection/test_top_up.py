from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from dp_assets.selection.top_up import COLUMNS, TopUp, top_up

NUM_BINS = 3
CENTROIDS = np.eye(NUM_BINS, dtype=np.float32)


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A text `<bin> ...` lies on its bin's centroid; one that begins with `x` has no finite vector."""
    rows = [np.full(NUM_BINS, np.nan) if text[0] == "x" else CENTROIDS[int(text[0])] for text in texts]
    return np.array(rows, dtype=np.float32)


class Generator:
    """Draws texts of random bins; `calls` holds (number, seed) of every draw."""

    def __init__(self, bins: str = "012", variants: int = 10_000) -> None:
        self.bins, self.variants = bins, variants
        self.calls: list[tuple[int, int]] = []

    def __call__(self, num_samples: int, seed: int) -> list[str]:
        self.calls.append((num_samples, seed))
        rng = np.random.default_rng(seed)
        return [f"{rng.choice(list(self.bins))} text {rng.integers(self.variants)}" for _ in range(num_samples)]


def run(shortage: Sequence[int], draw: Generator, *, max_samples: int = 200, existing: Sequence[str] = ()) -> TopUp:
    return top_up(
        np.array(shortage, dtype=np.int64),
        draw=draw,
        embed=embed,
        centroids=CENTROIDS,
        existing_texts=existing,
        max_samples=max_samples,
        batch=16,
        seed=0,
    )


@pytest.mark.parametrize("shortage", [(3, 0, 5), (0, 1, 0), (7, 7, 7)])
def test_short_bins_get_exactly_what_they_lack(shortage: tuple[int, ...]) -> None:
    result = run(shortage, Generator())
    held = np.bincount(result.rows["bin_id"].to_numpy(), minlength=NUM_BINS)
    assert held.tolist() == list(shortage)
    assert result.rows.schema == COLUMNS
    assert result.rows["origin"].unique().to_list() == ["top_up"]
    assert all(int(text[0]) == bin_id for text, bin_id in result.rows.select("text", "bin_id").iter_rows())


def test_ids_count_from_one() -> None:
    assert run((2, 0, 0), Generator()).rows["synthetic_id"].to_list() == ["topup-000001", "topup-000002"]


def test_drawing_stops_when_nothing_is_short() -> None:
    draw = Generator()
    result = run((1, 1, 1), draw)
    assert result.num_drawn == 16 == sum(number for number, _ in draw.calls)


def test_nothing_short_draws_nothing() -> None:
    draw = Generator()
    result = run((0, 0, 0), draw)
    assert (result.num_drawn, result.rows.height, draw.calls) == (0, 0, [])
    assert result.rows.schema == COLUMNS


def test_the_budget_of_samples_is_never_exceeded() -> None:
    draw = Generator(bins="01")
    result = run((1, 0, 4), draw, max_samples=40)
    assert [number for number, _ in draw.calls] == [16, 16, 8]
    assert result.num_drawn == 40
    assert result.rows["bin_id"].to_list() == [0]


def test_no_text_is_kept_that_exists_or_was_kept_before() -> None:
    existing = [f"0 text {n}" for n in range(4)]
    result = run((50, 0, 0), Generator(bins="0", variants=6), existing=existing)
    assert sorted(result.rows["text"]) == ["0 text 4", "0 text 5"]


def test_every_batch_has_a_seed_of_its_own_that_is_not_a_small_number() -> None:
    draw = Generator(bins="1")
    run((1, 0, 0), draw)
    seeds = [seed for _, seed in draw.calls]
    assert len(set(seeds)) == len(seeds) > 1
    assert min(seeds) > 1000


def test_the_same_seed_gives_the_same_rows() -> None:
    assert run((3, 1, 5), Generator()).rows.equals(run((3, 1, 5), Generator()).rows)


def test_texts_without_a_finite_vector_and_empty_draws_are_survived() -> None:
    result = run((2, 0, 0), Generator(bins="x"))
    assert (result.rows.height, result.num_drawn) == (0, 200)
    assert run((2, 0, 0), Generator(variants=1, bins="1"), existing=["1 text 0"]).rows.is_empty()


def test_the_callers_shortage_is_left_as_it_was() -> None:
    shortage = np.array([2, 0, 0], dtype=np.int64)
    top_up(
        shortage,
        draw=Generator(),
        embed=embed,
        centroids=CENTROIDS,
        existing_texts=(),
        max_samples=64,
        batch=16,
        seed=0,
    )
    assert shortage.tolist() == [2, 0, 0]
