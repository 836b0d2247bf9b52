"""Annotation through a real local server or by people, by the assets that users materialize."""

from pathlib import Path

import dagster as dg
import pytest

from dp_assets.alignment.handoff import instruction_tasks
from dp_assets.assets.annotated_instructions import annotated_instructions
from dp_assets.assets.preference_pairs import preference_pairs
from tests.alignment.fake_endpoint import MODEL, PROBE_TEXT, FakeEndpoint, serving
from tests.alignment.label_studio_exports import Work, full, write
from tests.stages.endpoint_project import (
    FILTERED,
    KEY,
    NO_MODEL,
    TEXTS,
    VARIABLE,
    Project,
    messages,
    metadata,
    people,
)
from tests.tiny_pipeline import PARTITION


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


def test_an_endpoint_annotates_and_its_tokens_and_cost_are_metadata(tmp_path: Path) -> None:
    with serving(FakeEndpoint({"error": 0.2, "cut": 0.1}, key=KEY)) as server:
        project = Project(tmp_path, NO_MODEL, server.url)
        result = project.materialize(annotated_instructions)
        again = project.materialize(annotated_instructions)
    rows, figures = project.rows("annotated_instructions"), metadata(result, "annotated_instructions")
    assert rows["response"].to_list() == [f"answer to {text}" for text in TEXTS]
    assert set(rows["annotator"]) == {MODEL}
    read = sum(len(text.split()) for text in [*TEXTS, PROBE_TEXT])
    written = sum(len(text.split()) for text in rows["response"]) + len(["ready"])
    assert (figures["endpoint/input_tokens"], figures["endpoint/output_tokens"]) == (read, written)
    assert figures["endpoint/cost"] == pytest.approx((read + 10 * written) / 1e6)
    assert (figures["endpoint/questions"], figures["endpoint/reused"], figures["endpoint/dropped"]) == (12, 0, {})
    repeated = metadata(again, "annotated_instructions")
    assert (repeated["endpoint/reused"], repeated["endpoint/cost_of_this_run"]) == (12, 0.0)
    assert set(server.computed.values()) == {1}


def test_an_annotated_set_without_any_answer_is_a_failure_and_is_not_stored(tmp_path: Path) -> None:
    useless = FakeEndpoint(plan=lambda question, _: "fine" if question == PROBE_TEXT else "truncated", key=KEY)
    with serving(useless) as server:
        project = Project(tmp_path, NO_MODEL, server.url)
        result = project.materialize(annotated_instructions)
    assert not result.success
    assert "annotated_instructions would be empty" in messages(result)
    assert "(truncated: 12)" in messages(result)
    assert not result.asset_materializations_for_node("annotated_instructions")
    assert not project.folder("annotated_instructions").exists()


def test_the_key_is_in_no_event_artifact_or_file(tmp_path: Path) -> None:
    with serving(FakeEndpoint(key=KEY)) as server:
        project = Project(tmp_path, NO_MODEL, server.url)
        made = project.materialize(annotated_instructions)
    with serving(FakeEndpoint(key="another")) as server:
        refused = Project(tmp_path / "b", NO_MODEL, server.url).materialize(annotated_instructions)
    assert made.success
    assert not refused.success
    assert "annotation.endpoint.api_key_variable" in messages(refused)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in messages(made) + messages(refused)
    assert KEY.encode() not in stored


def test_a_stop_by_the_budget_is_said_clearly_and_a_raised_budget_goes_on(tmp_path: Path) -> None:
    with serving(FakeEndpoint()) as server:
        project = Project(tmp_path, NO_MODEL, server.url)
        stopped = project.materialize(annotated_instructions, budget_tokens=250)
        kept = sum(server.computed.values())
        done = project.materialize(annotated_instructions, budget_tokens=5000)
    assert not stopped.success
    assert "annotation.endpoint.budget_tokens is 250" in messages(stopped)
    assert done.success
    assert 1 < kept < 13
    assert metadata(done, "annotated_instructions")["endpoint/reused"] == kept - 1
    assert {server.computed[text] for text in TEXTS} == {1}


@pytest.mark.parametrize("asset", [annotated_instructions, preference_pairs])
def test_nothing_made_without_noise_is_sent(tmp_path: Path, asset: dg.AssetsDefinition) -> None:
    with serving(FakeEndpoint()) as server:
        project = Project(tmp_path, NO_MODEL, server.url)
        if asset is preference_pairs:
            project.store_inputs_of_preferences("all|no-dp")
        result = project.materialize(asset, partition="all|no-dp")
    assert not result.success
    assert "may only be sent what lies in the released zone" in messages(result)
    assert server.requests == []
    assert project.answers == []
    assert not (tmp_path / "released/samples").exists()


def test_a_missing_key_stops_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    with serving(FakeEndpoint()) as server:
        result = Project(tmp_path, NO_MODEL, server.url).materialize(annotated_instructions)
    assert f"annotation.endpoint.api_key_variable is '{VARIABLE}'" in messages(result)
    assert server.requests == []


def test_what_people_wrote_is_stored_with_a_report_of_what_was_dropped(tmp_path: Path) -> None:
    project = people(tmp_path, "annotation")
    tasks = instruction_tasks(FILTERED.collect(), partition=PARTITION)
    tasks[0]["data"]["instruction"] += "!"
    write(
        tmp_path / "done.json", full(tasks, {number: [Work(f"because {number}")] for number in range(11)}, "response")
    )
    figures = metadata(project.materialize(annotated_instructions), "annotated_instructions")
    assert project.rows("annotated_instructions")["response"].to_list() == [f"because {row}" for row in range(1, 11)]
    assert (figures["dagster/row_count"], figures["unanswered"]) == (10, 2)
    assert figures["handoff/dropped"] == {"text_changed": 1, "unanswered": 1}
    assert figures["handoff/dropped_ids"] == {"text_changed": ["pool-00"], "unanswered": ["pool-11"]}


@pytest.mark.parametrize("content", [None, "[{", "[]"])
def test_an_import_that_stops_keeps_what_is_stored(tmp_path: Path, content: str | None) -> None:
    project = people(tmp_path, "annotation")
    before = project.rows("annotated_instructions")
    if content is not None:
        (tmp_path / "done.json").write_text(content)
    result = project.materialize(annotated_instructions)
    assert not result.success
    assert "annotation.path" in messages(result)
    assert project.rows("annotated_instructions").equals(before)


@pytest.mark.parametrize(
    ("asset", "group"), [(annotated_instructions, "annotation"), (preference_pairs, "preferences")]
)
def test_nothing_that_people_say_of_rows_made_without_noise_is_taken(
    tmp_path: Path, asset: dg.AssetsDefinition, group: str
) -> None:
    project = people(tmp_path, group)
    project.store_inputs_of_preferences("all|no-dp")
    assert f"{group}.source 'human' may only be sent" in messages(project.materialize(asset, partition="all|no-dp"))
