"""What is wrong with a settings file is said in words: which setting, what is wanted, what was given."""

from pathlib import Path

import pytest

from dp_assets.settings.named import ProfileError, load_profile


def problems(folder: Path, text: str) -> list[str]:
    """What is said of a profile, one line a problem."""
    path = folder / "mine.toml"
    path.write_text(text)
    with pytest.raises(ProfileError) as refusal:
        load_profile(str(path))
    return [str(problem) for problem in refusal.value.problems]


def test_a_contradiction_with_a_setting_that_is_wrong_itself_is_not_told(tmp_path: Path) -> None:
    text = "[sampling]\nnum_samples = -5\n[selection]\ntarget_size = 1000\n[corpus]\nmin_words = 90\n"
    assert [problem.split(":")[0] for problem in problems(tmp_path, text)] == [
        "sampling.num_samples",
        "corpus.min_words",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[generator]\nsteps = '6'", "generator.steps: must be a whole number, without quotes, not '6'"),
        ("[generator]\nsteps = true", "generator.steps: must be a whole number, not true"),
        ("[generator]\nsteps = 1.5", "generator.steps: must be a whole number, not 1.5"),
        ("[generator]\nl2_clip_norm = nan", "generator.l2_clip_norm: must be a finite number"),
        ("[generator]\ntarget_modules = 'q_proj'", "generator.target_modules: must be a list in brackets"),
        ("votes = 3", "votes: must be a table of settings"),
        ("embedder = 7", "embedder: must be a text in quotes, not 7"),
        ("dtype = 'float16'", "dtype: must be 'auto', 'float32' or 'bfloat16', not 'float16'"),
        ("[annotation.endpoint]\nmodel = 'm'", "annotation.endpoint.base_url: is missing; add it"),
        ("[votes]\ndelta = 0.1", "votes.delta: is no setting here; corpus.delta is"),
        ("[rlhf]\nnonsense = 1", "rlhf.nonsense: is no setting; leave it out. There are: method"),
    ],
)
def test_a_value_of_another_type_is_not_coerced_and_said_in_words(tmp_path: Path, text: str, wanted: str) -> None:
    assert any(problem.startswith(wanted) for problem in problems(tmp_path, text)), problems(tmp_path, text)


def profile_file(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    text = '[generator]\nsteps = 0\nstepz = 3\n[votes]\nnum_bins = "many"\n[corpus]\ndelta = 2.0\nunit = "household"\n'
    with pytest.raises(ProfileError) as refusal:
        load_profile(profile_file(tmp_path, text))
    message = str(refusal.value)
    for field in ("generator.steps", "generator.stepz", "votes.num_bins", "corpus.delta", "corpus.unit"):
        assert f"  {field}: " in message
    assert "5 invalid settings" in message


def test_a_text_that_may_be_a_secret_is_never_repeated(tmp_path: Path) -> None:
    key = "sk-4f9c0ffee"
    said = problems(tmp_path, f'[annotation.endpoint]\nbase_url = "http://h/v1"\nmodel = "m"\nconcurrency = "{key}"\n')
    assert any(problem.startswith("annotation.endpoint.concurrency: must be a whole number") for problem in said)
    assert not any(key in problem for problem in said)
