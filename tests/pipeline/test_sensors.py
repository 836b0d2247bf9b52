"""A statement is made again when its cohort has spent more than it says; the catalog follows runs of the UI."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from dp_assets.definitions import defs
from dp_assets.pipeline.sensors import CATALOG_SENSORS, STATEMENT, rebuild_catalog, statements_follow_the_ledger
from dp_assets.privacy import metadata
from dp_assets.privacy.claim import ClaimRefused, Discrepancy
from dp_assets.privacy.headline import Guarantee
from dp_assets.privacy.plan import HISTOGRAM
from dp_assets.settings.profile import Profile
from resources.ledger.ledger_resource import Ledger
from resources.storage.catalog import catalog_file
from resources.storage.stores import ReleaseStore
from tests.tiny_pipeline import PARTITION, register, tiny_profile, write_corpus
from tests.toy_graph import definitions as toys


class Place:
    """A registered corpus and an instance that has seen the statements which a test makes up."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.profile: Profile = tiny_profile(write_corpus(folder / "corpus.parquet"), Path("no model"))
        self.ledger = Ledger(private_root=str(folder / "private"))
        self.corpus_id = register(self.ledger, self.profile).corpus_id

    @property
    def guarantee(self) -> Guarantee:
        return self.ledger.state().guarantee(self.corpus_id, ["all"], without_noise=False)

    def note(self, partition: str, **other: object) -> None:
        """Note a statement of a partition that says what is true now."""
        figures = {metadata.COHORT_EPSILON: self.guarantee.epsilon, **metadata.statement_metadata(self.guarantee)}
        figures |= {metadata.CORPUS: self.corpus_id, **other}
        self.instance.report_runless_asset_event(dg.AssetMaterialization(STATEMENT, None, figures, partition))

    def charge_beyond_the_plan(self) -> None:
        self.ledger.raise_budget(self.corpus_id, 60.0, "another level")
        plan = self.profile.plan("eps-1")
        self.ledger.charge(
            plan=plan, mechanism=HISTOGRAM, corpus_id=self.corpus_id, cohort="all", snapshot="1", reuse_key="another"
        )

    def requested(self) -> list[str | None]:
        """The partitions whose statements the sensor asks for."""
        resources = {"ledger": self.ledger, "profile": self.profile}
        with dg.build_sensor_context(self.instance, definitions=defs, resources=resources) as context:
            return [request.partition_key for request in statements_follow_the_ledger(context)]  # type: ignore[union-attr]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Place(tmp_path, instance)


def test_where_nothing_was_stated_nothing_is_made(place: Place) -> None:
    assert place.requested() == []


def test_a_statement_that_names_what_is_spent_is_left_alone(place: Place) -> None:
    place.note(PARTITION)
    assert place.requested() == []


def test_a_statement_of_another_data_folder_under_the_same_instance_is_left_alone(place: Place) -> None:
    other = {metadata.CORPUS: "of the other", metadata.COHORT_EPSILON: 1.0}
    place.note("all|eps-1", **other)
    place.note(PARTITION)
    place.note(PARTITION, **other)
    assert place.requested() == []


def test_a_charge_beyond_the_plan_asks_for_every_statement_of_its_cohort(place: Place) -> None:
    for partition in (PARTITION, "all|eps-1"):
        place.note(partition)
    place.charge_beyond_the_plan()
    assert sorted(map(str, place.requested())) == ["all|eps-1", PARTITION]
    place.note(PARTITION)
    assert place.requested() == ["all|eps-1"]


def test_a_raised_budget_asks_for_every_statement_that_names_the_former_one(place: Place) -> None:
    place.note(PARTITION)
    place.ledger.raise_budget(place.corpus_id, 60.0, "agreed on")
    assert place.requested() == [PARTITION]
    place.note(PARTITION)
    assert place.requested() == []


def test_a_closed_cohort_asks_for_its_statements(place: Place) -> None:
    place.note(PARTITION)
    plan = place.profile.plan("eps-8")
    asked = {"corpus_id": place.corpus_id, "cohort": "all", "snapshot": "1", "reuse_key": "a key"}
    booked = place.ledger.charge(plan=plan, mechanism=HISTOGRAM, **asked)
    with pytest.raises(ClaimRefused):
        booked.settle({}, [Discrepancy("steps", 4, 5)])
    assert place.requested() == [PARTITION]


def test_a_statement_of_an_earlier_version_is_made_again(place: Place) -> None:
    figures = {metadata.COHORT_EPSILON: place.guarantee.epsilon}
    place.instance.report_runless_asset_event(dg.AssetMaterialization(STATEMENT, None, figures, PARTITION))
    assert place.requested() == [PARTITION]


def test_what_was_made_without_noise_names_no_figure_to_follow(place: Place) -> None:
    place.note("all|no-dp")
    assert place.requested() == []


def test_the_sensor_is_off_until_somebody_turns_it_on() -> None:
    assert statements_follow_the_ledger.default_status is dg.DefaultSensorStatus.STOPPED


@pytest.mark.parametrize("sensor", CATALOG_SENSORS, ids=lambda sensor: sensor.name)
def test_the_catalog_is_rebuilt_after_a_run_that_the_ui_launched(
    tmp_path: Path, sensor: dg.RunStatusSensorDefinition
) -> None:
    resources = {"ledger": Ledger(private_root=str(tmp_path / "private")), "releases": ReleaseStore(home=str(tmp_path))}
    with dg.DagsterInstance.ephemeral() as instance:
        result = (
            toys(tmp_path)
            .resolve_job_def("full_pipeline")
            .execute_in_process(partition_key=PARTITION, instance=instance)
        )
        event = instance.all_logs(result.run_id)[-1].dagster_event
        context = dg.build_run_status_sensor_context(
            sensor.name, event, instance, result.dagster_run, resources=resources
        )
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        skipped = sensor(context)
        assert isinstance(skipped, dg.SkipReason)
    with duckdb.connect(str(catalog_file(tmp_path)), read_only=True) as reader:
        assert reader.execute("select count(*) from pool").fetchone() != (0,)
        assert "rebuilt" in rebuild_catalog(resources["ledger"], resources["releases"])  # with an open reader


def test_a_catalog_that_cannot_be_rebuilt_stops_nothing(tmp_path: Path) -> None:
    report = tmp_path / "released/artifacts/quality_report/all/eps-8/document.json"
    report.parent.mkdir(parents=True)
    report.write_text("damaged")
    said = rebuild_catalog(Ledger(private_root=str(tmp_path / "private")), ReleaseStore(home=str(tmp_path)))
    assert said.startswith("the catalog was not rebuilt")
