"""Profiles from files: single settings replaced, every mistake named at once, and the partitions that follow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dp_assets.settings.named import NAMED, PROFILE_VARIABLE, ProfileError, load_profile

DEMO = load_profile("demo")
PAPER = load_profile("paper")
OTHER = {"demo": "paper", "paper": "demo"}
ROOT = Path(__file__).parents[2]


def profile_file(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def source_of(path: str) -> str:
    return f'[corpus]\nsource = {{ kind = "file", path = "{path}", columns = {{ text = "t", user_id = "u" }} }}\n'


@pytest.mark.parametrize("name", NAMED)
def test_a_packaged_profile_is_one_value_and_has_the_form_of_a_users_file(name: str, tmp_path: Path) -> None:
    packaged = (ROOT / f"dp_assets/settings/{name}.toml").read_text()
    assert load_profile(name) is load_profile(name)
    copied = load_profile(profile_file(tmp_path, f'extends = "{OTHER[name]}"\n{packaged}'))
    assert copied.generator.learning_rate == load_profile(name).generator.learning_rate
    assert copied.votes == load_profile(name).votes


@pytest.mark.parametrize("name", NAMED)
def test_every_setting_of_a_packaged_profile_has_a_comment(name: str) -> None:
    lines = (ROOT / f"dp_assets/settings/{name}.toml").read_text().splitlines()
    settings = [line for line in lines if " = " in line and not line.startswith("#")]
    assert len(settings) > 50
    assert [line for line in settings if "  # " not in line] == []


def test_a_file_replaces_single_settings_and_keeps_the_others(tmp_path: Path) -> None:
    loaded = load_profile(profile_file(tmp_path, "[generator]\nsteps = 5\n[votes]\nnum_bins = 12\n"))
    assert (loaded.generator.steps, loaded.votes.num_bins) == (5, 12)
    assert loaded.generator.model_copy(update={"steps": DEMO.generator.steps}) == DEMO.generator
    assert loaded.corpus == DEMO.corpus


def test_a_file_may_start_from_another_profile(tmp_path: Path) -> None:
    loaded = load_profile(profile_file(tmp_path, 'extends = "paper"\n[rlhf]\nsteps = 7\n'))
    assert loaded.rlhf.steps == 7
    assert loaded.corpus == PAPER.corpus.model_copy(update={"source": loaded.corpus.source})


def test_a_file_without_a_name_of_its_own_is_named_after_itself(tmp_path: Path) -> None:
    assert load_profile(profile_file(tmp_path, "", "spring.toml")).name == "spring"
    assert load_profile(profile_file(tmp_path, 'name = "autumn"', "spring.toml")).name == "autumn"


def test_a_relative_path_is_relative_to_the_file_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profiles").mkdir()
    profile_file(tmp_path / "profiles", source_of("../rows.parquet"))
    monkeypatch.chdir(tmp_path)
    assert load_profile("profiles/mine.toml").corpus.source.path == tmp_path / "rows.parquet"


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    assert load_profile(profile_file(tmp_path, source_of("/rows/r.csv"))).corpus.source.path == Path("/rows/r.csv")


def test_a_source_is_replaced_as_a_whole(tmp_path: Path) -> None:
    loaded = load_profile(profile_file(tmp_path, 'extends = "paper"\n[corpus]\nsource = { kind = "chitchat" }\n'))
    assert loaded.corpus.source == DEMO.corpus.source


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[selection]\ntarget_size = 100000\n", "selection.target_size"),
        ("[sampling]\nnum_samples = 20\n[selection]\ntarget_size = 10\n", "votes.num_bins"),
        ('[corpus]\nplanned_levels = ["eps-0"]\n', "eps-0"),
        ('[corpus]\nsource = { kind = "file", columns = { text = "t" } }\n', "corpus.source"),
        ('[corpus]\nsource = { kind = "file", path = "a.csv", columns = {} }\n', "corpus.source"),
        ('[corpus]\nsource = { kind = "file", path = "a.csv", columns = { text = "t" } }\n', "user_id"),
        ('[corpus]\nsource = "chitchat"\n', "corpus.source"),
        ("[typo]\nsteps = 1\n", "typo"),
        ('[rlhf]\nmethod = "ppo"\n', "rlhf.method"),
        ("[rlhf]\nkl_coefficient = 0\n", "rlhf.kl_coefficient"),
        ("[rlhf]\nnum_generations = 1\n", "rlhf.num_generations"),
        ("[rlhf]\nevaluations = 1\n", "rlhf.evaluations"),
        ("[rlhf]\nprompts_per_step = 9999\n", "rlhf.evaluation_prompts"),
        ('[rlhf]\nmethod = "dpo"\nprompts_per_step = 9999\n', "preferences.num_pairs"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ProfileError, match=named):
        load_profile(profile_file(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "reason"), [("steps = = 1", "not valid TOML"), ('extends = "huge"', "must be one of demo, paper")]
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ProfileError, match=reason):
        load_profile(profile_file(tmp_path, text))


@pytest.mark.parametrize("name", ["huge", "missing.toml"])
def test_an_unknown_profile_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ProfileError, match="demo, paper"):
        load_profile(name)


def test_the_digest_tells_profiles_apart(tmp_path: Path) -> None:
    same = profile_file(tmp_path, 'name = "demo"', "same.toml")
    other = profile_file(tmp_path, 'name = "demo"\n[rlhf]\nseed = 99\n', "other.toml")
    assert load_profile(same).digest == DEMO.digest != load_profile(other).digest


def test_a_renamed_profile_file_makes_nothing_out_of_date(tmp_path: Path) -> None:
    first = Path(profile_file(tmp_path, "[votes]\nnum_bins = 8\n"))
    before = load_profile(str(first))
    renamed = load_profile(str(first.rename(tmp_path / "renamed.toml")))
    assert (before.name, renamed.name) == (first.stem, "renamed")
    assert before.digest == renamed.digest


def test_a_further_level_or_another_budget_makes_nothing_out_of_date(tmp_path: Path) -> None:
    text = 'name = "demo"\n[corpus]\nplanned_levels = ["eps-8", "eps-3"]\nbudget_epsilon = 12.0\n'
    assert load_profile(profile_file(tmp_path, text)).digest == DEMO.digest


def test_partitions_are_the_cohorts_and_the_planned_levels_of_the_profile(tmp_path: Path) -> None:
    text = """
    [corpus]
    unit = "instruction"
    max_rows_per_unit = 1
    planned_levels = ["eps-3"]
    cohorts = { kind = "quarter", first = "2025-Q4", last = "2026-Q1" }
    """
    code = (
        "from dp_assets.pipeline.partitions import COHORTS_BY_LEVELS as partitions\n"
        "print('\\n'.join(partitions.get_partition_keys()))"
    )
    environment = os.environ | {PROFILE_VARIABLE: profile_file(tmp_path, text)}
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    levels = ("eps-1", "eps-2.86", "eps-5.94", "eps-8", "no-dp", "eps-3")
    assert set(shown.stdout.split()) == {f"{cohort}|{level}" for cohort in ("2025-Q4", "2026-Q1") for level in levels}
