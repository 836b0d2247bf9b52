"""Annotation and judging through a real local server, by the assets that users materialize."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from dp_assets.alignment.handoff import instruction_tasks, pair_tasks
from dp_assets.alignment.judge import JUDGE_PROMPT
from dp_assets.artifacts import Adapter, Table
from dp_assets.assets.annotated_instructions import annotated_instructions
from dp_assets.assets.preference_pairs import preference_pairs
from dp_assets.assets.sft_model import sft_model
from dp_assets.corpus.schemas import SCHEMAS, check_schema
from dp_assets.definitions import ALL_ASSETS
from dp_assets.privacy.labels import Label, Zone
from dp_assets.settings.profile import Profile
from resources.storage.artifact_files import read_artifact, write_artifact
from resources.storage.stores import artifact_folder
from resources.storage.zones import prepare_folder
from tests.alignment.fake_endpoint import MODEL, PROBE_TEXT, FakeEndpoint, serving
from tests.alignment.label_studio_exports import Work, full, write
from tests.alignment.test_judge import verdict_on
from tests.tiny_pipeline import PARTITION, register, tiny_profile, tiny_resources

NO_MODEL = Path("no model is loaded here")
KEY, VARIABLE = "sk-this-must-stay-inside", "TINY_SERVICE_KEY"
TEXTS = [f"can you explain number {row}?" for row in range(12)]
FILTERED = Table(
    pl.LazyFrame(
        {
            "synthetic_id": [f"pool-{row:02d}" for row in range(len(TEXTS))],
            "text": TEXTS,
            "bin_id": [0] * len(TEXTS),
            "origin": ["pool"] * len(TEXTS),
        }
    )
)


class Project:
    """A registered corpus and a filtered set, with annotator and judge at an endpoint."""

    def __init__(self, home: Path, model: Path, url: str, **preferences: Any) -> None:
        self.home = home
        self.endpoint = {
            "base_url": url,
            "model": MODEL,
            "api_key_variable": VARIABLE,
            "backoff_seconds": 0.01,
            "attempts": 9,
            "input_price": 1.0,
            "output_price": 10.0,
        }
        self.plain = tiny_profile(home / "corpus.parquet", model).model_dump(mode="json")
        self.preferences = preferences
        register(self.resources()["ledger"], self.profile())

    def profile(self, **endpoint: Any) -> Profile:
        settings = self.endpoint | endpoint
        judge = {"judge": {**settings, "max_new_tokens": 30}}
        return Profile.model_validate(
            self.plain
            | {"annotation": self.plain["annotation"] | {"endpoint": settings}}
            | {"preferences": self.plain["preferences"] | {"source": "judge"} | judge | self.preferences}
        )

    def resources(self, **endpoint: Any) -> dict[str, Any]:
        return tiny_resources(self.profile(**endpoint), self.home)

    def folder(self, asset: str, partition: str = PARTITION) -> Path:
        return artifact_folder(self.home, [asset], Label.RELEASED, partition)

    def materialize(
        self, *assets: dg.AssetsDefinition, partition: str = PARTITION, **endpoint: Any
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets below a filtered set that is there already."""
        self.store("filtered_instructions", FILTERED, partition)
        return dg.materialize(
            ALL_ASSETS,
            selection=list(assets),
            partition_key=partition,
            resources=self.resources(**endpoint),
            raise_on_error=False,
        )

    def store(self, asset: str, value: Table | Adapter, partition: str) -> None:
        """What an earlier run left."""
        folder = self.folder(asset, partition)
        if not folder.exists():
            write_artifact(prepare_folder(folder, Zone.RELEASED), value)

    def store_inputs_of_preferences(self, partition: str) -> None:
        answered = FILTERED.rows.rename({"text": "instruction"}).with_columns(
            response=pl.lit("a"), annotator=pl.lit("b")
        )
        self.store("annotated_instructions", Table(answered), partition)
        self.store("sft_model", Adapter({"weight": np.zeros(1, np.float32)}, {"peft_type": "LORA"}, "tiny"), partition)

    def rows(self, asset: str) -> pl.DataFrame:
        table = read_artifact(self.folder(asset))
        assert isinstance(table, Table)
        check_schema(table.rows, SCHEMAS[asset], name=asset)
        return table.collect()

    @property
    def answers(self) -> list[Path]:
        return sorted((self.home / "released" / "answers").rglob("*.jsonl"))


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> Mapping[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


def messages(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(str(event.event_specific_data) + str(event.message) for event in result.all_events)


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


def test_preference_pairs_without_any_pair_are_a_failure(tmp_path: Path) -> None:
    rows = pl.DataFrame({"prompt": ["a", "b"], "chosen": ["c", None], "rejected": ["c", "d"]})
    rows.write_parquet(tmp_path / "pairs.parquet")
    project = Project(tmp_path, NO_MODEL, "http://127.0.0.1:9/v1", source="file", path=str(tmp_path / "pairs.parquet"))
    project.store_inputs_of_preferences(PARTITION)
    result = project.materialize(preference_pairs)
    assert not result.success
    assert "preference_pairs would be empty" in messages(result)
    assert "incomplete: 1, same: 1" in messages(result)


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


def people(tmp_path: Path, group: str) -> Project:
    """A project in which people do what this group of settings decides."""
    project = Project(tmp_path, NO_MODEL, "http://127.0.0.1:9/v1")
    project.plain[group] |= {"source": "human", "path": str(tmp_path / "done.json")}
    project.preferences = project.plain["preferences"]
    project.store_inputs_of_preferences(PARTITION)
    return project


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


def reply(question: str) -> str:
    """Annotates instructions and judges comparisons, preferring the longer answer."""
    return verdict_on(question) if question.startswith("{") else f"answer to {question}"
