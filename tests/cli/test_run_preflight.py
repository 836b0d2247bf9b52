"""`dp-instructions run` refuses before it spends anything if what it will need outside is not there."""

import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from tests.household import Household
from tests.tiny_pipeline import PARTITION

ENDPOINT = '\n[annotation.endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\nbackoff_seconds = 0.01\n'
JUDGE = ENDPOINT.replace("annotation.endpoint", "preferences.judge")
KEY = 'api_key_variable = "NOBODY_SET_THIS_KEY"\n'


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def in_group(household: Household, group: str, line: str) -> None:
    text = household.profile_file.read_text()
    household.profile_file.write_text(text.replace(f"[{group}]", f"[{group}]\n{line}"))


CASES = {
    "unreachable annotator": ("preferences", "", ENDPOINT, "annotation.endpoint.base_url"),
    "missing key": ("preferences", "", ENDPOINT + KEY, "annotation.endpoint.api_key_variable"),
    "unreachable judge": ("preferences", 'source = "judge"', JUDGE, "preferences.judge.base_url"),
    "missing file": ("preferences", 'source = "file"\npath = "none.jsonl"', "", "preferences.path"),
}


@pytest.mark.parametrize("case", list(CASES))
def test_nothing_is_charged_or_read_before_the_outside_is_there(household: Household, case: str) -> None:
    group, line, appended, named = CASES[case]
    in_group(household, group, line)
    household.profile_file.write_text(household.profile_file.read_text() + appended)
    assert invoke("register").exit_code == 0
    before = household.ledger.state().anchor
    result = invoke("run", PARTITION)
    assert result.exit_code == 1
    assert result.stderr.startswith("refused: ")
    assert named in result.stderr
    assert household.ledger.state().anchor == before
    assert not (household.home / "private/artifacts").exists()
