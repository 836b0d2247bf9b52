"""Rounds of the top-up that were drawn once are not drawn again, and nothing of the private zone is kept."""

import io
from collections.abc import Sequence
from pathlib import Path

from dp_assets.alignment.answers_store import AnswersStore
from dp_assets.progress import Advance, shown_on
from dp_assets.stages.top_up import kept, progress_once
from dp_assets.vocabulary import Steering

Round = tuple[list[Steering], int]

ROUNDS: list[Round] = [
    ([((), "how"), (("why?", "where?"), "")], 7),
    ([((), "how"), (("why?", "where?"), "")], 8),
    ([((), "what")], 8),
]


class Draw:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, steerings: Sequence[Steering], seed: int) -> list[str]:
        self.calls += 1
        return ["" if opening == "what" else f"{opening} {seed} {self.calls}" for _, opening in steerings]


def drawn(path: Path, draw: Draw, *, rounds: Sequence[Round], generator: str = "a") -> list[list[str]]:
    with AnswersStore.opened(path) as store:
        keeping = kept(draw, store, {"generator": generator, "top_p": 0.9})
        return [keeping(steerings, seed) for steerings, seed in rounds]


def test_a_stopped_run_goes_on_with_the_next_round(tmp_path: Path) -> None:
    path, draw = tmp_path / "rounds.jsonl", Draw()
    before = drawn(path, draw, rounds=ROUNDS[:2])
    after = drawn(path, draw, rounds=ROUNDS)
    assert after == [*before, [""]]
    assert draw.calls == 3


def test_a_round_that_a_crash_left_half_written_is_drawn_again(tmp_path: Path) -> None:
    path, draw = tmp_path / "rounds.jsonl", Draw()
    drawn(path, draw, rounds=ROUNDS[:2])
    path.write_text(path.read_text()[:-30])
    drawn(path, draw, rounds=ROUNDS[:2])
    assert draw.calls == 3


def test_another_generator_another_seed_and_another_prompt_are_drawn_anew(tmp_path: Path) -> None:
    path, draw = tmp_path / "rounds.jsonl", Draw()
    drawn(path, draw, rounds=ROUNDS)
    drawn(path, draw, rounds=ROUNDS, generator="b")
    drawn(path, draw, rounds=[([((), "how"), (("why?", "whence?"), "")], 7)])
    assert draw.calls == 7


def test_all_rounds_share_one_line_of_progress_which_counts_what_was_kept(tmp_path: Path) -> None:
    stream = io.StringIO()
    with shown_on(stream), AnswersStore.opened(tmp_path / "rounds.jsonl") as store:
        for _ in range(2):
            with progress_once("topping up", 9, "samples") as advance:

                def draw(steerings: Sequence[Steering], seed: int, advance: Advance = advance) -> list[str]:
                    advance(len(steerings))
                    return ["a"] * len(steerings)

                keeping = kept(draw, store, {}, advance=advance)
                for steerings, seed in ROUNDS:
                    keeping(steerings, seed)
    lines = stream.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["topping up: 5/9 samples"] * 2


def test_a_run_that_needs_no_round_shows_no_progress() -> None:
    stream = io.StringIO()
    with shown_on(stream), progress_once("topping up", 9, "samples"):
        pass
    assert stream.getvalue() == ""
