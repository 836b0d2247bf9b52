"""What the benchmarks share: whose time is whose, what a ratio says, and what is stored and compared."""

import importlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise, permutations, product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import _compare, harness
from benchmarks.__main__ import benchmarks
from benchmarks.harness import (
    BenchmarkFailed,
    interleave,
    interleave_pieces,
    options,
    peak_memory,
    python,
    ratio,
    store,
    texts,
)

MEBIBYTE = 1 << 20


@pytest.fixture(autouse=True)
def nothing_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness collects garbage before each piece, which takes a second in a process that holds all tests."""
    monkeypatch.setattr(harness.gc, "collect", lambda: 0)


def test_the_sides_take_turns_and_each_begins_equally_often() -> None:
    called = list[str]()
    sides = {name: (lambda name=name: called.append(name)) for name in "abc"}
    seconds = interleave(sides, repeats=6, warmups=0)
    rounds = [called[i : i + 3] for i in range(0, 18, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert [each[0] for each in rounds] == ["a", "b", "c"] * 2
    assert {name: len(values) for name, values in seconds.items()} == {"a": 6, "b": 6, "c": 6}


@pytest.mark.parametrize("names", ["ab", "abc", "abcd", "abcdefg"])
def test_each_side_stands_at_each_place_and_after_each_other_one_equally_often(names: str) -> None:
    called = list[str]()
    interleave({name: partial(called.append, name) for name in names}, repeats=2 * len(names), warmups=0)
    rounds = [called[i : i + len(names)] for i in range(0, len(called), len(names))]
    places = Counter((place, name) for each in rounds for place, name in enumerate(each))
    followed = Counter(pair for each in rounds for pair in pairwise(each))
    assert places == dict.fromkeys(product(range(len(names)), names), 2)
    assert followed == dict.fromkeys(permutations(names, 2), 2)


def test_warm_up_rounds_are_run_and_not_counted() -> None:
    called = list[str]()
    seconds = interleave({"a": lambda: called.append("a")}, repeats=2, warmups=3)
    assert (len(called), len(seconds["a"])) == (5, 2)


class Clock:
    """Stands for the module `time` in the harness: seconds go by only where a side says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(harness, "time", clock)
    return clock


def test_each_sides_seconds_are_its_own_and_hold_the_wait_for_an_accelerator(clock: Clock) -> None:
    sides = {"slow": lambda: clock.sleep(3), "fast": lambda: None}
    seconds = interleave(sides, repeats=3, finish=lambda: clock.sleep(1))
    assert seconds == {"slow": [4, 4, 4], "fast": [1, 1, 1]}


def test_pieces_of_the_sides_take_turns_and_a_sides_seconds_are_those_of_its_pieces(clock: Clock) -> None:
    called = list[str]()

    def side(name: str, seconds: float) -> Iterator[None]:
        for piece in range(2):
            clock.sleep(seconds)
            called.append(f"{name}{piece}")
            yield
        called.append(f"{name} ends")

    sides = {"a": partial(side, "a", 2), "b": partial(side, "b", 0)}
    seconds = interleave_pieces(sides, repeats=2, warmups=1)
    assert [sorted(called[i : i + 2]) for i in range(0, 18, 2)] == [
        ["a0", "b0"],
        ["a1", "b1"],
        ["a ends", "b ends"],
    ] * 3
    assert len(called) == 18
    assert seconds == {"a": [4, 4], "b": [0, 0]}


def test_no_piece_always_comes_after_one_of_the_same_side() -> None:
    called = list[str]()

    def side(name: str) -> Iterator[None]:
        for _ in range(30):
            called.append(name)
            yield

    interleave_pieces({name: partial(side, name) for name in "abc"}, repeats=1, warmups=0)
    followed = {pair for i in range(0, 90, 3) for pair in pairwise(called[i : i + 3])}
    assert followed == set(permutations("abc", 2))


def test_a_ratio_is_the_median_of_paired_ratios_within_its_interval() -> None:
    """A machine that becomes ten times slower half-way changes both sides, and so no pair."""
    speed = np.where(np.arange(20) < 10, 1.0, 10.0)
    found = ratio(3 * speed, 2 * speed)
    assert (found.median, found.lower_quartile, found.upper_confidence, found.repeats) == (1.5, 1.5, 1.5, 20)
    spread = ratio([1.0, 2.0, 3.0, 4.0, 9.0], [1.0] * 5)
    assert (spread.lower_quartile, spread.median, spread.upper_quartile) == (2.0, 3.0, 4.0)
    assert spread.lower_confidence < 3 < spread.upper_confidence


