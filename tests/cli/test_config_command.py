"""`dp-instructions config`: every mistake at once, nothing written, and all settings with where they come from."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.profiles import NAMED, load_profile
from tests.cli.households import household_of
from tests.household import Household

KEY = "sk-this-is-a-key"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["config", *arguments])


def file_with(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", list(NAMED))
def test_the_named_profiles_are_valid(name: str) -> None:
    result = invoke("check", name)
    assert result.exit_code == 0
    assert f"{name} is valid" in result.stdout


def test_the_profile_of_the_environment_is_checked_and_nothing_is_written(household: Household) -> None:
    assert invoke("check").exit_code == 0
    assert str(household.profile_file) in invoke("check").stdout
    assert not household.home.exists()


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
    with household_of(tmp_path, tiny_model_folder, monkeypatch) as household:
        assert invoke("check", "--here").exit_code == 0
        household.corpus_file.unlink()
        endpoint = 'endpoint = { base_url = "http://h/v1", model = "m", api_key_variable = "ABSENT_KEY" }'
        text = household.profile_file.read_text().replace("[annotation]", f"[annotation]\n{endpoint}")
        text = text.replace('"hashing"', '"no-embedder"').replace('["q_proj", "v_proj"]', '["nothing"]', 1)
        household.profile_file.write_text(text.replace('device = "cpu"', 'device = "gpu"'))
        assert invoke("check").exit_code == 0
        result = invoke("check", "--here", "--json")
        problems = {problem["setting"]: problem["problem"] for problem in json.loads(result.stdout)["problems"]}
        assert set(problems) == {"corpus.source", "language_model", "embedder", "annotation.endpoint"}
        assert "is neither a file nor a folder" in problems["corpus.source"]
        assert "nothing" in problems["language_model"]
        assert "device is 'gpu'" in problems["embedder"]
        assert "ABSENT_KEY" in problems["annotation.endpoint"]
        assert not household.home.exists()


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


@pytest.mark.parametrize("name", list(NAMED))
def test_what_is_shown_is_a_file_that_gives_the_same_profile(tmp_path: Path, name: str) -> None:
    shown = invoke("show", name)
    assert shown.exit_code == 0
    loaded = load_profile(file_with(tmp_path, shown.stdout.replace("instructions.parquet", "/instructions.parquet")))
    assert loaded.model_dump_json().replace("/instructions.parquet", "instructions.parquet") == (
        NAMED[name].model_dump_json()
    )


def test_a_password_in_an_address_is_not_shown() -> None:
    from dp_assets.cli.config import without_passwords

    hidden: Any = without_passwords({"source": {"addresses": ["postgres://me:secret@host/db", "http://host/v1"]}})
    assert hidden == {"source": {"addresses": ["postgres://***@host/db", "http://host/v1"]}}


def test_a_file_that_is_none_is_refused_with_what_there_is() -> None:
    result = invoke("check", "nothing.toml")
    assert result.exit_code == 1
    assert "demo, paper" in result.stderr
