"""Preference pairs of a file, of a judge and of people, by the asset that users materialize."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.alignment.handoff import pair_tasks
from dp_assets.alignment.judge import JUDGE_PROMPT
from dp_assets.assets.annotated_instructions import annotated_instructions
from dp_assets.assets.preference_pairs import preference_pairs
from dp_assets.assets.sft_model import sft_model
from tests.alignment.fake_endpoint import PROBE_TEXT, FakeEndpoint, serving
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
    reply,
)
from tests.tiny_pipeline import PARTITION


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


def test_preference_pairs_without_any_pair_are_a_failure(tmp_path: Path) -> None:
    rows = pl.DataFrame({"prompt": ["a", "b"], "chosen": ["c", None], "rejected": ["c", "d"]})
    rows.write_parquet(tmp_path / "pairs.parquet")
    project = Project(tmp_path, NO_MODEL, "http://127.0.0.1:9/v1", source="file", path=str(tmp_path / "pairs.parquet"))
    project.store_inputs_of_preferences(PARTITION)
    result = project.materialize(preference_pairs)
    assert not result.success
    assert "preference_pairs would be empty" in messages(result)
    assert "incomplete: 1, same: 1" in messages(result)


def test_a_public_file_of_the_users_own_becomes_the_preference_pairs(tmp_path: Path) -> None:
    pairs = {"prompt": ["why?", "how?"], "chosen": ["because", "so"], "rejected": ["no", "so"]}
    pl.DataFrame(pairs).write_ndjson(tmp_path / "mine.jsonl")
    project = Project(tmp_path, NO_MODEL, "http://127.0.0.1:9/v1", source="file", path=str(tmp_path / "mine.jsonl"))
    project.store_inputs_of_preferences(PARTITION)
    result = project.materialize(preference_pairs)
    assert project.rows("preference_pairs").select("prompt", "chosen", "rejected").rows() == [("why?", "because", "no")]
    assert metadata(result, "preference_pairs")["preferences/dropped"] == {"same": 1}


@pytest.mark.slow
def test_a_judge_compares_two_samples_of_the_policy_in_both_orders(tmp_path: Path, tiny_model_folder: Path) -> None:
    with serving(FakeEndpoint({"error": 0.1}, reply=reply)) as server:
        project = Project(tmp_path, tiny_model_folder, server.url)
        result = project.materialize(annotated_instructions, sft_model, preference_pairs)
    assert result.success
    pairs, figures = project.rows("preference_pairs"), metadata(result, "preference_pairs")
    assert pairs.height > 0
    assert set(pairs["rejected_by"]) == {"judge"}
    assert all(len(chosen) > len(rejected) for chosen, rejected in pairs.select("chosen", "rejected").iter_rows())
    assert pairs.height + sum(figures["preferences/dropped"].values()) == 12
    asked = [request for request in server.requests if request.body["messages"][0]["content"] == JUDGE_PROMPT]
    assert figures["endpoint/questions"] == len({request.question for request in asked} - {PROBE_TEXT})
    assert [path.relative_to(tmp_path / "released/answers").parts[0] for path in project.answers] == [
        "annotated_instructions",
        "preference_pairs",
    ]


@pytest.mark.slow
def test_a_judged_run_that_is_stopped_neither_samples_nor_pays_twice(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def generate(*arguments: Any, instructions: list[str], **settings: Any) -> list[str]:
        drawn.extend(instructions)
        return [f"{'x' * len(drawn)} {number}" for number, _ in enumerate(instructions)]

    with serving(FakeEndpoint(reply=reply)) as server:
        project = Project(tmp_path, tiny_model_folder, server.url)
        assert project.materialize(annotated_instructions, sft_model).success
        monkeypatch.setattr("dp_assets.generation.sampling.generate_answers", generate)
        before = sum(server.delivered.values())
        server.plan = lambda *_: "error" if sum(server.delivered.values()) > before + 8 else "fine"
        stopped = project.materialize(preference_pairs, attempts=2)
        judged, server.plan = sum(server.delivered.values()) - before - 1, None
        finished = project.materialize(preference_pairs)
        again = project.materialize(preference_pairs)
    assert (stopped.success, finished.success, again.success) == (False, True, True)
    assert 8 <= judged < 24
    assert metadata(finished, "preference_pairs")["endpoint/reused"] == judged
    assert sorted(drawn) == sorted(TEXTS * 2)
    assert {server.computed[question] for question in server.questions} == {1}
    assert metadata(again, "preference_pairs")["endpoint/reused"] == 24


def test_a_judge_that_cannot_be_asked_is_named_before_the_policy_is_sampled(tmp_path: Path) -> None:
    project = Project(tmp_path, NO_MODEL, "http://127.0.0.1:9/v1")
    project.store_inputs_of_preferences(PARTITION)
    assert "preferences.judge.base_url" in messages(project.materialize(preference_pairs, attempts=1))


def test_verdicts_of_people_become_the_preference_pairs(tmp_path: Path) -> None:
    project = people(tmp_path, "preferences")
    compared = FILTERED.collect().select(
        "synthetic_id", prompt="text", first=pl.lit("a"), second=pl.lit("b"), unfit=pl.lit(None, pl.String)
    )
    tasks = pair_tasks(compared, partition=PARTITION)
    write(tmp_path / "done.json", full(tasks, {0: [Work("Answer 2")], 1: [Work("Tie")]}, "preference"))
    figures = metadata(project.materialize(preference_pairs), "preference_pairs")
    rows = project.rows("preference_pairs").select("prompt", "chosen", "rejected", "rejected_by").rows()
    assert rows == [(TEXTS[0], "b", "a", "human")]
    assert figures["handoff/dropped"] == {"unanswered": 10, "tie": 1}
