"""The file of answers: append-only, whole lines, one process at a time."""

import json
from pathlib import Path

import pytest

from dp_assets.alignment.answers_store import Answer, AnswersBusy, AnswersStore, Outcome, Usage


def answer(key: str, outcome: Outcome = Outcome.ANSWERED) -> Answer:
    return Answer(key, outcome, f"text of {key}" if outcome is Outcome.ANSWERED else "", Usage(3, 2))


def write(path: Path, *answers: Answer) -> None:
    with AnswersStore.opened(path) as store:
        for each in answers:
            store.add(each)


def test_what_was_added_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    write(path, answer("a"), answer("b", Outcome.TRUNCATED), answer("b"), answer("c", Outcome.EMPTY))
    with AnswersStore.opened(path) as store:
        assert [store.text(key) for key in "abcd"] == ["text of a", "text of b", "", ""]
        assert [store.tries(key) for key in "abcd"] == [1, 2, 1, 0]
        assert [store.last_outcome(key) for key in "acd"] == [Outcome.ANSWERED, Outcome.EMPTY, None]
        assert (store.usage, store.new_usage, store.num_answers) == (Usage(12, 8), Usage(), 4)


def test_an_answer_is_on_the_disk_as_soon_as_it_is_added(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswersStore.opened(path) as store:
        store.add(answer("a"))
        (line,) = path.read_text().splitlines()
        assert json.loads(line)["text"] == "text of a"
        assert store.new_usage == store.usage == Usage(3, 2)


@pytest.mark.parametrize("lost", [1, 10, 60])
def test_a_line_that_a_crash_left_half_written_is_passed_over_and_costs_no_other(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, answer("a"), answer("b"))
    path.write_bytes(path.read_bytes()[:-lost])
    write(path, answer("c"))
    with AnswersStore.opened(path) as store:
        whole = "b" if lost == 1 else ""  # only the end of its line is missing
        assert [store.text(key) for key in "ac"] == ["text of a", "text of c"]
        assert store.text("b") == (f"text of {whole}" if whole else "")


@pytest.mark.parametrize(
    "line", ["[]", "3", '{"key": "a"}', '{"key": "a", "outcome": "great", "text": "", "usage": {}}']
)
def test_a_line_of_another_form_is_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(line + "\n")
    with AnswersStore.opened(path) as store:
        assert (store.num_answers, store.tries("a")) == (0, 0)


def test_line_ends_of_other_scripts_inside_a_text_do_not_break_a_line(tmp_path: Path) -> None:
    path, text = tmp_path / "answers.jsonl", "one\u2028two\x85three\r\nfour"
    write(path, Answer("a", Outcome.ANSWERED, text, Usage()))
    with AnswersStore.opened(path) as store:
        assert store.text("a") == text


def test_one_process_at_a_time_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with (
        AnswersStore.opened(path),
        pytest.raises(AnswersBusy, match=r"answers\.jsonl; wait for it"),
        AnswersStore.opened(path),
    ):
        pass
    write(path, answer("a"))
