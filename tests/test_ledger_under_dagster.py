"""What Dagster does around a mechanism (retries, re-execution, backfills, several runs at once, a wiped event log)
spends nothing twice and nothing past the budget.

The corpus, its vectors and `dp_histogram` are the real assets over the real stores; the bins are public constants, so
that no model is needed. Run as a module, this file is another process that materializes the same graph.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
import yaml

from dp_assets.artifacts import EMBEDDER, PrivateTable, Table
from dp_assets.assets.dp_histogram import dp_histogram
from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.definitions import ALL_ASSETS
from dp_assets.pipeline import running
from dp_assets.pipeline.asset import labeled_asset
from dp_assets.pipeline.release_protocol import ReleaseIdentity, obtain
from dp_assets.privacy.labels import Label
from dp_assets.privacy.ledger_state import ChargeRecord
from dp_assets.privacy.plan import HISTOGRAM
from dp_assets.selection.noisy_votes import NoisyVotes
from dp_assets.settings.profile import Profile
from dp_assets.vocabulary import Partition
from resources.build import build_resources
from resources.ledger.ledger_resource import Charge, Ledger
from resources.models.loaders import HASHING, HASHING_DIMENSION
from resources.private.private_step import CONSTANT_MESSAGE, log_file
from tests.tiny_pipeline import register, tiny_profile, write_corpus
from tests.toy_graph import SILENT
from tests.toy_mechanism import NothingElse, ToyMechanism

ROOT = Path(__file__).parents[1]
PLACE, OTHER_PLACE = "all|eps-2.86", "all|eps-1"
PLANNED, ENOUGH = 3.1, 60.0  # budgets: the planned levels and hardly more; room for many charges
ROOM_FOR_ONE_MORE = 3.75  # at the gate the planned levels and one more histogram cost 3.68, and with two more 3.86
SECONDS_TO_WAIT = 240
NUM_BINS = 4
SILENCED = {"telemetry": {"enabled": False}}


@labeled_asset(label=Label.RELEASED, group="selection", kinds={"numpy"})
def synthetic_bins() -> Table:
    """Bins that were fitted on nothing."""
    centroids = np.eye(NUM_BINS, HASHING_DIMENSION, dtype=np.float32)
    rows = pl.LazyFrame({"bin_id": range(NUM_BINS), "centroid": pl.Series(centroids)})
    return Table(rows, (), {EMBEDDER: HASHING})


GRAPH = (real_instructions, real_embeddings, synthetic_bins, dp_histogram)


def profile_of(home: Path, budget: float, **corpus: Any) -> Profile:
    settings = {"planned_levels": ("eps-2.86", "eps-1"), "budget_epsilon": budget} | corpus
    return tiny_profile(home / "corpus.parquet", Path("no model"), **settings)


def histogram_job(
    home: str, budget: float, retries: int = 0, assets: Sequence[dg.AssetsDefinition] = GRAPH
) -> dg.JobDefinition:
    """The graph as a job over a folder. With `retries`, Dagster is asked to repeat whatever fails."""
    resources = build_resources(profile_of(Path(home), budget), Path(home) / "data")
    needed = ("profile", "ledger", "releases", "io_manager", "embedder", "language_model")
    used = {name: resources[name] for name in needed}
    policy = dg.RetryPolicy(max_retries=retries) if retries else None
    job = dg.define_asset_job("job", op_retry_policy=policy)
    defs = dg.Definitions(assets=assets, jobs=[job], resources=used, executor=dg.in_process_executor)
    return defs.resolve_job_def("job")


class Site:
    """A data folder with a registered corpus, and an instance with an event log on disk."""

    def __init__(self, home: Path, budget: float) -> None:
        write_corpus(home / "corpus.parquet")
        self.home, self.dagster_home, self.profile = home, home / "dagster", profile_of(home, budget)
        self.job = (str(home), budget)
        self.ledger: Ledger = build_resources(self.profile, home / "data")["ledger"]
        self.corpus_id = register(self.ledger, self.profile).corpus_id

    @property
    def charges(self) -> list[ChargeRecord]:
        return list(self.ledger.state().charges.values())

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        self.dagster_home.mkdir(exist_ok=True)
        with dg.DagsterInstance.local_temp(str(self.dagster_home), SILENCED) as instance:
            yield instance

    def run(
        self, partition: str = PLACE, *names: str, job: dg.JobDefinition | None = None
    ) -> dg.ExecuteInProcessResult:
        with self.instance() as instance:
            return (job or histogram_job(*self.job)).execute_in_process(
                instance=instance,
                partition_key=partition,
                asset_selection=[dg.AssetKey(name) for name in names] or None,
                raise_on_error=False,
                run_config=SILENT,
            )

    def retry_from_failure(self, failed: dg.ExecuteInProcessResult) -> dg.JobExecutionResult:
        """Run again what failed, as the button of the user interface does."""
        with self.instance() as instance:
            parent = instance.get_run_by_id(failed.run_id)
            assert parent is not None
            again = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
            job = dg.build_reconstructable_job(__name__, histogram_job.__name__, self.job)
            return dg.execute_job(job, instance, run_config=SILENT, tags=parent.tags, reexecution_options=again)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The same graph in another process."""
        command = [sys.executable, "-m", "tests.test_ledger_under_dagster", *map(str, self.job), *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, PLANNED)


