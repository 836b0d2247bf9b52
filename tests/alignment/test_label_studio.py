"""Exports of Label Studio: what is no list of tasks is refused, and a task of any other form costs itself only."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dp_assets.alignment.handoff import take_responses
from dp_assets.alignment.label_studio import INSTRUCTIONS_CONFIG, PAIRS_CONFIG, RESPONSE, ExportError
from tests.alignment.handing_out import FILTERED, PAIRS, PARTITION, TASKS, answered_by_all, responses
from tests.alignment.label_studio_exports import Work, full, minimal, write


def test_names_and_addresses_of_people_are_not_taken_over(tmp_path: Path) -> None:
    exported = full(TASKS, answered_by_all(str), "response")
    exported[0]["annotations"][0]["completed_by"] = {"id": 5, "email": "kim@example.com", "first_name": "Kim"}
    exported[1]["annotations"][0]["completed_by"] = "kim@example.com"
    taken = responses(tmp_path, exported)
    assert taken.rows["annotator"].to_list() == ["human:5", "human", "human:1", "human:1", "human:1"]


@pytest.mark.parametrize("content", [{"tasks": []}, ["text"], 3])
def test_a_file_that_is_no_list_of_tasks_is_named_with_its_setting(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ExportError, match=r"annotation\.path .*is no list of tasks; export .* JSON"):
        responses(tmp_path, content)


@pytest.mark.parametrize("content", [b"[{", b"\xff\xfe\x00", b""])
def test_a_damaged_file_is_named_with_its_setting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "done.json").write_bytes(content)
    with pytest.raises(ExportError, match=r"annotation\.path .*cannot be read .*export the project again"):
        take_responses(tmp_path / "done.json", FILTERED, partition=PARTITION, setting="annotation.path")


@pytest.mark.parametrize("result", [None, 3, [3], [{"from_name": "response"}], [{"from_name": "x", "value": {}}]])
def test_results_of_any_other_form_are_empty(tmp_path: Path, result: Any) -> None:
    exported = full(TASKS, answered_by_all(str), "response")
    exported[0]["annotations"][0]["result"] = result
    assert responses(tmp_path, exported).ids == {"empty": ["pool-0"]}


@pytest.mark.parametrize(("config", "tasks"), [(INSTRUCTIONS_CONFIG, TASKS), (PAIRS_CONFIG, PAIRS)])
def test_a_configuration_shows_fields_that_the_tasks_have(config: str, tasks: list[dict[str, Any]]) -> None:
    shown = {element.get("value", "") for element in ElementTree.fromstring(config).iter("Text")}
    assert {name.removeprefix("$") for name in shown} <= tasks[0]["data"].keys()
    assert len(shown) >= 1
    assert json.loads(json.dumps(tasks)) == tasks


BROKEN_TEXTS = [b"a\\ud800b", b"\\udc00", b"\xff\xfe", b"\xed\xa0\x80"]


@pytest.mark.parametrize("form", [full, minimal])
@pytest.mark.parametrize("broken", BROKEN_TEXTS)
def test_a_text_that_is_no_unicode_costs_its_own_answer(
    tmp_path: Path, form: Callable[..., Any], broken: bytes
) -> None:
    work = {0: [Work("BROKEN")], 1: [Work("Because."), Work("BROKEN", person=2)]}
    path = write(tmp_path / "export.json", form(TASKS, work, RESPONSE))
    path.write_bytes(path.read_bytes().replace(b"BROKEN", broken))
    taken = take_responses(path, FILTERED, partition=PARTITION, setting="annotation.path")
    assert taken.rows["response"].to_list() == ["Because."]
    assert taken.counts["unreadable"] == 2
    json.dumps(taken.figures, ensure_ascii=False).encode()


@pytest.mark.parametrize("field", ["synthetic_id", "partition", "instruction"])
@pytest.mark.parametrize("broken", BROKEN_TEXTS)
def test_a_task_that_is_no_unicode_costs_itself_only(tmp_path: Path, field: str, broken: bytes) -> None:
    export = full(TASKS, {0: [Work("So.")], 1: [Work("Because.")]}, RESPONSE)
    export[0]["data"][field] = "BROKEN"
    path = write(tmp_path / "export.json", export)
    path.write_bytes(path.read_bytes().replace(b"BROKEN", broken))
    taken = take_responses(path, FILTERED, partition=PARTITION, setting="annotation.path")
    assert taken.rows["response"].to_list() == ["Because."]
    assert taken.counts["malformed"] == 1
    json.dumps(taken.figures, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "entry", [b"null", b"7", b'"text"', b"[]", b'{"data": null}', b'{"data": {}, "annotations": 3}']
)
def test_an_entry_that_is_no_task_costs_itself_only(tmp_path: Path, entry: bytes) -> None:
    path = write(tmp_path / "export.json", full(TASKS, {1: [Work("Because.")]}, RESPONSE))
    path.write_bytes(path.read_bytes().replace(b"[", b"[" + entry + b",", 1))
    taken = take_responses(path, FILTERED, partition=PARTITION, setting="annotation.path")
    assert taken.rows["response"].to_list() == ["Because."]
    assert taken.counts["malformed"] == 1


def test_control_characters_in_an_answer_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "export.json", full(TASKS, {1: [Work("one BROKEN two")]}, RESPONSE))
    path.write_bytes(path.read_bytes().replace(b"BROKEN", b"\t\n\\u0000"))
    taken = take_responses(path, FILTERED, partition=PARTITION, setting="annotation.path")
    assert taken.rows["response"].to_list() == ["one \t\n\0 two"]
