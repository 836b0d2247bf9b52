"""The profile in a statement: settings and nothing else."""

import json
import shutil
from pathlib import Path

import pytest

from dp_assets.cli._stated_profile import profile_finding
from dp_assets.settings.named import load_profile
from dp_assets.stages.statement import public_settings
from dp_assets.statements.statement import restated
from dp_assets.statements.verification import Outcome
from tests.cli.released_statements import document_of, findings, write_statement

DEMO = load_profile("demo")
PAPER = load_profile("paper")


@pytest.mark.parametrize(
    ("group", "setting", "value"),
    [
        (None, "epsilon", 0.05),
        (None, "annotation", "epsilon 0.05"),
        ("corpus", "note", "certified at epsilon 0.05"),
        ("corpus", "cohorts", {"kind": "all", "note": "epsilon 0.05"}),
        ("corpus", "planned_levels", {"epsilon": 0.05}),
        ("corpus", "budget_epsilon", "0.05"),
        ("generator", "guarantee", {"epsilon": 0.05}),
    ],
)
def test_a_profile_with_what_is_no_setting_is_refused(
    released: Path, group: str | None, setting: str, value: object
) -> None:
    statement = json.loads(document_of(released).read_text())["data"]
    configuration = statement["configuration"]
    settings = configuration["profile"] if group is None else configuration["profile"][group]
    settings[setting] = value
    shutil.rmtree(document_of(released).parent)
    write_statement(document_of(released).parent, restated(statement, configuration=configuration))
    assert findings(document_of(released))["profile"] == "differs"


def test_the_public_settings_of_every_shipped_profile_are_settings_of_a_profile() -> None:
    for profile in (DEMO, PAPER):
        assert profile_finding(json.loads(json.dumps(public_settings(profile)))).outcome is Outcome.AGREES
