"""Attempts go where they succeed, as often as what is lacking asks for."""

import numpy as np
import pytest

from dp_assets.selection.allocation import Choice, Tally, allocate
from dp_assets.selection.bins import NO_BIN
from dp_assets.selection.strategies import STEERED, Strategy

UNSTEERED = (Strategy.UNSTEERED, NO_BIN)


def tally_of(landed: list[int]) -> Tally:
    return Tally(STEERED, np.array(landed, dtype=np.int64))


def allotted(size: int, tally: Tally, lacking: list[int], open_bins: list[int], seed: int = 0) -> list[Choice]:
    return allocate(
        size,
        tally,
        lacking=np.array(lacking, dtype=np.int64),
        open_bins=np.array(open_bins, dtype=np.int64),
        generator=np.random.default_rng(seed),
    )


def observe(tally: Tally, choice: Choice, *, kept: int, failed: int) -> None:
    for is_kept, number in ((True, kept), (False, failed)):
        for _ in range(number):
            tally.count(choice, bin_id=choice[1] if is_kept else 0, is_kept=is_kept)


def test_without_strategies_all_is_unsteered() -> None:
    choices = allotted(7, Tally((), np.array([1, 1])), [5, 5], [0, 1])
    assert choices == [UNSTEERED] * 7


def test_a_better_strategy_and_a_better_bin_get_most_samples() -> None:
    tally = tally_of([100, 0, 0])
    for bin_id, rates in ((1, (0.8, 0.2)), (2, (0.3, 0.1))):
        for strategy, rate in zip(STEERED, rates, strict=True):
            observe(tally, (strategy, bin_id), kept=round(40 * rate), failed=round(40 * (1 - rate)))
    choices = allotted(100, tally, [0, 500, 500], [1, 2])
    assert choices.count((STEERED[0], 1)) > 90


def test_what_a_strategy_did_in_other_bins_tells_of_a_bin_that_was_not_tried() -> None:
    tally = tally_of([100, 0, 0, 0])
    observe(tally, (STEERED[0], 1), kept=45, failed=5)
    observe(tally, (STEERED[1], 1), kept=1, failed=49)
    choices = allotted(100, tally, [0, 0, 500, 500], [2, 3])
    assert sum(strategy is STEERED[0] for strategy, _ in choices) > 90
    assert {bin_id for _, bin_id in choices} == {2, 3}


def test_everything_is_tried_before_anything_is_known() -> None:
    choices = allotted(60, tally_of([100, 0, 0]), [0, 500, 500], [1, 2])
    assert {(strategy, bin_id) for strategy in STEERED for bin_id in (1, 2)} <= set(choices)


def test_samples_are_unsteered_where_the_pool_falls_into_short_bins_more_often_than_steering_succeeds() -> None:
    tally = tally_of([10, 45, 45])
    for strategy in STEERED:
        for bin_id in (1, 2):
            observe(tally, (strategy, bin_id), kept=10, failed=30)
    assert allotted(50, tally, [0, 500, 500], [1, 2]).count(UNSTEERED) > 45


def test_unsteered_samples_that_give_no_new_text_lose_their_preference() -> None:
    tally = tally_of([10, 45, 45])
    for strategy in STEERED:
        for bin_id in (1, 2):
            observe(tally, (strategy, bin_id), kept=10, failed=30)
    for _ in range(900):
        tally.count(UNSTEERED, bin_id=NO_BIN, is_kept=False)
    assert allotted(50, tally, [0, 500, 500], [1, 2]).count(UNSTEERED) < 5


@pytest.mark.parametrize("lacking", [1, 4])
def test_no_more_is_aimed_at_a_bin_than_it_is_expected_to_need(lacking: int) -> None:
    tally = tally_of([100, 0])
    for strategy in STEERED:
        observe(tally, (strategy, 1), kept=50, failed=50)
    choices = allotted(200, tally, [0, lacking], [1])
    assert 2 * lacking - 1 <= len(choices) <= 2 * lacking + 2
    assert {bin_id for _, bin_id in choices} == {1}


def test_a_hit_in_another_bin_is_no_success_of_the_aim() -> None:
    tally = tally_of([10, 0, 0])
    tally.count((STEERED[0], 1), bin_id=2, is_kept=True)
    assert (tally.drawn.sum(), tally.kept.sum()) == (1, 0)


def test_unsteered_samples_are_counted_where_they_fell() -> None:
    tally = tally_of([10, 0, 0])
    for bin_id in (1, 1, NO_BIN):
        tally.count(UNSTEERED, bin_id=bin_id, is_kept=False)
    assert (tally.landed.tolist(), tally.num_unsteered) == ([10, 2, 0], 13)
    assert tally.drawn.sum() == 0


def test_the_same_generator_gives_the_same_choices() -> None:
    first, again, other = (allotted(40, tally_of([9, 1, 1]), [0, 30, 30], [1, 2], seed) for seed in (1, 1, 2))
    assert first == again != other
