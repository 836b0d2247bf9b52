"""What tests of `dp-instructions ledger` share: the command, what it shows, and charges in a pipeline's ledger."""

import json
from typing import Any

from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.settings.named import selected_profile
from resources.ledger.ledger_resource import Charge
from tests.cli_pipeline import CliPipeline

LEVEL = "eps-8"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def shown() -> dict[str, Any]:
    """What `ledger show --json` prints."""
    value: dict[str, Any] = json.loads(invoke("ledger", "show", "--json").stdout)
    return value


def corpus_of(pipeline: CliPipeline) -> str:
    assert invoke("register").exit_code == 0
    (corpus_id,) = pipeline.ledger.state().registrations
    return corpus_id


def charge(pipeline: CliPipeline, corpus_id: str, mechanism: str) -> Charge:
    plan = selected_profile().plan(LEVEL)
    return pipeline.ledger.charge(
        plan=plan, mechanism=mechanism, corpus_id=corpus_id, cohort="all", snapshot="1", reuse_key=mechanism
    )