def test_peak_memory_is_that_of_the_fresh_process_whatever_this_one_holds() -> None:
    held = np.ones(300 * MEBIBYTE, dtype=np.uint8)
    small, large = (peak_memory(python("-c", f"b'x' * {size * MEBIBYTE}")).bytes for size in (1, 200))
    assert small < 60 * MEBIBYTE < held.nbytes
    assert 190 * MEBIBYTE < large - small < 230 * MEBIBYTE


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(BenchmarkFailed, match="exited with 3"):
        peak_memory(python("-c", "raise SystemExit(3)"))


def test_results_are_stored_with_what_they_depend_on(tmp_path: Path) -> None:
    given = options("").parse_args(["--out", str(tmp_path / "new" / "x.json"), "--repeats", "3"])
    path = store("x", {"ratio": ratio([1.0], [2.0]), "count": np.int64(7)}, given)
    stored = json.loads(path.read_text())
    assert (stored["benchmark"], stored["options"]) == ("x", {"repeats": 3})
    assert (stored["results"]["ratio"]["median"], stored["results"]["count"]) == (0.5, 7)
    assert {"revision", "processor", "cores", "memory_bytes", "python", "threads"} <= set(stored["environment"])
    assert stored["environment"]["packages"]["numpy"] == np.__version__


def test_parts_run_apart_are_stored_together(tmp_path: Path) -> None:
    given = options("").parse_args(["--out", str(tmp_path / "x.json")])
    for results in ({"a": 1, "b": 2}, {"b": 3}):
        path = store("x", results, given, in_parts=True)
    stored = json.loads(path.read_text())
    assert stored["results"] == {"a": 1, "b": 3}
    assert set(stored["measured"]) == {"a", "b"}


def test_texts_come_from_either_column_or_from_the_packaged_corpus(tmp_path: Path) -> None:
    for column in ("text", "instruction"):
        pl.DataFrame({column: ["a", None, "b"], "other": ["x", "y", "z"]}).write_parquet(tmp_path / column)
        assert sorted(texts(tmp_path / column)) == ["a", "b"]
    assert len(set(texts(None, limit=50))) > 40
    pl.DataFrame({"other": ["x"]}).write_parquet(tmp_path / "other")
    with pytest.raises(SystemExit, match="neither of the columns text and instruction"):
        texts(tmp_path / "other")


@pytest.mark.parametrize("name", benchmarks())
def test_every_benchmark_says_in_one_line_what_it_is_and_can_be_run(name: str) -> None:
    line = benchmarks()[name]
    assert line.endswith(".")
    module = importlib.import_module(f"benchmarks.{name}")
    assert callable(module.main)
    assert f"python -m benchmarks.{name}" in module.__doc__


def test_the_list_names_every_benchmark_without_loading_any() -> None:
    probe = (
        "import sys; sys.argv[1:] = []; import benchmarks.__main__ as m; m.main(); assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == list(benchmarks())


def test_figures_are_compared_by_path_and_lists_by_their_median() -> None:
    before = {"results": {"a": {"seconds": [1.0, 2.0, 9.0]}, "rows": [{"n": 1}], "gone": 5, "is_good": True}}
    after = {"results": {"a": {"seconds": [4.0]}, "rows": [{"n": 3}], "new": 6, "is_good": False}}
    assert dict((path, (old, new)) for path, old, new in _compare.compared(before, after)) == {
        "a.seconds": (2.0, 4.0),
        "rows[0].n": (1.0, 3.0),
        "gone": (5.0, None),
        "new": (None, 6.0),
    }


def test_a_comparison_says_what_else_differs() -> None:
    before = {"environment": {"processor": "x", "cores": 2}, "options": {"repeats": 3}}
    after = {"environment": {"processor": "y", "cores": 2}, "options": {"repeats": 4}}
    assert len(_compare.differences(before, after)) == 2
    assert _compare.differences(before, before) == []
