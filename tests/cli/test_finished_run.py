"""What people do with a finished run: export it and open it with the usual libraries, and question the catalog."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.settings.named import selected_profile
from resources.storage.catalog import catalog_file
from tests.cli.pipelines import pipeline_of
from tests.cli_pipeline import ROOT, CliPipeline
from tests.tiny_pipeline import OVERRIDES, PARTITION

pytestmark = pytest.mark.slow

CONFIGS = ("filtered", "annotated", "preferences", "pool", "histogram", "bins")
POLICIES = ("generator", "sft", "rlhf")
GUIDE = (ROOT / "docs/guides/catalog.md").read_text()
QUESTIONS = dict(re.findall(r"\*\*(.+?)\*\*\n\n```sql\n(.*?)```", GUIDE, re.DOTALL))
OLDER_CLIENT = "DP_INSTRUCTIONS_OLDER_DUCKDB"
"""A folder into which an older DuckDB was installed, for example by `pip install --target FOLDER duckdb==1.2.2`."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Iterator[CliPipeline]:
    """A pipeline in which the whole graph ran once, and whose profile this process uses."""
    with (
        pytest.MonkeyPatch.context() as patch,
        pipeline_of(tmp_path_factory.mktemp("finished"), tiny_model_folder, patch) as pipeline,
    ):
        assert pipeline.command("register").returncode == 0
        run = pipeline.command("run", PARTITION)
        assert run.returncode == 0, run.stderr
        yield pipeline


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def export(to: Path, *arguments: str) -> Result:
    return invoke("export", PARTITION, "--to", str(to), "--base-model", "org/tiny", *arguments)


@pytest.fixture(scope="module")
def folder(finished: CliPipeline) -> Path:
    """An export of everything, with full models."""
    result = export(finished.folder / "out", "--merge-models", "--license", "cc-by-4.0", "--language", "en")
    assert result.exit_code == 0, result.output
    return finished.folder / "out"


def test_datasets_opens_every_config_and_the_default_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    assert sorted(datasets.get_dataset_config_names(str(folder))) == sorted(CONFIGS)
    opened = {name: datasets.load_dataset(str(folder), name, cache_dir=str(tmp_path)) for name in CONFIGS}
    assert {name: list(splits) for name, splits in opened.items()} == {name: ["train"] for name in CONFIGS}
    size = OVERRIDES["selection"]["target_size"]
    assert datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path)).num_rows == size
    assert set(opened["annotated"]["train"]["annotator"]) == {"org/tiny"}
    assert opened["histogram"]["train"].column_names == ["bin_id", "noisy_votes"]


@pytest.mark.parametrize("name", POLICIES)
def test_peft_and_transformers_open_a_policy_and_agree(folder: Path, tiny_model_folder: Path, name: str) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged" / name)
    tokens = AutoTokenizer.from_pretrained(folder / "merged" / name)("how do i bake bread?", return_tensors="pt")
    with torch.inference_mode():
        untrained = base(**tokens).logits
        adapted = PeftModel.from_pretrained(base, folder / "models" / name).eval()(**tokens).logits
        assert torch.allclose(merged(**tokens).logits, adapted, atol=1e-5)
        assert not torch.allclose(adapted, untrained, atol=1e-5)


def test_peft_and_transformers_open_the_scorer_and_agree(folder: Path, tiny_model_folder: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    tokens = torch.tensor([[1, 20, 30, 40]])
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model_folder, num_labels=1)
    merged = AutoModelForSequenceClassification.from_pretrained(folder / "merged/reward")
    with torch.inference_mode():
        adapted = PeftModel.from_pretrained(base, folder / "models/reward").eval()(tokens).logits
        assert torch.allclose(merged(tokens).logits, adapted, atol=1e-5)


