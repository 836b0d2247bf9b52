"""A backfill that is launched over GraphQL, with Dagster's own webserver and daemon."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli_pipeline import CliPipeline
from tests.servers import ENVIRONMENTS, Server, dagster_over
from tests.sweeps import LEVELS, TOO_LARGE, artifacts_of, charges_of, ids_behind, noise_of, pipeline_of_buckets
from tests.tiny_pipeline import DOWN_TO_THE_HISTOGRAM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not ENVIRONMENTS.exists(), reason="what the servers start is found by its environment, in /proc"
    ),
]

SECONDS_TO_WAIT = 420
ASSETS = (*DOWN_TO_THE_HISTOGRAM, "filtered_instructions", "privacy_statement")
PLANNED = (("bucket-0", LEVELS[0]), ("bucket-0", LEVELS[1]), ("bucket-1", LEVELS[1]))
REFUSED = ("bucket-1", TOO_LARGE)
LAUNCH = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
STATUS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"""
RUNS = """
{ runsOrError(limit: 50) { ... on Runs { results { status assetSelection { path } tags { key value } } } } }"""


def launch(server: Server, places: tuple[tuple[str, str], ...]) -> str:
    """The id of a backfill of these partitions."""
    names = [f"{cohort}|{level}" for cohort, level in places]
    params = {"assetSelection": [{"path": [asset]} for asset in ASSETS], "partitionNames": names}
    launched = server.ask(LAUNCH, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def wait_for(server: Server, backfill: str) -> str:
    """How a backfill ended."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while time.monotonic() < deadline:
        status = str(server.ask(STATUS, id=backfill)["partitionBackfillOrError"]["status"])
        if status.startswith(("COMPLETED", "FAILED", "CANCELED")):
            return status
        time.sleep(1)
    raise AssertionError("the backfill never ended")


class Backfilled:
    """A pipeline after a backfill over GraphQL."""

    def __init__(self, pipeline: CliPipeline) -> None:
        self.pipeline = pipeline
        with dagster_over(pipeline) as server:
            self.status = wait_for(server, launch(server, (*PLANNED, REFUSED)))
            self.runs: list[dict[str, Any]] = server.ask(RUNS)["runsOrError"]["results"]


@pytest.fixture(scope="module")
def backfilled(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Backfilled:
    return Backfilled(pipeline_of_buckets(tmp_path_factory.mktemp("graphql"), tiny_model_folder))


def test_the_private_tables_are_made_by_one_run_for_all_partitions(backfilled: Backfilled) -> None:
    made = [[key["path"][0] for key in run["assetSelection"]] for run in backfilled.runs]
    assert sum("real_instructions" in assets for assets in made) == 1
    assert sum("real_embeddings" in assets for assets in made) == 1
    assert len(made) == 1 + len(PLANNED) + 1


def test_a_level_beyond_the_budget_is_refused_before_it_reads_and_the_others_are_made(backfilled: Backfilled) -> None:
    assert backfilled.status == "COMPLETED_FAILED"
    assert sorted(run["status"] for run in backfilled.runs) == ["FAILURE"] + ["SUCCESS"] * 4
    assert charges_of(backfilled.pipeline, *REFUSED) == []
    assert artifacts_of(backfilled.pipeline, *REFUSED) == {}
    for place in PLANNED:
        assert [charge.settled for charge in charges_of(backfilled.pipeline, *place)] == [True, True]


def test_partitions_share_no_charge_and_each_level_has_its_own_noise(backfilled: Backfilled) -> None:
    pipeline = backfilled.pipeline
    ids = [ids_behind(pipeline, "privacy_statement", *place) for place in PLANNED]
    assert [len(each) for each in ids] == [2, 2, 2]
    assert len(set.union(*ids)) == 6
    noise = [noise_of(pipeline, *place) for place in PLANNED]
    assert noise[0] < noise[1] == noise[2]


def test_the_command_finds_what_the_backfill_made_up_to_date(backfilled: Backfilled) -> None:
    before = {place: artifacts_of(backfilled.pipeline, *place) for place in PLANNED[:1]}
    again = backfilled.pipeline.command("run", "|".join(PLANNED[0]))
    assert again.returncode == 0, again.stderr
    assert "== dp_generator" not in again.stderr
    assert "== real_instructions" not in again.stderr
    after = artifacts_of(backfilled.pipeline, *PLANNED[0])
    assert {name: after[name] for name in before[PLANNED[0]]} == before[PLANNED[0]]
