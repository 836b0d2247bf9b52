"""The guide on alignment: its profile loads, its commands exist, and it names what is shown and stored."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dp_assets.alignment.record import policy_record
from dp_assets.artifacts import Adapter
from dp_assets.settings.named import load_profile
from dp_assets.stages.policy_metadata import policy_metadata
from resources.storage.adapter_io import PROVENANCE_FILE, save_adapter
from tests.docs.test_commands import ROOT, command_lines, problem

PAGE = ROOT / "docs/guides/alignment.md"
GUIDE = PAGE.read_text()
FIGURES = ("reward", "kl", "answer_tokens", "distinct_1", "distinct_2")
POINTS = [{"step": step, **dict.fromkeys(FIGURES, 0.5)} for step in (0, 2)]
POLICY = Adapter(
    {"weight": np.zeros(1, np.float32)},
    {},
    "tiny",
    record=policy_record(
        [{"step": 1, "loss": 0.1}], {"rows_trained_on": 2.0, "rows_left_out": 1.0}, method="rloo", evaluations=POINTS
    ),
)


def test_the_profile_of_the_guide_loads_and_chooses_the_method(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "mine.toml").write_text(text)
    rlhf = load_profile(str(tmp_path / "mine.toml")).rlhf
    assert (rlhf.method, rlhf.evaluations, rlhf.evaluation_prompts) == ("grpo", 6, 64)


def test_every_command_of_the_guide_exists() -> None:
    lines = command_lines(PAGE)
    assert lines
    assert [problem(line) for line in lines if problem(line)] == []


def test_the_guide_explains_each_figure_that_a_policy_shows_and_no_other() -> None:
    shown = set(policy_metadata(POLICY)) - {"curve"}
    assert set(re.findall(r"`((?:policy|training)/[a-z_0-9]+)`", GUIDE)) == shown


def test_the_stored_record_is_read_as_the_guide_reads_it(tmp_path: Path) -> None:
    (name, first), *others = re.findall(r'rlhf_model/all/eps-8/(\S+?)"|record\["(\w+)"\]', GUIDE)
    assert (name, first) == (PROVENANCE_FILE, "")
    save_adapter(POLICY, tmp_path)
    record = json.loads((tmp_path / name).read_text())["record"]
    assert {key for _, key in others} <= set(record)
    assert record["evaluations"] == POINTS


def test_the_record_describes_every_method_that_can_be_chosen() -> None:
    from dp_assets.alignment.settings import RlhfSettings

    described = (ROOT / "dp_assets/alignment/record.py").read_text()
    for method in ("rloo", "grpo", "dpo"):
        assert method.upper() in described
        assert f"`{method}`" in GUIDE
    assert str(RlhfSettings.model_fields["method"].annotation) == "typing.Literal['rloo', 'grpo', 'dpo']"


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", GUIDE))
def test_the_guides_links_lead_somewhere(target: str) -> None:
    assert (PAGE.parent / target).exists()
