"""`dp-instructions lineage` of folders that lie anywhere: what each artifact cost, and all of them together."""

import json
from pathlib import Path

import polars as pl
import pytest

from dp_assets.artifacts import PrivateTable
from dp_assets.privacy.plan import GENERATOR
from resources.storage.zones import HOME_VARIABLE
from tests.cli.released_statements import Shelf, invoke, stored
from tests.statements.statements import PLAN


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    return Shelf(tmp_path)


def test_lineage_states_each_artifact_and_all_of_them_together(shelf: Shelf) -> None:
    generator, histogram = shelf.ids.values()
    paths = [shelf.table("one", generator), shelf.table("two", histogram), shelf.table("three", generator, histogram)]
    answer = json.loads(invoke("lineage", *paths[:2], "--json").stdout)
    alone = [row["lineage_epsilon"] for row in answer["artifacts"]]
    assert [row["charge_ids"] for row in answer["artifacts"]] == [[generator], [histogram]]
    assert max(alone) < answer["together"]["lineage_epsilon"] == PLAN.epsilon < sum(alone)
    (cohort,) = answer["together"]["cohorts"]
    assert (cohort["headline_epsilon"], cohort["budget_epsilon"]) == (PLAN.epsilon, 8.0)
    again = json.loads(invoke("lineage", *paths, "--json").stdout)["together"]
    assert again == answer["together"]


def test_lineage_shows_a_table_with_the_ids(shelf: Shelf) -> None:
    shown = invoke("lineage", shelf.table("one", shelf.ids[GENERATOR]))
    assert shown.exit_code == 0
    assert shelf.ids[GENERATOR] in shown.stdout
    assert "all together" in shown.stdout


def test_lineage_of_what_was_made_without_noise_is_unbounded(shelf: Shelf) -> None:
    path = shelf.table("bare", shelf.charge(GENERATOR, "no-dp"))
    assert json.loads(invoke("lineage", path, "--json").stdout)["together"]["lineage_epsilon"] is None


def test_lineage_refuses_charges_that_the_ledger_does_not_know(shelf: Shelf) -> None:
    refused = invoke("lineage", shelf.table("foreign", "a charge of somebody else"))
    assert refused.exit_code == 1
    assert "does not know" in refused.stderr


def test_lineage_refuses_a_private_artifact_and_a_folder_without_one(shelf: Shelf, tmp_path: Path) -> None:
    private = PrivateTable(pl.LazyFrame({"number": [1]}), corpus_id="corpus", snapshot="1")
    for folder in (stored(tmp_path / "private rows", private), tmp_path):
        assert invoke("lineage", str(folder)).exit_code == 1