@pytest.fixture
def roomy(tmp_path: Path) -> Site:
    return Site(tmp_path, ENOUGH)


def reason(run: dg.ExecuteInProcessResult | dg.JobExecutionResult) -> str:
    """Why the one step failed that did."""
    (failure,) = [event for event in run.all_events if event.is_step_failure]
    return running._reason(failure.step_failure_data.error)


def attempts(run: dg.ExecuteInProcessResult, name: str) -> int:
    started = ("STEP_START", "STEP_RESTARTED")
    return sum(event.step_key == name and event.event_type_value in started for event in run.all_events)


def break_at(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Let the mechanism fail at a moment of its run."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the machine went down")

    def read_then_fail(self: NoisyVotes, charge: Charge) -> None:
        self.table.open(charge).collect()
        fail()

    match moment:
        case "before it reads":
            monkeypatch.setattr(NoisyVotes, "run", fail)
        case "after it read":
            monkeypatch.setattr(NoisyVotes, "run", read_then_fail)
        case "before it settles":
            monkeypatch.setattr(Charge, "settle", fail)


def test_dagster_is_told_to_repeat_no_asset_by_itself() -> None:
    for asset in ALL_ASSETS:
        assert asset.op.retry_policy is None
        assert asset.backfill_policy is None
        assert not any(asset.automation_conditions_by_key.values())
    settings = yaml.safe_load((ROOT / "dp_assets/dagster.yaml").read_text())
    assert "run_retries" not in settings


@pytest.mark.parametrize("moment", ["before it reads", "after it read", "before it settles"])
def test_a_mechanism_that_failed_is_not_retried_even_if_the_job_asks_for_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    break_at(monkeypatch, moment)
    run = site.run(job=histogram_job(*site.job, retries=3))
    assert (run.success, attempts(run, HISTOGRAM)) == (False, 1)
    assert len(site.charges) == 1


def careless(site: Site, run: Callable[[Charge], Any]) -> dg.JobDefinition:
    """A mechanism that hides no error from Dagster and asks to be retried."""

    @labeled_asset(label=Label.MECHANISM, group="selection", kinds=set())
    def dp_histogram(
        context: dg.AssetExecutionContext, profile: dg.ResourceParam[Profile], real_embeddings: PrivateTable
    ) -> Table:
        ledger, plan = site.ledger, profile.plan(Partition.of(context).level)
        mechanism = ToyMechanism(HISTOGRAM, plan, run)
        identity = ReleaseIdentity.of(mechanism, context, ledger, profile, real_embeddings, release=1, inputs={})
        releases = build_resources(profile, site.home / "data")["releases"]
        return obtain(mechanism, identity, ledger=ledger, releases=releases, rest_of_run=NothingElse())

    return histogram_job(*site.job, retries=3, assets=(real_instructions, real_embeddings, dp_histogram))


