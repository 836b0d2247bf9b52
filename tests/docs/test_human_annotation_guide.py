"""The guide on people as annotators: its profile loads, its commands exist, and it names every reason and figure."""

import re
from pathlib import Path

import pytest

from dp_assets.alignment import handoff
from dp_assets.cli.handoff import Kind
from dp_assets.settings.named import load_profile
from tests.docs.test_commands import command_lines, problem

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docs/guides/human-annotation.md"
GUIDE = PATH.read_text()


def test_the_guides_profile_lets_people_answer_and_compare(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "mine.toml").write_text(text)
    profile = load_profile(str(tmp_path / "mine.toml"))
    assert (profile.annotation.source, profile.annotation.path) == ("human", tmp_path / "responses.json")
    assert (profile.preferences.source, profile.preferences.path) == ("human", tmp_path / "verdicts.json")


def test_every_command_of_the_guide_exists() -> None:
    lines = command_lines(PATH)
    assert len(lines) >= 6
    assert [problem(line) for line in lines if problem(line)] == []


def test_the_guide_explains_exactly_the_reasons_of_the_code() -> None:
    reasons = re.findall(r"^    ([a-z_]+)  +[a-z]", str(handoff.__doc__), re.MULTILINE)
    explained = re.findall(r"^\| `([a-z_]+)` \|", GUIDE, re.MULTILINE)
    assert sorted(explained) == sorted(reasons)
    source = (ROOT / "dp_assets/alignment/handoff.py").read_text()
    assert {reason for reason in reasons if f'"{reason}"' not in source} == set()


@pytest.mark.parametrize("kind", list(Kind))
def test_the_guide_names_the_files_of_each_kind(kind: Kind) -> None:
    assert f"`{kind}-tasks.json`" in GUIDE
    assert f"`{kind}-labels.xml`" in GUIDE


def test_every_figure_that_the_guide_names_is_metadata() -> None:
    source = (ROOT / "dp_assets/alignment/handoff.py").read_text()
    named = set(re.findall(r"`(handoff/[a-z_]+)`", GUIDE))
    assert len(named) == 2
    assert {name for name in named if f'"{name}"' not in source} == set()
