"""Runs that the UI launches, with Dagster's own webserver and daemon: what they look at first and leave behind."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from resources.storage.catalog import catalog_file
from tests.cli_pipeline import CliPipeline
from tests.servers import ENVIRONMENTS, dagster_over
from tests.test_graphql_backfill import LAUNCH, wait_for
from tests.tiny_pipeline import PARTITION

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not ENVIRONMENTS.exists(), reason="what the servers start is found by its environment, in /proc"
    ),
]

SECONDS_TO_WAIT = 120
NOBODY = """
[annotation.endpoint]
base_url = "http://127.0.0.1:9/v1"
model = "m"
attempts = 1
backoff_seconds = 0.01
"""
DOWN_TO_THE_ANNOTATIONS = (
    "real_instructions",
    "dp_generator",
    "synthetic_pool",
    "filtered_instructions",
    "annotated_instructions",
)
EVENTS = """
query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
  ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } } } } } }"""
RUN_IDS = "{ runsOrError(limit: 5) { ... on Runs { results { runId status } } } }"


def wait_until(is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(1)


def test_a_run_with_a_dead_endpoint_charges_nothing_and_the_catalog_follows_it(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    pipeline = CliPipeline(tmp_path, tiny_model_folder)
    pipeline.profile_file.write_text(pipeline.profile_file.read_text() + NOBODY)
    assert pipeline.command("register").returncode == 0
    with dagster_over(pipeline) as server:
        assets = [{"path": [asset]} for asset in DOWN_TO_THE_ANNOTATIONS]
        params = {"assetSelection": assets, "partitionNames": [PARTITION]}
        launched = server.ask(LAUNCH, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        assert wait_for(server, launched["backfillId"]) == "COMPLETED_FAILED"
        runs = server.ask(RUN_IDS)["runsOrError"]["results"]
        failed = [run["runId"] for run in runs if run["status"] == "FAILURE"]
        said = json.dumps([server.ask(EVENTS, id=run_id) for run_id in failed])
        wait_until(catalog_file(pipeline.home).exists)
    assert "annotation.endpoint.base_url" in said
    assert "start the server" in said
    assert pipeline.ledger.state().charges == {}
    with duckdb.connect(str(catalog_file(pipeline.home)), read_only=True) as reader:
        assert reader.execute("from costs").fetchall() == []