def test_a_retry_after_private_rows_were_read_is_a_new_charge_and_a_refusal_is_not_retried(site: Site) -> None:
    def read_then_fail(charge: Charge) -> None:
        charge.mark_opened()
        raise RuntimeError("the machine went down")

    run = site.run(job=careless(site, read_then_fail))
    assert attempts(run, HISTOGRAM) == 2
    assert "No private row was read" in reason(run)
    assert [(charge.opened, charge.settled) for charge in site.charges] == [(True, False)]


def test_running_a_partition_again_charges_nothing(site: Site) -> None:
    assert site.run().success
    before = site.ledger.state().anchor
    assert site.run().success
    assert site.ledger.state().anchor == before


@pytest.mark.parametrize(
    ("moment", "succeeds"), [("before it reads", True), ("after it read", False), ("before it settles", True)]
)
def test_re_execution_from_failure_pays_once_and_only_reads_again_if_the_budget_allows(
    site: Site, monkeypatch: pytest.MonkeyPatch, moment: str, succeeds: bool
) -> None:
    with monkeypatch.context() as broken:
        break_at(broken, moment)
        failed = site.run()
    assert not failed.success
    again = site.retry_from_failure(failed)
    assert {event.step_key for event in again.all_events if event.event_type_value == "STEP_START"} == {HISTOGRAM}
    assert again.success is succeeds
    (charge,) = site.charges
    assert charge.settled is succeeds
    assert succeeds or "No private row was read" in reason(again)


@pytest.mark.slow
def test_a_backfill_over_levels_charges_each_once_however_often_it_runs(site: Site) -> None:
    for _ in range(2):
        assert all(site.run(place).success for place in (PLACE, OTHER_PLACE))
    assert sorted(charge.level for charge in site.charges) == ["eps-1", "eps-2.86"]
    assert all(charge.settled and charge.booking_id for charge in site.charges)
    state = site.ledger.state()
    assert state.cohort_epsilon(site.corpus_id, "all") <= PLANNED


@pytest.mark.slow
def test_a_backfill_over_levels_beyond_the_plan_stops_at_the_budget(site: Site) -> None:
    places = (PLACE, OTHER_PLACE, "all|eps-5.94", "all|eps-8")
    runs = [site.run(place) for place in (*places, *places)]
    assert [run.success for run in runs] == [True, True, False, False] * 2
    assert all("No private row was read" in reason(run) for run in runs if not run.success)
    assert len(site.charges) == 2


@contextmanager
def another_run_reading(site: Site) -> Iterator[subprocess.Popen[str]]:
    """A run in another process that has opened private rows and stays there until it is told to go on."""
    with site.start("hold") as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "reading\n"
        try:
            yield held
        finally:
            held.kill()


@pytest.mark.slow
def test_a_second_run_of_a_partition_is_refused_while_the_first_one_reads(roomy: Site) -> None:
    assert roomy.run(PLACE, "real_instructions", "real_embeddings", "synthetic_bins").success
    with another_run_reading(roomy) as held:
        second = roomy.run(PLACE, HISTOGRAM)
        assert "another run" in reason(second)
        assert len(roomy.charges) == 1
        (roomy.home / "go on").touch()
        assert held.wait(SECONDS_TO_WAIT) == 0
    assert roomy.run(PLACE, HISTOGRAM).success
    assert [charge.settled for charge in roomy.charges] == [True]


