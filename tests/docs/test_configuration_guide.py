"""The guide on configuration lists every setting with its values, and the examples are valid and say what they do."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dp_assets.cli.config import leaves, problems_of, toml_value
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.settings.named import NAMED, load_profile
from dp_assets.settings.problems import setting_names
from dp_assets.settings.profile import Profile
from tests.docs.test_commands import command_lines, problem

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/configuration.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
JUDGE, ENDPOINT = "preferences.judge.", "annotation.endpoint."


def told_apart() -> Iterator[str]:
    """Every setting; the judge's only where they are not those of any endpoint."""
    names = list(setting_names(Profile))
    return (name for name in names if name.replace(JUDGE, ENDPOINT) not in names or not name.startswith(JUDGE))


def cell(profile: Profile, setting: str) -> str:
    """How the guide writes a value."""
    value = dict(leaves(profile.model_dump(mode="json"))).get(setting)
    return "" if value is None else f"`{toml_value(value)}`"


def test_the_table_lists_every_setting_with_its_values_and_a_meaning() -> None:
    listed = re.findall(r"^\| `([a-z_.0-9]+)` \| (.*?) \| (.*?) \| (.+) \|$", GUIDE.read_text(), re.MULTILINE)
    found = {name: (demo.strip(), paper.strip()) for name, demo, paper, _ in listed}
    packaged = [load_profile(name) for name in NAMED]
    assert found == {name: tuple(cell(profile, name) for profile in packaged) for name in told_apart()}
    assert len(found) == len(listed)


def test_the_profile_of_the_guide_loads(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "mine.toml").write_text(text)
    assert load_profile(str(tmp_path / "mine.toml")).generator.steps == 8


def test_the_refusal_that_the_guide_shows_is_the_one_that_is_printed(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```\nrefused: mine\.toml has problems:\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    text = 'dtipe = "float32"\n[sampling]\ntemperature = "hot"\n[selection]\ntarget_size = 385\n'
    (tmp_path / "mine.toml").write_text(f"{text}[votes]\nnoise_stddev = 0.1\n")
    found = problems_of(str(tmp_path / "mine.toml"), here=False)
    assert [line.strip() for line in shown.splitlines()] == [str(one) for one in found]


@pytest.mark.parametrize("document", [GUIDE, *EXAMPLES], ids=lambda path: path.name)
def test_every_command_exists_with_its_options(document: Path) -> None:
    lines = [part for line in command_lines(document) for part in line.split(" && dp-instructions ")]
    assert lines
    assert [problem(line) for line in lines if problem(line)] == []


def test_the_guides_links_lead_somewhere_and_name_every_example() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", GUIDE.read_text())
    assert [target for target in targets if not (GUIDE.parent / target).exists()] == []
    assert {Path(target).name for target in targets} >= {path.name for path in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_valid_and_its_levels_fit_its_budget(example: Path) -> None:
    assert problems_of(str(example), here=False) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_commented_and_starts_from_a_named_profile(example: Path) -> None:
    lines = [line for line in example.read_text().splitlines() if "=" in line and not line.startswith("#")]
    commented = [line for line in lines if " # " in line or "   #" in line]
    assert len(commented) >= len(lines) / 2
    assert tomllib.loads(example.read_text())["extends"] in NAMED


def test_the_examples_are_one_for_each_use() -> None:
    own, paper, endpoint, cohorts, sweep = (
        load_profile(str(ROOT / "examples" / f"{name}.toml"))
        for name in ("own-corpus", "paper-gpu", "endpoint", "cohorts-by-month", "sweep")
    )
    assert (own.corpus.source.kind, own.corpus.unit) == ("file", PrivacyUnit.USER)
    assert paper.device == "cuda"
    assert endpoint.annotation.endpoint is not None
    assert endpoint.preferences.judge is not None
    assert cohorts.corpus.cohorts.kind == "month"
    assert len(sweep.corpus.planned_levels) == 3
