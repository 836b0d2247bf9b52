"""The code location offers every asset and check, and its jobs make what they say."""

import json

import dagster as dg
import pytest

from dp_assets.definitions import ALL_ASSETS, ALL_CHECKS, defs
from dp_assets.pipeline.running import FULL_PIPELINE, NEW_SNAPSHOT
from tests.asset_facts import STORED, facts

NAMES = {asset.key.to_user_string() for asset in ALL_ASSETS}


def selected(job: str) -> set[str]:
    return {key.to_user_string() for key in defs.resolve_job_def(job).asset_layer.selected_asset_keys}


def test_every_asset_and_every_check_is_offered_once() -> None:
    assert len(NAMES) == len(ALL_ASSETS)
    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == NAMES
    assert len(graph.asset_check_keys) == len(ALL_CHECKS)


@pytest.mark.parametrize(
    ("job", "made"), [(FULL_PIPELINE, NAMES), (NEW_SNAPSHOT, {"real_instructions", "real_embeddings"})]
)
def test_a_job_makes_the_whole_graph_or_the_private_tables_alone(job: str, made: set[str]) -> None:
    assert selected(job) == made


def test_runs_stay_in_the_process_that_launched_them() -> None:
    assert defs.executor is dg.in_process_executor


def test_what_others_see_of_the_assets_changes_only_on_purpose() -> None:
    """Keys, code versions, labels, columns, inputs, resources and configuration; see `tests/asset_facts.py`."""
    assert facts() == json.loads(STORED.read_text())
