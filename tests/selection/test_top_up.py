"""The closed loop keeps what short bins lack and nothing else, aims where it succeeds, and stops where it does not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from dp_assets.selection.strategies import STEERED, Strategy
from dp_assets.selection.top_up import COLUMNS, PATIENCE, SMALLEST_ROUND, TopUp, top_up
from dp_assets.vocabulary import Steering

NUM_BINS = 3
CENTROIDS = np.eye(NUM_BINS, dtype=np.float32)


def text_of(bin_id: str, rng: np.random.Generator, *, opening: str = "", variants: int = 10_000) -> str:
    """A text of a bin: `kind<bin>`, six words, and the bin, which is what the embedder looks at."""
    return " ".join([opening or f"kind{bin_id}", *(f"w{n}" for n in rng.integers(variants, size=6)), bin_id])


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A text lies on the centroid of the bin that it ends with; one that ends with `x` has no finite vector."""
    rows = [np.full(NUM_BINS, np.nan) if text[-1] == "x" else CENTROIDS[int(text[-1])] for text in texts]
    return np.array(rows, dtype=np.float32).reshape(len(texts), NUM_BINS)


def pool_of(*counts: int) -> pl.DataFrame:
    """A pool with so many rows in each bin."""
    rng = np.random.default_rng(5)
    bins = [bin_id for bin_id, number in enumerate(counts) for _ in range(number)]
    texts = [text_of(str(bin_id), rng) for bin_id in bins]
    return pl.DataFrame({"text": texts, "bin_id": bins}, schema={"text": pl.String, "bin_id": pl.Int64})


class Generator:
    """Writes texts of the bins in `bins`, all alike; `calls` holds the steerings and the seed of every draw.

    Steered, it writes one of the bin of what it was shown with the chance that `obeys` has for the way it was shown,
    if that bin is in `reachable`.
    """

    def __init__(
        self,
        bins: str = "012",
        *,
        reachable: str = "012",
        variants: int = 10_000,
        turns: float = 0.0,
        opening: float = 0.0,
    ) -> None:
        self.bins, self.reachable, self.variants = bins, reachable, variants
        self.turns, self.opening = turns, opening
        self.calls: list[tuple[list[Steering], int]] = []

    def __call__(self, steerings: Sequence[Steering], seed: int) -> list[str]:
        self.calls.append((list(steerings), seed))
        rng = np.random.default_rng(seed)
        return [self._text(earlier, opening, rng) for earlier, opening in steerings]

    def _text(self, earlier: Sequence[str], opening: str, rng: np.random.Generator) -> str:
        bin_id = str(rng.choice(list(self.bins)))
        shown, chance = (opening, self.opening) if opening else (earlier[0] if earlier else "", self.turns)
        if shown and shown[4] in self.reachable and rng.random() < chance:
            bin_id = shown[4]
        return text_of(bin_id, rng, opening=opening, variants=self.variants)


def run(shortage: Sequence[int], draw: Any, **changes: Any) -> TopUp:
    settings: dict[str, Any] = {"max_samples": 192, "steered": True, "seed": 0, "pool": pool_of(12, 12, 12)}
    settings |= changes
    pool = settings.pop("pool")
    return top_up(
        pool, shortage=np.array(shortage, dtype=np.int64), draw=draw, embed=embed, centroids=CENTROIDS, **settings
    )


def held(result: TopUp) -> list[int]:
    return np.bincount(result.rows["bin_id"].to_numpy(), minlength=NUM_BINS).tolist()


@pytest.mark.parametrize("steered", [False, True])
@pytest.mark.parametrize("shortage", [(3, 0, 5), (0, 1, 0), (7, 7, 7)])
def test_short_bins_get_exactly_what_they_lack(shortage: tuple[int, ...], steered: bool) -> None:
    result = run(shortage, Generator(turns=0.5, opening=0.5), steered=steered)
    assert held(result) == list(shortage)
    assert result.rows.schema == COLUMNS
    assert all(int(text[-1]) == bin_id for text, bin_id in result.rows.select("text", "bin_id").iter_rows())
    assert sum(result.kept.values()) == result.rows.height
    assert result.rows["origin"].value_counts(sort=True).height <= 2
    assert result.rows.filter(origin="top_up").height == result.kept[Strategy.UNSTEERED]


