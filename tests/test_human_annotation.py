"""From the graph to people and back by the command: hand out, annotate as Label Studio would, and go on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from resources.storage.artifact_files import stored_charge_ids
from tests.alignment.label_studio_exports import Work, full, write
from tests.cli_pipeline import CliPipeline
from tests.tiny_pipeline import PARTITION

pytestmark = pytest.mark.slow


def table(pipeline: CliPipeline, asset: str) -> pl.DataFrame:
    return pl.read_parquet(pipeline.home / "released/artifacts" / asset / "all/eps-8/*.parquet")


def hand_out(pipeline: CliPipeline, kind: str) -> list[dict[str, Any]]:
    """The tasks that the command writes."""
    folder = pipeline.folder / "for people"
    done = pipeline.command("handoff", "export", kind, "--partition", PARTITION, "--to", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == [
        str(folder / f"{kind}-{name}") for name in ("tasks.json", "labels.xml", "provenance.json")
    ]
    provenance = json.loads((folder / f"{kind}-provenance.json").read_text())
    assert sorted(provenance["charge_ids"]) == sorted(pipeline.ledger.state().charges)
    tasks: list[dict[str, Any]] = json.loads((folder / f"{kind}-tasks.json").read_text())
    return tasks


def look_at(pipeline: CliPipeline, kind: str, *file: str) -> dict[str, Any]:
    """What the command says of an export, by default of the one that the profile names."""
    options = [option for path in file for option in ("--file", path)]
    done = pipeline.command("handoff", "check", kind, "--partition", PARTITION, "--json", *options)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def annotate(path: Path, tasks: list[dict[str, Any]], control: str, value: Callable[[int], str]) -> None:
    write(path, full(tasks, {number: [Work(value(number))] for number in range(len(tasks))}, control))


def by_people(pipeline: CliPipeline, group: str, file: str) -> None:
    """Let people do what this group of settings decides."""
    text = pipeline.profile_file.read_text()
    pipeline.profile_file.write_text(text.replace(f"[{group}]", f'[{group}]\nsource = "human"\npath = "{file}"'))


def test_people_answer_and_compare_while_nothing_above_them_runs_again(tmp_path: Path, tiny_model_folder: Path) -> None:
    pipeline = CliPipeline(tmp_path, tiny_model_folder)
    by_people(pipeline, "annotation", "responses.json")
    by_people(pipeline, "preferences", "verdicts.json")
    assert pipeline.command("register").returncode == 0

    waiting = pipeline.command("run", PARTITION)
    assert waiting.returncode == 1
    assert "handoff export instructions --partition 'all|eps-8'" in waiting.stderr
    refused = pipeline.command("handoff", "export", "pairs", "--partition", PARTITION, "--to", str(tmp_path / "x"))
    assert (refused.returncode, "annotated_instructions and sft_model" in refused.stderr) == (1, True)
    spent = pipeline.ledger.state().anchor

    tasks = hand_out(pipeline, "instructions")
    annotate(tmp_path / "responses.json", tasks, "response", lambda number: f"answer {number}")
    spoilt = [{"data": tasks[0]["data"] | {"synthetic_id": "nobody"}, "annotations": []}, *tasks[1:]]
    annotate(tmp_path / "spoilt.json", spoilt, "response", str)
    looked_at = look_at(pipeline, "instructions", str(tmp_path / "spoilt.json"))
    assert looked_at["dropped"] == [
        {"reason": "unknown_id", "synthetic_id": "nobody"},
        {"reason": "not_in_file", "synthetic_id": tasks[0]["data"]["synthetic_id"]},
    ]
    assert look_at(pipeline, "instructions") == {"taken": len(tasks), "annotators": 1, "dropped": []}
    assert not (pipeline.home / "released/artifacts/annotated_instructions").exists()

    waiting = pipeline.command("run", PARTITION)
    assert "== filtered_instructions" not in waiting.stderr
    assert "handoff export pairs" in waiting.stderr
    answered = table(pipeline, "annotated_instructions")
    assert dict(answered.select("instruction", "response").iter_rows()) == {
        task["data"]["instruction"]: f"answer {number}" for number, task in enumerate(tasks)
    }

    pairs = hand_out(pipeline, "pairs")
    assert pairs == hand_out(pipeline, "pairs")
    annotate(tmp_path / "verdicts.json", pairs, "preference", lambda number: f"Answer {1 + number % 2}")
    finished = pipeline.command("run", PARTITION)
    assert finished.returncode == 0, finished.stderr
    made = table(pipeline, "preference_pairs")
    assert made.select("prompt", "chosen", "rejected").rows() == [
        (data["prompt"], data[f"answer_{1 + number % 2}"], data[f"answer_{2 - number % 2}"])
        for number, data in enumerate(task["data"] for task in pairs)
    ]
    folder = pipeline.home / "released/artifacts/preference_pairs/all/eps-8"
    assert sorted(stored_charge_ids(folder)) == sorted(pipeline.ledger.state().charges)
    assert pipeline.ledger.state().anchor == spent
    statement = pipeline.home / "released/artifacts/privacy_statement/all/eps-8/document.json"
    assert "responses.json" not in statement.read_text()

    (tmp_path / "responses.json").write_text("[{")
    broken = pipeline.command("run", PARTITION)
    assert (broken.returncode, "annotation.path" in broken.stderr) == (1, True)
    assert table(pipeline, "annotated_instructions").equals(answered)
