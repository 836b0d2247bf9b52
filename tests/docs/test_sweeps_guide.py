"""The guide to sweeps and snapshots: its commands exist, its profiles load, its figures follow from the code."""

import re
from pathlib import Path

import pytest

from dp_assets.planning.planner import joint_epsilon
from dp_assets.settings.named import load_profile
from dp_assets.settings.profile import Profile
from tests.docs.test_commands import ROOT, command_lines, problem

GUIDE = ROOT / "docs/guides/sweeps-and-snapshots.md"
BLOCKS = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def profile_of(block: str, folder: Path) -> Profile:
    (folder / "mine.toml").write_text(block)
    return load_profile(str(folder / "mine.toml"))


def test_every_command_of_the_guide_exists() -> None:
    lines = command_lines(GUIDE)
    assert {"backfill", "snapshot", "register", "plan"} <= {line.split()[0] for line in lines}
    assert [problem(line) for line in lines if problem(line)] == []


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_profile_of_the_guide_is_valid(block: str, tmp_path: Path) -> None:
    assert profile_of(block, tmp_path).name == "mine"


def test_the_sweep_of_the_guide_costs_what_it_says_and_fits_its_budget(tmp_path: Path) -> None:
    profile = profile_of(BLOCKS[0], tmp_path)
    together = joint_epsilon(profile.planned())
    assert f"cost {together:g} together" in GUIDE.read_text()
    assert together <= profile.corpus.budget_epsilon
    assert together < sum(plan.epsilon for plan in profile.planned())