@pytest.mark.slow
def test_a_run_that_was_killed_while_it_read_stays_charged_and_stops_nobody(roomy: Site) -> None:
    assert roomy.run(PLACE, "real_instructions", "real_embeddings", "synthetic_bins").success
    with another_run_reading(roomy) as held:
        held.send_signal(signal.SIGKILL)
    assert roomy.run(PLACE, HISTOGRAM).success
    killed, finished = roomy.charges
    assert (killed.opened, killed.settled, killed.counts) == (True, False, True)
    assert (finished.settled, finished.booking_id) == (True, None)


@pytest.mark.slow
def test_runs_of_a_partition_that_start_together_pay_once(roomy: Site) -> None:
    assert roomy.run(PLACE, "real_instructions", "real_embeddings", "synthetic_bins").success
    runs = [roomy.start("run") for _ in range(3)]
    ends = [run.communicate(timeout=SECONDS_TO_WAIT)[0] for run in runs]
    assert any("made" in end for end in ends)
    assert all("made" in end or "another run" in end for end in ends)
    assert [charge.settled for charge in roomy.charges] == [True]


@pytest.mark.slow
def test_runs_of_several_partitions_that_start_together_keep_the_cap(site: Site) -> None:
    assert site.run(PLACE, "real_instructions", "real_embeddings", "synthetic_bins").success
    unplanned = ("all|eps-5.94", "all|eps-8")
    for place in (OTHER_PLACE, *unplanned):
        assert site.run(place, "synthetic_bins").success
    site.ledger.raise_budget(site.corpus_id, ROOM_FOR_ONE_MORE, "one of two more levels")
    runs = [site.start("run", place) for place in (PLACE, OTHER_PLACE, *unplanned)]
    ends = [run.communicate(timeout=SECONDS_TO_WAIT)[0] for run in runs]
    assert ["made" in end for end in ends[:2]] == [True, True]
    assert sorted("No private row was read" in end for end in ends[2:]) == [False, True]
    assert [charge.settled for charge in site.charges] == [True] * 3
    assert site.ledger.state().cohort_epsilon(site.corpus_id, "all") <= ROOM_FOR_ONE_MORE


def test_wiping_the_event_log_and_every_artifact_gives_no_budget_back(site: Site) -> None:
    assert site.run().success
    (charge,) = site.charges
    before = site.ledger.state().anchor
    for wiped in (site.dagster_home, *site.home.glob("data/*/artifacts")):
        shutil.rmtree(wiped)
    again = site.run()
    assert again.success
    assert again.output_for_node(HISTOGRAM).charge_ids == (charge.charge_id,)
    assert site.ledger.state().anchor == before


def test_a_deleted_release_is_paid_for_again_or_refused(site: Site) -> None:
    assert site.run().success
    shutil.rmtree(site.home / "data/released/releases")
    refused = site.run()
    assert "No private row was read" in reason(refused)
    assert len(site.charges) == 1
    site.ledger.raise_budget(site.corpus_id, ENOUGH, "the release was lost")
    assert site.run().success
    assert [charge.booking_id is not None for charge in site.charges] == [True, False]


def test_a_deleted_ledger_is_no_new_beginning(site: Site) -> None:
    assert site.run().success
    shutil.rmtree(site.home / "data/private/ledger")
    assert "the ledger is missing" in reason(site.run())


def prepared(site: Site, profile: Profile) -> dg.ExecuteInProcessResult:
    """A run of `real_instructions` under another profile."""
    resources = build_resources(profile, site.home / "data")
    used = {name: resources[name] for name in ("profile", "ledger", "io_manager")}
    return dg.materialize([real_instructions], resources=used, run_config=SILENT, raise_on_error=False)


def version_of(run: dg.ExecuteInProcessResult) -> str:
    """The data version of the private table that a run made."""
    (made,) = run.asset_materializations_for_node("real_instructions")
    return (made.tags or {})[running.VERSION_TAG]