def test_ids_count_from_one() -> None:
    assert run((2, 0, 0), Generator()).rows["synthetic_id"].to_list() == ["topup-000001", "topup-000002"]


def test_nothing_short_draws_nothing() -> None:
    draw = Generator()
    result = run((0, 0, 0), draw)
    assert (result.num_drawn, result.rows.height, draw.calls) == (0, 0, [])
    assert result.rows.schema == COLUMNS


@pytest.mark.parametrize("steered", [False, True])
def test_the_budget_of_samples_is_spent_on_what_is_short_and_never_exceeded(steered: bool) -> None:
    draw = Generator(bins="01", reachable="01")
    result = run((1, 0, 200), draw, max_samples=70, steered=steered)
    assert [len(steerings) for steerings, _ in draw.calls] == [32, 32, 6]
    assert result.num_drawn == 70
    assert held(result) == [1, 0, 0]


def test_unsteered_draws_show_nothing() -> None:
    draw = Generator()
    run((5, 0, 40), draw, steered=False)
    assert {steering for steerings, _ in draw.calls for steering in steerings} == {((), "")}


def test_what_is_shown_are_rows_of_short_bins_in_the_pool_or_kept_rows() -> None:
    draw, pool = Generator(turns=0.3, opening=0.3), pool_of(30, 30, 4)
    result = run((0, 3, 60), draw, pool=pool)
    known = set(pool["text"]) | set(result.rows["text"])
    for steerings, _ in draw.calls:
        for earlier, opening in steerings:
            assert set(earlier) <= known
            assert not opening or any(text.startswith(opening) for text in known)
            assert all(text[-1] in "12" for text in earlier)
            assert opening[:5] in ("", "kind1", "kind2")
    shown = {text for steerings, _ in draw.calls for earlier, _ in steerings for text in earlier}
    assert shown & set(result.rows["text"])


@pytest.mark.parametrize("better", STEERED)
def test_steering_reaches_a_rare_bin_with_fewer_samples_and_learns_which_way_works(better: Strategy) -> None:
    chances = {"turns" if better is Strategy.EARLIER_TURNS else "opening": 0.9}
    common = {"bins": "0" * 49 + "2"}
    pool = pool_of(98, 0, 2)
    unsteered = run((0, 0, 60), Generator(**common), steered=False, pool=pool, max_samples=256)
    steered = run((0, 0, 60), Generator(**common, **chances), pool=pool, max_samples=256)
    assert unsteered.num_drawn == 256
    assert held(unsteered)[2] < 20
    assert held(steered)[2] == 60
    assert steered.num_drawn < 180
    (worse,) = set(STEERED) - {better}
    assert steered.drawn[better] > 2 * steered.drawn[worse]
    assert steered.kept[better] > 0.7 * steered.drawn[better]


def test_where_steering_does_not_work_samples_are_drawn_as_the_pool_was() -> None:
    result = run((0, 200, 200), Generator(), pool=pool_of(10, 45, 45), max_samples=640)
    assert result.drawn[Strategy.UNSTEERED] > 0.5 * result.num_drawn
    assert sum(held(result)) > 300


def test_a_bin_that_nothing_reaches_is_given_up_and_the_budget_is_kept() -> None:
    draw = Generator(bins="01", reachable="01", turns=0.8, opening=0.8)
    result = run((0, 5, 5), draw, pool=pool_of(40, 40, 1), max_samples=3_000)
    assert held(result) == [0, 5, 0]
    assert result.given_up.tolist() == [2]
    assert result.num_drawn < 5 * PATIENCE + 4 * SMALLEST_ROUND


