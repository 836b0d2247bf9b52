"""`--json`: one JSON value on standard output, and nothing else there."""

import json

import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.cli.catalog import in_json
from dp_assets.cli.pipeline import summary_of
from dp_assets.pipeline.running import Outcome
from tests.household import Household
from tests.tiny_pipeline import PARTITION


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_register_prints_the_registration(household: Household) -> None:
    printed = json.loads(invoke("register", "--json").stdout)
    (registration,) = household.ledger.state().registrations.values()
    assert printed == json.loads(json.dumps(registration.to_json()))


def test_sql_prints_columns_and_rows_with_their_types(household: Household) -> None:
    invoke("register")
    query = "select 1 as one, 'a' as text, null as nothing, [1, 2] as list, date '2026-01-02' as day, 1 as one"
    assert json.loads(invoke("sql", query, "--json").stdout) == {
        "columns": ["one", "text", "nothing", "list", "day", "one"],
        "rows": [[1, "a", None, [1, 2], "2026-01-02", 1]],
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_null(value: float) -> None:
    assert in_json({"figures": [value, 0.5]}) == {"figures": [None, 0.5]}


def test_home_prints_both_folders(household: Household) -> None:
    printed = json.loads(invoke("home", "--json").stdout)
    assert printed == {"data_home": str(household.home), "dagster_home": str(household.dagster_home)}


def test_a_run_is_summed_up_with_what_was_made_and_what_failed() -> None:
    outcome = Outcome(success=False, interrupted=False, made=("pool",), failed=(("bins", "no budget"),))
    assert summary_of(outcome, PARTITION) == {
        "partition": PARTITION,
        "success": False,
        "interrupted": False,
        "made": ["pool"],
        "failed": [{"asset": "bins", "reason": "no budget"}],
    }


def test_a_refusal_prints_nothing_on_standard_output(household: Household) -> None:
    refused = invoke("run", PARTITION, "--json")
    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert "dp-instructions register" in refused.stderr
