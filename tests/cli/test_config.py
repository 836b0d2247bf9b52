"""`dp-instructions config`: every mistake at once, nothing written, and all settings with where they come from."""

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.cli.config import CHECKS
from dp_assets.settings.named import NAMED, load_profile
from tests.cli.pipelines import pipeline_of
from tests.cli_pipeline import CliPipeline

KEY = "sk-this-is-a-key"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["config", *arguments])


def file_with(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", NAMED)
def test_the_named_profiles_are_valid(name: str) -> None:
    result = invoke("check", name)
    assert result.exit_code == 0
    assert f"{name} is valid" in result.stdout


def test_the_profile_of_the_environment_is_checked_and_nothing_is_written(pipeline: CliPipeline) -> None:
    assert invoke("check").exit_code == 0
    assert str(pipeline.profile_file) in invoke("check").stdout
    assert not pipeline.home.exists()


def test_mistakes_contradictions_and_plans_are_told_together(tmp_path: Path) -> None:
    text = """
    dtipe = "float32"
    [sampling]
    temperature = "hot"
    [selection]
    target_size = 385
    [votes]
    noise_stddev = 0.1
    """
    result = invoke("check", file_with(tmp_path, text))
    assert result.exit_code == 1
    listed = [line.strip() for line in result.stderr.splitlines()[1:]]
    assert [line.split(":")[0] for line in listed] == [
        "sampling.temperature",
        "dtipe",
        "selection.target_size",
        "corpus.planned_levels",
    ]
    assert "must be a number, without quotes, not 'hot'" in listed[0]
    assert "did you mean dtype?" in listed[1]
    assert "votes.noise_stddev" in listed[3]


def test_a_plan_that_no_noise_meets_is_found_in_a_file_without_other_mistakes(tmp_path: Path) -> None:
    result = invoke("check", file_with(tmp_path, "[votes]\nnoise_stddev = 0.1\n"))
    assert result.exit_code == 1
    assert "corpus.planned_levels: eps-8 cannot be met" in result.stderr


def test_problems_are_a_list_for_scripts(tmp_path: Path) -> None:
    result = invoke("check", "--json", file_with(tmp_path, "[rlhf]\nstep = 3\n"))
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert shown["valid"] is False
    assert shown["problems"] == [{"setting": "rlhf.step", "problem": "is no setting; did you mean steps?"}]


def test_what_this_machine_lacks_is_named_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path
) -> None:
    monkeypatch.delenv("ABSENT_KEY", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # else the hub is tried for a minute
    with pipeline_of(tmp_path, tiny_model_folder, monkeypatch) as pipeline:
        passed = invoke("check", "--here")
        assert passed.exit_code == 0
        named = [line.split(":")[1].strip() for line in passed.stderr.splitlines() if line.startswith("passed: ")]
        assert named == list(CHECKS)
        assert f"checked: {', '.join(CHECKS)}" in passed.stdout
        pipeline.corpus_file.unlink()
        endpoint = 'endpoint = { base_url = "http://h/v1", model = "m", api_key_variable = "ABSENT_KEY" }'
        text = pipeline.profile_file.read_text().replace("[annotation]", f"[annotation]\n{endpoint}")
        text = text.replace('"hashing"', '"no-embedder"').replace('["q_proj", "v_proj"]', '["nothing"]')
        pipeline.profile_file.write_text(text)
        assert invoke("check").exit_code == 0
        problems = problems_here()
        assert set(problems) == {
            "corpus.source",
            "annotation.endpoint",
            "embedder",
            "sampling",
            "sft",
            "reward",
            "generator",
        }
        assert "is neither a file nor a folder" in problems["corpus.source"]
        assert "embedder is 'no-embedder'" in problems["embedder"]
        assert "ABSENT_KEY" in problems["annotation.endpoint"]
        assert "sft.target_modules names nothing" in problems["sft"]
        pipeline.profile_file.write_text(text.replace('device = "cpu"', 'device = "gpu"'))
        found = problems_here()
        assert set(found) == {"corpus.source", "annotation.endpoint", "device"}
        assert "device is 'gpu'" in found["device"]
        pipeline.profile_file.write_text(text.replace(json.dumps(str(tiny_model_folder)), '"no-model"'))
        found = problems_here()
        assert set(found) == {"corpus.source", "annotation.endpoint", "embedder", "language_model"}
        assert not pipeline.home.exists()


def test_each_check_is_named_as_it_begins_and_ends_and_the_source_first(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pipeline_of(tmp_path, tiny_model_folder, monkeypatch) as pipeline:
        pipeline.corpus_file.unlink()
        text = pipeline.profile_file.read_text()
        pipeline.profile_file.write_text(text.replace(json.dumps(str(tiny_model_folder)), '"no-model"'))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        lines = invoke("check", "--here").stderr.splitlines()
    assert [line.split(":")[:2] for line in lines[:6]] == [
        ["passed", " settings"],
        ["passed", " plans"],
        ["trying", " corpus.source"],
        ["failed", " corpus.source"],
        ["trying", " home"],
        ["passed", " home"],
    ]
    assert "failed: language_model: it loads" in lines
    assert "not tried: sft: one step on public text" in lines


def test_a_check_without_here_says_what_it_left_out(pipeline: CliPipeline) -> None:
    result = invoke("check")
    assert "checked: settings, plans\nnot checked: source, models" in result.stdout
    assert result.stderr == ""


def problems_here() -> dict[str, str]:
    """What is wrong with the profile of the environment on this machine, by setting; nothing else is said."""
    result = invoke("check", "--here", "--json")
    assert "Traceback" not in result.output
    return {problem["setting"]: problem["problem"] for problem in json.loads(result.stdout)["problems"]}


QUERY = 'query = "select prompt, writer from asked"'
COLUMNS = 'columns = { text = "prompt", user_id = "writer" }'
SOURCES = {
    "no variable": (f'kind = "sql", url_variable = "CORPUS_URL", {QUERY}', None, "CORPUS_URL, .* is not set; export"),
    "no address": (f'kind = "sql", url_variable = "CORPUS_URL", {QUERY}', "hunter2", "check the address"),
    "no driver": (
        f'kind = "sql", url_variable = "CORPUS_URL", {QUERY}',
        "nosuch://me:hunter2@h/db",
        "its driver",
    ),
    "no such host": (
        f'kind = "sql", url_variable = "CORPUS_URL", {QUERY}',
        "sqlite:////nowhere/hunter2.sqlite",
        "cannot be reached",
    ),
    "no database": (f'kind = "sql", path = "nowhere.duckdb", {QUERY}', None, "cannot be opened as a DuckDB database"),
    "a text as database": (f'kind = "sql", path = "empty.csv.txt", {QUERY}', None, "cannot be opened as a DuckDB"),
    "no table": (f'kind = "sql", path = "there.duckdb", {QUERY}', None, "asked, which is no table of the database"),
    "no column": (
        'kind = "sql", path = "there.duckdb", query = "select prompt from people"',
        None,
        "source.columns names writer, which the result of source.query lacks",
    ),
    "no files of a data set": ('kind = "huggingface", path = "nowhere"', None, "neither a file nor a folder"),
    "no data in a data set": ('kind = "huggingface", path = "folder"', None, "the data set .* cannot be opened"),
    "no split": ('kind = "huggingface", path = "set", split = "test"', None, "has no split 'test'"),
    "no column of a data set": ('kind = "huggingface", path = "set"', None, "source.columns names writer"),
    "a folder without files": ('kind = "file", path = "folder"', None, "holds no file with one of the suffixes"),
    "a file that no one can read": ('kind = "file", path = "json"', None, "cannot be opened or unpacked"),
    "a table that no one can read": ('kind = "file", path = "parquet"', None, "is not a readable Parquet"),
    "a broken archive": ('kind = "file", path = "broken.jsonl.gz"', None, "cannot be opened or unpacked"),
    "a file of no content": ('kind = "file", path = "empty.parquet"', None, "is not a readable Parquet file"),
}


@pytest.mark.parametrize("case", list(SOURCES))
def test_a_source_that_cannot_be_opened_is_found_and_no_row_or_address_is_shown(
    tmp_path: Path, tiny_model_folder: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, address, words = SOURCES[case]
    (tmp_path / "folder").mkdir()
    (tmp_path / "set").mkdir()
    pl.DataFrame({"prompt": ["hunter2"]}).write_parquet(tmp_path / "set/train.parquet")
    for form in ("json", "parquet"):
        (tmp_path / form).mkdir()
        (tmp_path / form / f"rows.{form}").symlink_to("/proc/self/mem")  # which opens and cannot be read, whoever asks
    (tmp_path / "broken.jsonl.gz").write_bytes(b"hunter2")
    for name in ("empty.parquet", "empty.csv.txt"):
        (tmp_path / name).write_text("hunter2" if name.endswith("txt") else "")
    with duckdb.connect(tmp_path / "there.duckdb") as database:
        database.sql("create table people as select 'hunter2' as prompt")
    monkeypatch.delenv("CORPUS_URL", raising=False)
    if address is not None:
        monkeypatch.setenv("CORPUS_URL", address)
    with pipeline_of(tmp_path, tiny_model_folder, monkeypatch) as pipeline:
        lines = pipeline.profile_file.read_text().splitlines()
        lines = [line if not line.startswith("source =") else f"source = {{ {settings}, {COLUMNS} }}" for line in lines]
        lines = [line if line != "[corpus]" else '[corpus]\nname = "asked"' for line in lines]
        pipeline.profile_file.write_text("\n".join(lines))
        result = invoke("check", "--here", "--json")
        (problem,) = json.loads(result.stdout)["problems"]
    assert problem["setting"] == "corpus.source"
    assert re.search(words, problem["problem"]), problem
    assert "hunter2" not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "text",
    [
        f'[annotation.endpoint]\nbase_url = "http://h/v1"\nmodel = "m"\napi_key_variable = "{KEY}"',
        f'[annotation.endpoint]\nbase_url = "http://me:{KEY}@h/v1"\nmodel = "m"',
        f'[annotation.endpoint]\nbase_url = "http://h/v1"\nmodel = "m"\nconcurrency = "{KEY}"',
        f'[annotation.endpoint]\nbase_url = "http://h/v1"\nmodel = "m"\napi_key = "{KEY}"',
        f'[corpus]\nsource = {{ kind = "{KEY}" }}',
        f'api_key = "{KEY}"',
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path: Path, text: str) -> None:
    result = invoke("check", file_with(tmp_path, text))
    assert result.exit_code == 1
    assert KEY not in result.output


def test_every_setting_is_shown_with_where_it_comes_from(tmp_path: Path) -> None:
    text = 'extends = "paper"\n[votes]\nnum_bins = 900\n[corpus]\nsource = { kind = "chitchat" }\n'
    name = file_with(tmp_path, text)
    settings = json.loads(invoke("show", "--json", name).stdout)["settings"]
    assert settings["votes.num_bins"] == {"value": 900, "from": name}
    assert settings["votes.noise_stddev"] == {"value": 10.0, "from": "paper"}
    assert settings["corpus.source.kind"] == {"value": "chitchat", "from": name}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_shown_is_a_file_that_gives_the_same_profile(tmp_path: Path, name: str) -> None:
    shown = invoke("show", name)
    assert shown.exit_code == 0
    loaded = load_profile(file_with(tmp_path, shown.stdout.replace("instructions.parquet", "/instructions.parquet")))
    assert loaded.model_dump_json().replace("/instructions.parquet", "instructions.parquet") == (
        load_profile(name).model_dump_json()
    )


def test_a_password_in_an_address_is_not_shown() -> None:
    from dp_assets.cli.config import without_passwords

    hidden: Any = without_passwords({"source": {"addresses": ["postgres://me:secret@host/db", "http://host/v1"]}})
    assert hidden == {"source": {"addresses": ["postgres://***@host/db", "http://host/v1"]}}


def test_a_file_that_is_none_is_refused_with_what_there_is() -> None:
    result = invoke("check", "nothing.toml")
    assert result.exit_code == 1
    assert "demo, paper" in result.stderr
