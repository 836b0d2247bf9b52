"""`run` refuses before it spends anything if something outside is not there; what `run` and `home` print as JSON."""

import json

import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.cli.pipeline import summary_of
from dp_assets.pipeline.running import Outcome
from tests.cli_pipeline import CliPipeline
from tests.tiny_pipeline import PARTITION

ENDPOINT = '\n[annotation.endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\nbackoff_seconds = 0.01\n'
JUDGE = ENDPOINT.replace("annotation.endpoint", "preferences.judge")
KEY = 'api_key_variable = "NOBODY_SET_THIS_KEY"\n'


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def in_group(pipeline: CliPipeline, group: str, line: str) -> None:
    text = pipeline.profile_file.read_text()
    pipeline.profile_file.write_text(text.replace(f"[{group}]", f"[{group}]\n{line}"))


CASES = {
    "unreachable annotator": ("preferences", "", ENDPOINT, "annotation.endpoint.base_url"),
    "missing key": ("preferences", "", ENDPOINT + KEY, "annotation.endpoint.api_key_variable"),
    "unreachable judge": ("preferences", 'source = "judge"', JUDGE, "preferences.judge.base_url"),
    "missing file": ("preferences", 'source = "file"\npath = "none.jsonl"', "", "preferences.path"),
}


@pytest.mark.parametrize("case", list(CASES))
def test_nothing_is_charged_or_read_before_the_outside_is_there(pipeline: CliPipeline, case: str) -> None:
    group, line, appended, named = CASES[case]
    in_group(pipeline, group, line)
    pipeline.profile_file.write_text(pipeline.profile_file.read_text() + appended)
    assert invoke("register").exit_code == 0
    before = pipeline.ledger.state().anchor
    result = invoke("run", PARTITION)
    assert result.exit_code == 1
    assert result.stderr.startswith("refused: ")
    assert named in result.stderr
    assert pipeline.ledger.state().anchor == before
    assert not (pipeline.home / "private/artifacts").exists()


def test_home_prints_both_folders(pipeline: CliPipeline) -> None:
    printed = json.loads(invoke("home", "--json").stdout)
    assert printed == {"data_home": str(pipeline.home), "dagster_home": str(pipeline.dagster_home)}


def test_a_run_is_summed_up_with_what_was_made_and_what_failed() -> None:
    outcome = Outcome(success=False, interrupted=False, made=("pool",), failed=(("bins", "no budget"),))
    assert summary_of(outcome, PARTITION) == {
        "partition": PARTITION,
        "success": False,
        "interrupted": False,
        "made": ["pool"],
        "failed": [{"asset": "bins", "reason": "no budget"}],
    }


def test_a_refusal_prints_nothing_on_standard_output(pipeline: CliPipeline) -> None:
    refused = invoke("run", PARTITION, "--json")
    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert "dp-instructions register" in refused.stderr