def test_no_file_names_a_place_on_this_machine(folder: Path, finished: CliPipeline, tiny_model_folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not any(str(place).encode() in content for place in (finished.folder, tiny_model_folder)), path


def test_the_exported_statement_verifies(folder: Path) -> None:
    verified = invoke("verify", str(folder / "privacy_statement/document.json"), "--json")
    assert verified.exit_code == 0
    outcomes = {one["check"]: one["outcome"] for one in json.loads(verified.stdout)["findings"]}
    assert set(outcomes.values()) == {"agrees"}
    assert {"figures", "digest", "page document.html", "files of the export"} <= set(outcomes)


def test_an_export_names_its_charges_and_what_they_cost_together(finished: CliPipeline, tmp_path: Path) -> None:
    made = json.loads(export(tmp_path / "out", "--only", "pool", "--only", "sft", "--json").stdout)
    assert made["parts"] == ["pool", "sft"]
    assert made["together"]["charge_ids"] == sorted(finished.ledger.state().charges)
    assert made["together"]["lineage_epsilon"] == selected_profile().plan("eps-8").epsilon


def test_an_export_replaces_an_unchanged_one_and_keeps_a_changed_one(finished: CliPipeline, tmp_path: Path) -> None:
    assert export(tmp_path / "out", "--only", "pool").exit_code == 0
    assert export(tmp_path / "out", "--only", "bins").exit_code == 0
    assert [path.name for path in (tmp_path / "out/data").iterdir()] == ["bins"]
    (tmp_path / "out/README.md").write_text("my own card")
    refused = export(tmp_path / "out", "--only", "pool")
    assert (refused.exit_code, (tmp_path / "out/README.md").read_text()) == (1, "my own card")
    assert "README.md" in refused.stderr


def test_a_folder_of_models_is_not_exported_under_its_path(finished: CliPipeline, tmp_path: Path) -> None:
    refused = invoke("export", PARTITION, "--to", str(tmp_path / "out"))
    assert refused.exit_code == 1
    assert "--base-model" in refused.stderr
    assert str(finished.folder) not in refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("partition", "code"), [("all|no-dp", 1), ("all|eps-1", 1), ("everyone|eps-8", 2)])
def test_what_is_not_released_is_not_exported(finished: CliPipeline, tmp_path: Path, partition: str, code: int) -> None:
    assert invoke("export", partition, "--to", str(tmp_path / "out")).exit_code == code
    assert not (tmp_path / "out").exists()


def test_what_another_profile_would_make_anew_is_exported_as_stored_only(finished: CliPipeline, tmp_path: Path) -> None:
    text = finished.profile_file.read_text()
    finished.profile_file.write_text(text.replace("num_samples = 48", "num_samples = 47"))
    selected_profile.cache_clear()
    try:
        refused = export(tmp_path / "out", "--only", "pool")
        stored = export(tmp_path / "stored", "--only", "pool", "--as-stored")
    finally:
        finished.profile_file.write_text(text)
        selected_profile.cache_clear()
    assert refused.exit_code == 1
    assert "out of date: synthetic_pool" in refused.stderr
    assert stored.exit_code == 0, stored.output


def test_an_edited_statement_stops_an_export(finished: CliPipeline, tmp_path: Path) -> None:
    document = finished.home / "released/artifacts/privacy_statement/all/eps-8/document.json"
    content = document.read_text()
    edited = json.loads(content)
    edited["data"]["guarantee"]["cohort_epsilon"] = 0.5
    document.write_text(json.dumps(edited))
    try:
        refused = export(tmp_path / "out", "--only", "pool")
    finally:
        document.write_text(content)
    assert refused.exit_code == 1
    assert "cohort_epsilon" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_an_edited_artifact_behind_the_statement_stops_an_export(finished: CliPipeline, tmp_path: Path) -> None:
    folder = finished.home / "released/artifacts/filtered_instructions/all/eps-8"
    (shard,) = folder.glob("part-*.parquet")
    content = shard.read_bytes()
    shutil.copyfile(next((finished.home / "released/artifacts/dp_histogram/all/eps-8").glob("*.parquet")), shard)
    try:
        refused = export(tmp_path / "out", "--only", "pool")
    finally:
        shard.write_bytes(content)
    assert refused.exit_code == 1
    assert "files of filtered_instructions/all/eps-8" in refused.stderr


def answers(query: str) -> list[list[Any]]:
    """The rows that `dp-instructions sql` prints."""
    result = invoke("sql", query, "--json")
    assert result.exit_code == 0, result.output
    rows: list[list[Any]] = json.loads(result.stdout)["rows"]
    return rows


def test_the_guide_asks_several_questions() -> None:
    assert len(QUESTIONS) >= 6


@pytest.mark.parametrize("query", QUESTIONS.values(), ids=QUESTIONS)
def test_every_question_of_the_guide_has_an_answer(finished: CliPipeline, query: str) -> None:
    assert answers(query)


def test_the_answers_are_those_of_the_run(finished: CliPipeline) -> None:
    asked = {title.split("?")[0]: answers(query) for title, query in QUESTIONS.items()}
    cost = asked["What does each cohort and level cost"]
    assert [row[:2] for row in cost] == [["all", "eps-8"]]
    assert cost[0][2] == selected_profile().plan("eps-8").epsilon
    origins = asked["How many filtered rows come from the pool, and how many were made to fill short bins"]
    assert sum(row[-1] for row in origins) == OVERRIDES["selection"]["target_size"]
    ids = {charge.charge_id for charge in finished.ledger.state().charges.values()}
    assert {row[0] for row in asked["What does a model descend from"]} == ids
    assert len(asked["Which bins do real people ask for most, and could the pool serve them"]) == 4


