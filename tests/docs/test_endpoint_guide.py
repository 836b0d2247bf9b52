"""The guide on endpoints: its profiles load, and the settings, keys and reasons that it names are those of the code."""

import re
from pathlib import Path

import pytest

from dp_assets.alignment.answers_store import Outcome
from dp_assets.alignment.endpoint import NO_ANSWER
from dp_assets.alignment.settings import EndpointSettings
from dp_assets.settings.named import load_profile

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guides/endpoint.md").read_text()
PROFILES = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("text", PROFILES)
def test_every_profile_of_the_guide_loads(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    load_profile(str(tmp_path / "mine.toml"))


def test_the_profiles_choose_what_the_guide_says(tmp_path: Path) -> None:
    loaded = []
    for number, text in enumerate(PROFILES):
        (tmp_path / f"{number}.toml").write_text(text)
        loaded.append(load_profile(str(tmp_path / f"{number}.toml")))
    judged, reasoning, own = loaded
    assert judged.annotation.endpoint is not None
    assert judged.annotation.endpoint.api_key_variable == "OPENAI_API_KEY"
    assert judged.preferences.judge is not None
    assert judged.preferences.judge.api_key_variable is None
    assert reasoning.annotation.endpoint is not None
    parameters = reasoning.annotation.endpoint.parameters(reasoning.annotation.parameters)
    assert parameters == {"max_completion_tokens": 40, "reasoning_effort": "low"}
    assert own.preferences.path == tmp_path / "preferences.parquet"


def test_the_defaults_that_the_guide_states_are_those_of_the_code() -> None:
    stated = dict(re.findall(r"`(timeout_seconds|attempts|backoff_seconds)` \((\d+)", GUIDE))
    assert {name: float(value) for name, value in stated.items()} == {
        name: EndpointSettings.model_fields[name].default for name in stated
    }
    assert len(stated) == 3


def test_every_reason_for_dropping_an_answer_is_explained() -> None:
    reasons = {str(outcome) for outcome in Outcome} - {Outcome.ANSWERED, Outcome.PROBE} | {NO_ANSWER}
    assert {reason for reason in reasons if f"`{reason}`" not in GUIDE} == set()
    assert (ROOT / "dp_assets/alignment/judge.py").read_text().count("JUDGE_PROMPT = ") == 1


def test_every_figure_that_the_guide_names_is_metadata() -> None:
    source = "".join((ROOT / "dp_assets/stages" / name).read_text() for name in ("annotation.py", "preferences.py"))
    named = set(re.findall(r"`((?:endpoint|preferences)/[a-z_]+)`", GUIDE))
    assert len(named) >= 7
    assert {name for name in named if f'"{name}"' not in source} == set()


def test_the_guides_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", GUIDE)
    assert [target for target in targets if not (ROOT / "docs/guides" / target).exists()] == []