def test_a_private_table_keeps_its_data_version_while_profile_and_snapshot_stay(site: Site) -> None:
    first, again = (prepared(site, profile_of(site.home, PLANNED)) for _ in range(2))
    more_levels = prepared(site, profile_of(site.home, PLANNED, planned_levels=("eps-1",)))
    another = prepared(site, profile_of(site.home, PLANNED, snapshot="2"))
    assert version_of(first) == version_of(again) == version_of(more_levels) != version_of(another)


def test_the_same_rows_in_a_renamed_file_get_no_budget_of_their_own(site: Site) -> None:
    assert prepared(site, site.profile).success
    (site.home / "corpus.parquet").rename(site.home / "renamed.parquet")
    source = site.profile.corpus.source.model_dump() | {"path": str(site.home / "renamed.parquet")}
    renamed = profile_of(site.home, PLANNED, source=source)
    assert "not registered" in reason(prepared(site, renamed))
    register(site.ledger, renamed)
    assert CONSTANT_MESSAGE in reason(prepared(site, renamed))
    assert "registered already under another source" in log_file(Path(site.ledger.private_root)).read_text()


def test_rows_that_changed_under_an_unchanged_snapshot_are_refused_and_only_the_private_log_says_why(
    site: Site,
) -> None:
    assert prepared(site, site.profile).success
    rows = pl.read_parquet(site.home / "corpus.parquet")
    rows.head(len(rows) // 2).write_parquet(site.home / "corpus.parquet")
    assert CONSTANT_MESSAGE in reason(prepared(site, site.profile))
    assert "unchanged corpus.snapshot" in log_file(Path(site.ledger.private_root)).read_text()


def test_another_name_of_the_same_file_is_the_same_corpus(site: Site) -> None:
    (site.home / "link.parquet").symlink_to(site.home / "corpus.parquet")
    source = site.profile.corpus.source.model_dump() | {"path": str(site.home / "link.parquet")}
    assert register(site.ledger, profile_of(site.home, PLANNED, source=source)).corpus_id == site.corpus_id


def test_another_name_of_the_profile_is_the_same_corpus(site: Site) -> None:
    assert register(site.ledger, site.profile.model_copy(update={"name": "another"})).corpus_id == site.corpus_id


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"cohorts": {"kind": "user_bucket", "num_buckets": 2}}, "cohorts"),
        ({"source": {"kind": "file", "columns": {"text": "prompt", "user_id": "prompt"}}}, "corpus.source.columns"),
        ({"source": {"kind": "file", "columns": {"text": "user", "user_id": "user"}}}, "corpus.source.columns"),
    ],
    ids=["other cohorts", "other users", "other texts"],
)
def test_renamed_cohorts_and_columns_are_refused(site: Site, settings: dict[str, Any], named: str) -> None:
    assert prepared(site, site.profile).success
    if "source" in settings:
        settings["source"]["path"] = str(site.home / "corpus.parquet")
    assert named in reason(prepared(site, profile_of(site.home, PLANNED, min_words=1, **settings)))


def hold_while_reading(home: Path) -> None:
    """The mechanism stops once it has opened its rows, until a file appears."""
    run = NoisyVotes.run

    def wait(self: NoisyVotes, charge: Charge) -> Any:
        opened = Charge.mark_opened

        def open_and_wait(self: Charge) -> None:
            opened(self)
            os.write(answers, b"reading\n")
            while not (home / "go on").exists():
                time.sleep(0.02)

        Charge.mark_opened = open_and_wait  # type: ignore[method-assign]
        return run(self, charge)

    answers = os.dup(1)  # the mechanism's own output is kept inside the private zone
    NoisyVotes.run = wait  # type: ignore[assignment,method-assign]


def main(home: str, budget: str, act: str, place: str = PLACE) -> int:
    if act == "hold":
        hold_while_reading(Path(home))
    run = histogram_job(home, float(budget)).execute_in_process(
        partition_key=place,
        asset_selection=[dg.AssetKey(HISTOGRAM)],
        raise_on_error=False,
        run_config=SILENT,
    )
    print("made" if run.success else reason(run))
    return 0 if run.success else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