def test_a_bin_without_rows_is_shown_those_of_the_nearest_bin_that_has_some() -> None:
    centroids = np.array([[0, 0, 1], [1, 0, 0], [0.9, 0, 0.1]], dtype=np.float32)
    draw = Generator(bins="0", turns=1.0, opening=1.0)
    top_up(
        pool_of(20, 20, 0),
        shortage=np.array([0, 0, 4]),
        draw=draw,
        embed=embed,
        centroids=centroids,
        max_samples=SMALLEST_ROUND,
        steered=True,
        seed=0,
    )
    shown = {(earlier[0] if earlier else opening)[4] for steerings, _ in draw.calls for earlier, opening in steerings}
    assert shown == {"1"}


@pytest.mark.parametrize("steered", [False, True])
def test_no_text_is_kept_that_exists_or_was_kept_before(steered: bool) -> None:
    class Repeating(Generator):
        def _text(self, earlier: Sequence[str], opening: str, rng: np.random.Generator) -> str:
            number = rng.integers(6)
            return f"{'Same, again: ' if rng.random() < 0.5 else 'same again '}{'abcdef'[number] * 3} {number} text 0"

    existing = pl.DataFrame({"text": [f"same again {'abcdef'[n] * 3} {n} text 0" for n in range(4)], "bin_id": [0] * 4})
    result = run((50, 0, 0), Repeating(), pool=existing, steered=steered)
    assert {text.split()[-3] for text in result.rows["text"]} <= {"4", "5"}
    assert result.rows.height == len({text.split()[-3] for text in result.rows["text"]}) > 0
    assert result.copies == result.num_drawn - result.rows.height


def test_what_repeats_the_text_that_it_was_shown_is_dropped() -> None:
    class Echo(Generator):
        def _text(self, earlier: Sequence[str], opening: str, rng: np.random.Generator) -> str:
            if not earlier:
                return super()._text(earlier, opening, rng)
            shown = earlier[0]
            return f"{shown[:-2]} slightly {rng.integers(10**6)} longer {shown[-1]}"

    result = run((0, 0, 30), Echo(bins="0"), pool=pool_of(20, 20, 3))
    assert result.rows.is_empty()
    assert result.copies == result.drawn[Strategy.EARLIER_TURNS] > 0


def test_every_round_has_a_seed_of_its_own_that_is_not_a_small_number() -> None:
    draw = Generator(bins="1", reachable="")
    run((1, 0, 0), draw)
    seeds = [seed for _, seed in draw.calls]
    assert len(set(seeds)) == len(seeds) > 1
    assert min(seeds) > 1000


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    rows = [run((3, 1, 5), Generator(turns=0.5), seed=seed).rows for seed in (0, 0, 1)]
    assert rows[0].equals(rows[1])
    assert not rows[0].equals(rows[2])


def test_texts_without_a_finite_vector_and_empty_draws_are_survived() -> None:
    assert run((2, 0, 0), Generator(bins="x", reachable="")).rows.is_empty()
    result = run((2, 0, 0), lambda steerings, seed: [""] * len(steerings))
    assert (result.rows.height, result.copies) == (0, 0)
    assert result.num_drawn >= PATIENCE


def test_another_number_of_texts_than_asked_for_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        run((2, 0, 0), lambda steerings, seed: ["kind0 a b c d 0"])


def test_the_callers_shortage_and_pool_are_left_as_they_were() -> None:
    shortage, pool = np.array([2, 0, 0], dtype=np.int64), pool_of(4, 4, 4)
    before = pool.clone()
    top_up(
        pool,
        shortage=shortage,
        draw=Generator(opening=1.0),
        embed=embed,
        centroids=CENTROIDS,
        max_samples=64,
        steered=True,
        seed=0,
    )
    assert shortage.tolist() == [2, 0, 0]
    assert pool.equals(before)
