"""A person's way through the Dagster UI in a real browser, on a catalog in which the tiny pipeline ran once.

Both launches go out first and are waited for at the end, since the daemon takes its time. One test walks the whole way:
the server is what is slow.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dp_assets.pipeline.running import DAGSTER_HOME
from dp_assets.privacy.labels import LABEL_METADATA
from dp_assets.privacy.metadata import COHORT_EPSILON, LEDGER_IDS, LINEAGE_EPSILON
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from tests.browser.dagster_ui import DagsterUi, dagster_ui
from tests.cli_pipeline import CliPipeline
from tests.servers import processes_on

pytest.importorskip("playwright", reason="needs the Python package playwright, which drives the browser")
from tests.browser import chromium

CHROMIUM = chromium.installed_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]

MADE, FURTHER = "eps-5.94", "eps-2.86"
GROUPS = ("corpus", "generation", "selection", "alignment", "reports")
SECONDS_FOR_RUNS = 100
RUNS = """query { runsOrError { ... on Runs { results { status assetSelection { path } } } } }"""
BACKFILLS = "query { partitionBackfillsOrError { ... on PartitionBackfills { results { status numPartitions } } } }"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> CliPipeline:
    """A pipeline with two booked levels, one of which was made."""
    pipeline = CliPipeline(tmp_path_factory.mktemp("browser"), tiny_model_folder)
    levels = f'[corpus]\nplanned_levels = ["{FURTHER}", "{MADE}"]\n'
    pipeline.profile_file.write_text(pipeline.profile_file.read_text().replace("[corpus]\n", levels))
    assert pipeline.command("register").returncode == 0
    first = pipeline.command("run", f"all|{MADE}")
    assert first.returncode == 0, first.stderr
    return pipeline


@pytest.fixture
def ui(pipeline: CliPipeline, tmp_path: Path) -> Iterator[DagsterUi]:
    with dagster_ui(pipeline.environment, tmp_path / "dagster.log") as running:
        yield running


def charged_levels(pipeline: CliPipeline) -> list[str]:
    return sorted(charge.level for charge in pipeline.ledger.state().charges.values() if charge.mechanism == GENERATOR)


def wait_for_runs(ui: DagsterUi) -> None:
    """Return once the backfill and the single run have ended well."""
    deadline = time.monotonic() + SECONDS_FOR_RUNS
    while True:
        backfills = ui.query(BACKFILLS)["partitionBackfillsOrError"]["results"]
        runs = [run["status"] for run in ui.query(RUNS)["runsOrError"]["results"]]
        if [one["status"] for one in backfills] == ["COMPLETED_SUCCESS"] and runs == ["SUCCESS"] * 4:
            return
        assert "FAILURE" not in runs
        assert time.monotonic() < deadline, (backfills, runs)
        time.sleep(1)


def test_the_ui_shows_the_graph_and_the_pictures_and_launches_a_run_and_a_backfill(
    pipeline: CliPipeline, ui: DagsterUi
) -> None:
    assert CHROMIUM is not None
    assert charged_levels(pipeline) == [MADE]
    made_under = set(pipeline.ledger.state().charges)
    with chromium.chromium_page(CHROMIUM) as page:
        chromium.open_graph(page, ui.address, GROUPS)
        for asset in ("real_instructions", GENERATOR, "synthetic_pool", HISTOGRAM, "quality_report"):
            page.locator("svg").get_by_text(asset, exact=True).filter(visible=True).first.wait_for()

        chromium.launch(page, ui.address, "synthetic_bins", [MADE])
        chromium.launch(page, ui.address, GENERATOR, [FURTHER, MADE])

        chromium.open_events(page, ui.address, "quality_report")
        shown = chromium.metadata_on(page)
        assert shown[LABEL_METADATA] == "released"
        assert float(shown[LINEAGE_EPSILON]) <= float(shown[COHORT_EPSILON]) <= 8
        assert all(charge_id in shown[LEDGER_IDS] for charge_id in made_under)
        for asset, key in (("quality_report", "votes"), ("quality_report", "map"), ("privacy_statement", "trade_off")):
            chromium.open_events(page, ui.address, asset)
            picture = chromium.open_picture(page, key).locator(chromium.PICTURES)
            assert picture.get_attribute("alt")
            assert picture.evaluate("image => image.naturalWidth") > 600
            chromium.close_window(page)

        wait_for_runs(ui)
        page.goto(f"{ui.address}/runs?view=backfills")
        page.get_by_text("2 partitions").first.wait_for()
    # The level that was there is returned and not charged again.
    assert charged_levels(pipeline) == [FURTHER, MADE]


def test_nothing_that_the_server_started_outlives_it(pipeline: CliPipeline) -> None:
    assert processes_on(pipeline.environment[DAGSTER_HOME]) == []