def test_the_questions_of_the_readme_have_answers(finished: CliPipeline) -> None:
    queries = re.findall(r'dp-instructions sql "([^"]+)"', (ROOT / "docs/guides/first-run.md").read_text())
    assert queries
    assert all(answers(query) for query in queries)


def test_a_run_leaves_a_catalog_that_opens_without_the_command(finished: CliPipeline) -> None:
    with duckdb.connect(str(catalog_file(finished.home)), read_only=True) as connection:
        assert connection.execute("select count(*) from synthetic_pool").fetchall() > [(0,)]


def test_an_open_reader_does_not_stop_a_run(finished: CliPipeline) -> None:
    with duckdb.connect(str(catalog_file(finished.home)), read_only=True) as reader:
        reader.execute("from metrics")
        document = finished.home / "released/artifacts/quality_report/all/eps-8"
        shutil.rmtree(document)
        run = finished.command("run", PARTITION)
        assert run.returncode == 0, run.stderr
        assert "== quality_report" in run.stderr
        assert "catalog was not rebuilt" not in run.stderr
        assert reader.execute("from metrics").fetchall()


@pytest.mark.skipif(OLDER_CLIENT not in os.environ, reason=f"needs an older DuckDB in ${OLDER_CLIENT}")
def test_an_older_client_answers_every_question(finished: CliPipeline) -> None:
    program = (
        "import json, sys, duckdb; assert duckdb.__version__ < '2'\n"
        "connection = duckdb.connect(sys.argv[1], read_only=True)\n"
        "assert all(connection.execute(query).fetchall() for query in json.loads(sys.argv[2]))"
    )
    asked = [sys.executable, "-c", program, str(catalog_file(finished.home)), json.dumps(list(QUESTIONS.values()))]
    answered = subprocess.run(
        asked, env=os.environ | {"PYTHONPATH": os.environ[OLDER_CLIENT]}, capture_output=True, text=True, check=False
    )
    assert answered.returncode == 0, answered.stderr


# What the documents tell people to type, in their order; what changes the private tables comes last.
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^ {4,}(?:\.venv/bin/)?dp-instructions ([^\n]+)$", re.MULTILINE)
TYPED = list(dict.fromkeys(line.strip() for page in DOCUMENTS for line in COMMAND.findall(page.read_text())))
LAST = ("snapshot", "erase")
IN_A_PROCESS_OF_THEIR_OWN = ("run", "backfill", *LAST)  # they redirect the streams of their process
RUN_ELSEWHERE = {
    "config check examples/paper-gpu.toml --here": "asks for a GPU and models of the hub",
    "backfill --levels 'eps-1,eps-2.86' --cohorts 'bucket-*'": "other cohorts: tests/test_backfills.py",
    "backfill --cohorts 2026-03": "other cohorts: tests/test_backfills.py",
    "handoff check instructions --partition 'all|eps-8'": "needs people's answers: tests/test_human_annotation.py",
    "handoff check pairs --partition 'all|eps-8'": "needs people's answers: tests/test_human_annotation.py",
}


@pytest.mark.parametrize("line", sorted(TYPED, key=lambda line: line.startswith(LAST)))
def test_every_command_of_the_documents_does_what_it_says(
    finished: CliPipeline, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    if line in RUN_ELSEWHERE:
        pytest.skip(RUN_ELSEWHERE[line])
    monkeypatch.chdir(finished.folder)
    document = finished.home / "released/artifacts/privacy_statement/all/eps-8/document.json"
    for name, target in (("mine.toml", finished.profile_file), ("document.json", document)):
        shutil.copy(target, name)
    for name, target in (("mine", finished.home), ("released", finished.home / "released")):
        Path(name).unlink(missing_ok=True)
        Path(name).symlink_to(target)
    words = shlex.split(line.replace("PATH", str(document.parent)), comments=True)
    if words[0] == "export":  # the pipeline's base model is a folder, whose place must not be published
        words += ["--base-model", "org/tiny", "--to", "out of the documents"]
    if words[:2] == ["corpus", "preview"]:  # it prints on a terminal only, unless it is asked for JSON
        words.append("--json")
    if words[0] not in IN_A_PROCESS_OF_THEIR_OWN:
        result = invoke(*words)
        assert result.exit_code == 0, result.output
        return
    typed = subprocess.run(
        [sys.executable, "-m", "dp_assets.cli", *words],
        env=os.environ | finished.environment | {"PYTHONPATH": str(ROOT)},
        input="user-7\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert typed.returncode == 0, typed.stderr


def test_the_commands_that_are_run_elsewhere_are_in_the_documents() -> None:
    assert set(RUN_ELSEWHERE) <= set(TYPED)
