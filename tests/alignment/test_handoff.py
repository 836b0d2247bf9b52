"""Tasks out, annotations back in: what was handed out comes back as it stands there, and the rest is named."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.alignment.annotation import COLUMNS
from dp_assets.alignment.handoff import NothingUsable, Taken, pair_tasks, take_verdicts
from dp_assets.alignment.label_studio import ExportError
from dp_assets.corpus.schemas import ANNOTATED_INSTRUCTIONS, PREFERENCE_PAIRS, check_schema
from tests.alignment.handing_out import (
    ANNOTATED,
    COMPARED,
    NUMBER,
    PAIRS,
    PARTITION,
    TASKS,
    TEXTS,
    answered_by_all,
    responses,
)
from tests.alignment.label_studio_exports import Work, full, minimal, write

EARLIER, LATER = "2026-11-24T10:00:00.000000Z", "2026-11-25T10:00:00.000000Z"

Works = Mapping[int, Sequence[Work]]


def verdicts(folder: Path, content: Any) -> Taken:
    path = write(folder / "done.json", content)
    return take_verdicts(path, ANNOTATED, partition=PARTITION, setting="preferences.path")


@pytest.mark.parametrize("form", [full, minimal])
def test_what_people_wrote_comes_back_with_the_instruction_that_it_answers(
    tmp_path: Path, form: Callable[..., Any]
) -> None:
    taken = responses(tmp_path, form(TASKS, answered_by_all(lambda number: f" answer {number}\nand more "), "response"))
    assert taken.rows.columns == list(COLUMNS)
    check_schema(taken.rows, ANNOTATED_INSTRUCTIONS, name="annotated_instructions")
    assert taken.rows.select("synthetic_id", "instruction", "bin_id").equals(
        ANNOTATED.select("synthetic_id", "instruction", "bin_id")
    )
    assert taken.rows["response"].to_list() == [f"answer {number}\nand more" for number in range(NUMBER)]
    assert set(taken.rows["annotator"]) == {"human:1"}
    assert (taken.dropped, taken.num_annotators) == ((), 1)


@pytest.mark.parametrize("form", [full, minimal])
def test_the_better_answer_is_chosen_and_ties_give_no_pair(tmp_path: Path, form: Callable[..., Any]) -> None:
    work = {0: [Work("Answer 1")], 1: [Work("Answer 2")], 2: [Work("Tie")]}
    taken = verdicts(tmp_path, form(PAIRS, work, "preference"))
    check_schema(taken.rows, PREFERENCE_PAIRS, name="preference_pairs")
    assert taken.rows.rows() == [
        ("pool-0", TEXTS[0], "first to pool-0", "second to pool-0", "human"),
        ("pool-1", TEXTS[1], "second to pool-1", "first to pool-1", "human"),
    ]
    assert taken.counts == {"unanswered": 2, "tie": 1}
    assert taken.ids == {"unanswered": ["pool-3", "pool-4"], "tie": ["pool-2"]}


def test_answers_that_cannot_be_compared_are_not_handed_out() -> None:
    unfit = pl.Series("unfit", ["same", None, "empty", None, None], dtype=pl.String)
    tasks = pair_tasks(COMPARED.with_columns(unfit), partition=PARTITION)
    assert [task["data"]["synthetic_id"] for task in tasks] == ["pool-1", "pool-3", "pool-4"]


def spoilt(number: int, **data: Any) -> list[dict[str, Any]]:
    """A full export in which one task's data was changed, or a field taken out where the value is None."""
    exported = full(TASKS, answered_by_all(str), "response")
    exported[number]["data"] |= data
    exported[number]["data"] = {name: value for name, value in exported[number]["data"].items() if value is not None}
    return exported


BAD_TASKS = {
    "malformed": ({"synthetic_id": None}, ""),
    "other_partition": ({"partition": "all|eps-1"}, "pool-2"),
    "unknown_id": ({"synthetic_id": "pool-99"}, "pool-99"),
    "text_changed": ({"instruction": "a better question?"}, "pool-2"),
}


@pytest.mark.parametrize("reason", list(BAD_TASKS))
def test_a_task_that_was_not_handed_out_so_is_dropped_by_name_and_costs_no_other(tmp_path: Path, reason: str) -> None:
    change, shown = BAD_TASKS[reason]
    taken = responses(tmp_path, spoilt(2, **change))
    assert taken.rows["synthetic_id"].to_list() == ["pool-0", "pool-1", "pool-3", "pool-4"]
    not_there = {"not_in_file": 1} if change.get("synthetic_id", "") != "" else {}
    assert taken.counts == {reason: 1} | not_there
    assert taken.ids.get(reason, [""]) == [shown]


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ([], "unanswered"),
        ([Work("never mind", skipped=True)], "skipped"),
        ([Work(" \n")], "empty"),
        ([Work(None)], "empty"),
    ],
)
def test_a_task_without_an_answer_is_dropped_by_its_reason(tmp_path: Path, work: list[Work], reason: str) -> None:
    taken = responses(tmp_path, full(TASKS, answered_by_all(str) | {3: work}, "response"))
    assert taken.rows.height == NUMBER - 1
    assert taken.figures["handoff/dropped"] == {reason: 1}
    assert taken.figures["handoff/dropped_ids"] == {reason: ["pool-3"]}


