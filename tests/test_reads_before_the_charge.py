"""No file of private rows is opened before a charge is made: observed by the operating system on the real assets.

Opened may be what holds no row: the ledger, its key, locks, logs, and the provenance beside a private table.
"""

import shutil
from copy import copy
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dp_assets.assets.dp_generator import dp_generator
from dp_assets.assets.dp_histogram import dp_histogram
from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.stages.preflight import RestOfRun
from resources.annotator import NotReady
from resources.models.loaders import Embedder
from resources.storage.adapter_io import PROVENANCE_FILE
from tests.disk_pipeline import DiskPipeline
from tests.opened_files import opened_files
from tests.test_ledger_under_dagster import synthetic_bins
from tests.toy_graph import SILENT

PLANNED, TOO_LARGE = "all|eps-1", "all|eps-8"
MECHANISMS = (GENERATOR, HISTOGRAM)


class Site(DiskPipeline):
    """A pipeline with prepared private tables, and the mechanisms that would read them."""

    def __init__(self, folder: Path, model: Path) -> None:
        super().__init__(folder, model, corpus={"planned_levels": ("eps-1",), "budget_epsilon": 1.0})
        assert self.run(PLANNED, "real_instructions", "real_embeddings", "synthetic_bins").success
        assert self.run(TOO_LARGE, "synthetic_bins").success

    def copied_to(self, folder: Path) -> "Site":
        """The same corpus under another data folder, which holds what this one holds."""
        other = copy(self)
        other.home = shutil.copytree(self.home, folder / "data")
        other.resources = self.resources_of(other.home)
        return other

    def run(self, partition: str | None, *assets: str) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [real_instructions, real_embeddings, synthetic_bins, dp_generator, dp_histogram],
            selection=list(assets),
            partition_key=partition,
            resources=self.resources,
            raise_on_error=False,
            run_config=SILENT,
        )

    def opened_by(self, partition: str, asset: str) -> tuple[str | None, set[Path]]:
        """What stopped a run, None if nothing did, and which files it opened that may hold private rows."""
        with opened_files(self.home / Zone.PRIVATE / "artifacts") as opened:
            events = self.run(partition, asset).all_events
        errors = [event.step_failure_data.error for event in events if event.is_step_failure]
        causes = [error.cause or error for error in errors if error is not None]
        rows = {path for path in opened if path.name != PROVENANCE_FILE}
        return (causes[0].cls_name if causes else None), rows


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Site:
    return Site(tmp_path_factory.mktemp("site"), tiny_model_folder)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_private_row_is_opened_by_a_run_that_the_budget_refuses(site: Site, mechanism: str) -> None:
    before = site.charges
    assert site.opened_by(TOO_LARGE, mechanism) == ("ChargeRefused", set())
    assert site.charges == before


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_private_row_is_opened_where_a_public_check_stops_the_run(
    site: Site, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    def unavailable(*_: Any, **__: Any) -> None:
        raise NotReady("not here")

    monkeypatch.setattr(RestOfRun, "require_ready", unavailable)
    before = site.charges
    assert site.opened_by(PLANNED, mechanism) == ("NotReady", set())
    assert site.charges == before


def test_no_private_row_is_opened_to_compare_the_embedders(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Embedder, "public_name", "another one")
    assert site.opened_by(PLANNED, HISTOGRAM) == ("EmbeddersDiffer", set())


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_an_admitted_run_opens_private_rows_and_is_seen_to(site: Site, mechanism: str) -> None:
    stopped, opened = site.opened_by(PLANNED, mechanism)
    assert stopped is None
    assert {path.suffix for path in opened} == {".parquet"}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_private_row_is_opened_for_a_release_that_was_paid_before(site: Site, mechanism: str) -> None:
    site.run(PLANNED, mechanism)
    assert site.opened_by(PLANNED, mechanism) == (None, set())


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_private_row_is_opened_in_a_closed_cohort(tmp_path: Path, tiny_model_folder: Path, mechanism: str) -> None:
    site = Site(tmp_path, tiny_model_folder)
    closing = {"corpus_id": site.registration.corpus_id, "cohort": "all", "reasons": ["a run differed from its plan"]}
    site.ledger.transact(lambda _: [("closed", closing)])
    assert site.opened_by(PLANNED, mechanism) == ("ChargeRefused", set())