def test_rows_that_are_in_no_task_are_named(tmp_path: Path) -> None:
    taken = responses(tmp_path, full(TASKS[:2], answered_by_all(str), "response"))
    assert taken.rows.height == 2
    assert taken.ids == {"not_in_file": ["pool-2", "pool-3", "pool-4"]}


@pytest.mark.parametrize(
    ("work", "kept", "name"),
    [
        ([Work("old", 1, EARLIER), Work("new", 2, LATER)], "new", "human:2"),
        ([Work("new", 2, LATER), Work("old", 1, EARLIER)], "new", "human:2"),
        ([Work("true", 3, EARLIER, ground_truth=True), Work("new", 2, LATER)], "true", "human:3"),
        ([Work("old", None, EARLIER), Work("", 1, LATER)], "old", "human"),
    ],
)
def test_of_several_answers_the_ground_truth_or_the_newest_is_kept(
    tmp_path: Path, work: list[Work], kept: str, name: str
) -> None:
    taken = responses(tmp_path, full(TASKS, {0: work}, "response"))
    assert taken.rows.select("response", "annotator").row(0) == (kept, name)
    assert taken.counts["empty" if work[-1].value == "" else "superseded"] == 1


def test_a_task_that_was_imported_twice_counts_as_one(tmp_path: Path) -> None:
    work = {0: [Work("old", 1, EARLIER)], 1: [Work("new", 1, LATER)]}
    taken = responses(tmp_path, full([TASKS[0], TASKS[0]], work, "response"))
    assert taken.rows["response"].to_list() == ["new"]
    assert taken.counts == {"superseded": 1, "not_in_file": 4}


VOTES = {
    "most win": ([Work("Answer 1", 1), Work("Answer 1", 2), Work("Answer 2", 3)], "first", {}),
    "most win over ties": ([Work("Answer 2", 1), Work("Answer 2", 2), Work("Tie", 3)], "second", {}),
    "as many": ([Work("Answer 1", 1), Work("Answer 2", 2)], None, {"disagreement": 1}),
    "mostly ties": ([Work("Tie", 1), Work("Tie", 2), Work("Answer 2", 3)], None, {"tie": 1}),
    "one person twice": ([Work("Answer 1", 1, EARLIER), Work("Answer 2", 1, LATER)], "second", {"superseded": 1}),
    "unknown people": ([Work("Answer 1", None), Work("Answer 1", None), Work("Answer 2", None)], "first", {}),
    "ground truth": (
        [Work("Answer 1", 1, ground_truth=True), Work("Answer 2", 2), Work("Answer 2", 3)],
        "first",
        {"superseded": 2},
    ),
    "skipped": ([Work("Answer 1", 1), Work("Answer 2", 2, skipped=True)], "first", {"skipped": 1}),
    "another word": ([Work("Answer 1", 1), Work("Answer 3", 2)], "first", {"empty": 1}),
}


@pytest.mark.parametrize("case", list(VOTES))
def test_several_people_decide_on_a_pair_by_the_stated_rule(tmp_path: Path, case: str) -> None:
    work, winner, dropped = VOTES[case]
    taken = verdicts(tmp_path, full(PAIRS[:2], {0: work, 1: [Work("Answer 1")]}, "preference"))
    chosen = dict(taken.rows.select("synthetic_id", "chosen").iter_rows())
    assert chosen.get("pool-0") == (f"{winner} to pool-0" if winner else None)
    assert taken.counts == dropped


@pytest.mark.parametrize("field", ["prompt", "answer_1", "answer_2", "seal"])
def test_a_pair_whose_texts_changed_is_dropped(tmp_path: Path, field: str) -> None:
    exported = full(PAIRS, {number: [Work("Answer 1")] for number in range(NUMBER)}, "preference")
    exported[1]["data"][field] = "something else"
    taken = verdicts(tmp_path, exported)
    assert taken.ids == {"text_changed": ["pool-1"]}
    assert taken.rows.height == NUMBER - 1


def test_a_file_that_is_not_there_yet_is_named_with_the_command_that_hands_out(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"not there; .*handoff export pairs --partition 'all\|eps-8'"):
        take_verdicts(tmp_path / "none.json", ANNOTATED, partition=PARTITION, setting="preferences.path")


def test_an_export_of_which_nothing_can_be_used_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(NothingUsable, match=r"no annotation that can be used: \{'unanswered': 5\}"):
        responses(tmp_path, full(TASKS, {}, "response"))


ODD = [{}, {"data": None}, {"data": {}, "annotations": 3}, {"data": {"synthetic_id": 4}}, {"annotations": [1]}]


def test_rows_of_any_other_form_are_malformed_and_cost_no_other(tmp_path: Path) -> None:
    taken = responses(tmp_path, [*ODD, *full(TASKS, answered_by_all(str), "response")])
    assert taken.counts == {"malformed": len(ODD)}
    assert taken.rows.height == NUMBER
