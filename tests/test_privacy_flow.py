"""What holds between ledger, mechanisms and stores: charge before read, no read without a charge, nothing left behind.

The mechanisms are the real ones, over private rows that note what the ledger says at the moment they are read.
"""

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import polars as pl
import pytest
from polars.io.plugins import register_io_source

from dp_assets.artifacts import Adapter, PrivateTable, Table
from dp_assets.assets._release import Mechanism, obtain
from dp_assets.partitions import Partition
from dp_assets.privacy.claim import check_dpsgd, check_votes
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger import ChargeRecord
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.privacy.registration import Registration
from dp_assets.selection.release import release_votes
from resources.artifact_files import read_artifact
from resources.ledger import Charge, ChargeRefused, Ledger
from resources.models import LanguageModel
from resources.private_log import CONSTANT_MESSAGE
from resources.profile import Profile
from resources.stores import ReleaseStore
from tests.household import (
    INTERRUPTED_TRAINING,
    QUOTED,
    QUOTING_ERRORS,
    SECRET,
    SECRET_USER,
    Household,
    interrupt_in_step,
)
from tests.leaks import files_holding
from tests.pipeline import PARTITION, register, tiny_profile

LEVEL, SNAPSHOT = "eps-8", "1"
CENTROIDS = np.eye(4, dtype=np.float32)
REAL_ROWS = pl.DataFrame(
    {
        "unit_id": [f"unit-{number}" for number in range(20)],
        "instruction_id": [f"instruction-{number}" for number in range(20)],
        "text": [f"what is the number {number}?" for number in range(20)],
        "cohort": ["all"] * 20,
        "split": ["train"] * 20,
        "vector": [CENTROIDS[number % 4].tolist() for number in range(20)],
    },
    schema_overrides={"vector": pl.Array(pl.Float32, 4)},
)


@dataclass
class Spy:
    """Private rows that record, each time they are read, what a second reader of the ledger finds in it."""

    private_root: str
    seen: list[list[ChargeRecord]] = field(default_factory=list)

    def rows(self) -> pl.LazyFrame:
        def read(
            columns: list[str] | None, predicate: pl.Expr | None, num_rows: int | None, _: int | None
        ) -> Iterator[pl.DataFrame]:
            self.seen.append(list(Ledger(private_root=self.private_root).state().charges.values()))
            frame = REAL_ROWS if predicate is None else REAL_ROWS.filter(predicate)
            frame = frame if columns is None else frame.select(columns)
            yield frame if num_rows is None else frame.head(num_rows)

        return register_io_source(read, schema=REAL_ROWS.schema)


class Boundary:
    """A registered corpus, its watched rows, and both mechanisms over them."""

    def __init__(self, home: Path, model: Path) -> None:
        self.home = home
        self.profile: Profile = tiny_profile(home / "corpus.parquet", model)
        self.plan = self.profile.plan(LEVEL)
        self.ledger = Ledger(private_root=str(home / Zone.PRIVATE))
        self.releases = ReleaseStore(home=str(home))
        self.registration: Registration = register(self.ledger, self.profile)
        self.spy = Spy(self.ledger.private_root)
        self.table = PrivateTable(self.spy.rows(), corpus_id=self.registration.corpus_id, snapshot=SNAPSHOT)

    @property
    def charges(self) -> list[ChargeRecord]:
        return list(self.ledger.state().charges.values())

    def mechanism(self, name: str, key: str) -> Mechanism:
        return Mechanism(name, self.plan, Partition("all", LEVEL), self.registration.corpus_id, SNAPSHOT, key)

    def vote(self, charge: Charge) -> tuple[Table, Evidence]:
        return release_votes(
            charge,
            table=self.table,
            centroids=CENTROIDS,
            noise_stddev=self.plan.votes.noise_stddev,
            key=self.ledger.key,
            upstream_ids=(),
        )

    def histogram(self, key: str = "key", run: Callable[[Charge], tuple[Table, Evidence]] | None = None) -> Table:
        return obtain(
            self.mechanism(HISTOGRAM, key),
            ledger=self.ledger,
            releases=self.releases,
            run=run or self.vote,
            check=partial(check_votes, self.plan.votes),
        )

    def generator(self, key: str = "key") -> Adapter:
        from dp_assets.generation.generator import can_resume, train_generator

        model = LanguageModel(model=self.profile.language_model, device="cpu", cache_root=str(self.home / "models"))
        checkpoints = self.home / Zone.PRIVATE / "checkpoints"
        return obtain(
            self.mechanism(GENERATOR, key),
            ledger=self.ledger,
            releases=self.releases,
            run=partial(
                train_generator,
                table=self.table,
                plan=self.plan,
                load_model=partial(model.load, dtype="float32"),
                base_model="tiny",
                checkpoints_root=checkpoints,
                **self.profile.generator.tuning(),
            ),
            check=partial(check_dpsgd, self.plan.dpsgd, self.plan.unit),
            resumable=partial(can_resume, checkpoints, self.plan.dpsgd.spare_steps),
        )


@pytest.fixture
def boundary(tmp_path: Path, tiny_model_folder: Path) -> Boundary:
    return Boundary(tmp_path, tiny_model_folder)


@pytest.mark.parametrize("mechanism", [GENERATOR, HISTOGRAM])
def test_when_rows_are_read_their_charge_is_in_the_ledger_and_marked_opened(boundary: Boundary, mechanism: str) -> None:
    run = {GENERATOR: boundary.generator, HISTOGRAM: boundary.histogram}[mechanism]
    release = run()
    assert len(boundary.spy.seen) == 1
    ((charge,),) = boundary.spy.seen
    assert (charge.mechanism, charge.opened, charge.settled) == (mechanism, True, False)
    assert release.charge_ids == (charge.charge_id,)
    assert [(c.charge_id, c.settled) for c in boundary.charges] == [(charge.charge_id, True)]


def test_asking_again_returns_the_stored_release_and_reads_nothing(boundary: Boundary) -> None:
    first, second = boundary.histogram(), boundary.histogram()
    assert second.collect().equals(first.collect())
    assert second.charge_ids == first.charge_ids
    assert len(boundary.spy.seen) == len(boundary.charges) == 1


def test_a_refused_charge_reads_nothing(boundary: Boundary) -> None:
    boundary.histogram()
    with pytest.raises(ChargeRefused, match="No private row was read"):
        boundary.histogram(key="another release")
    assert len(boundary.spy.seen) == len(boundary.charges) == 1


def test_a_mechanism_that_fails_after_reading_has_spent(boundary: Boundary) -> None:
    def read_then_fail(charge: Charge) -> tuple[Table, Evidence]:
        boundary.vote(charge)
        raise RuntimeError("the machine went down")

    with pytest.raises(RuntimeError, match="went down"):
        boundary.histogram(run=read_then_fail)
    (charge,) = boundary.charges
    assert (charge.opened, charge.settled, charge.counts) == (True, False, True)
    with pytest.raises(ChargeRefused):
        boundary.histogram()
    assert len(boundary.spy.seen) == 1


def test_a_charge_under_which_nothing_was_read_is_used_by_the_next_run(boundary: Boundary) -> None:
    def fail_at_once(charge: Charge) -> tuple[Table, Evidence]:
        raise RuntimeError("no memory for the model")

    with pytest.raises(RuntimeError, match="no memory"):
        boundary.histogram(run=fail_at_once)
    (unused,) = boundary.charges
    assert boundary.histogram().charge_ids == (unused.charge_id,)


def test_a_run_that_differs_from_its_plan_is_charged_without_a_bound_and_closes_the_cohort(boundary: Boundary) -> None:
    def skip_a_bin(charge: Charge) -> tuple[Table, Evidence]:
        value, evidence = boundary.vote(charge)
        return value, replace(evidence, public={**evidence.public, "noised_bins": len(CENTROIDS) - 1})

    with pytest.raises(dg.Failure, match="noised_bins: planned 4, ran 3") as failure:
        boundary.histogram(run=skip_a_bin)
    assert failure.value.allow_retries is False
    planned, supplement = boundary.charges
    assert supplement.supplement_of == planned.charge_id
    assert boundary.ledger.state().cohort_epsilon(boundary.registration.corpus_id, "all") == float("inf")
    assert not boundary.releases.has(HISTOGRAM, LEVEL, "key")
    with pytest.raises(ChargeRefused, match="closed"):
        boundary.generator()
    assert len(boundary.spy.seen) == 1


def test_an_interrupted_training_goes_on_under_the_same_charge_with_one_spare_step(
    boundary: Boundary, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in_step(monkeypatch.setattr, 2)
    with pytest.raises(KeyboardInterrupt):
        boundary.generator()
    (interrupted,) = boundary.charges
    assert (interrupted.opened, interrupted.settled, len(interrupted.continuations)) == (True, False, 0)
    adapter = boundary.generator()
    (finished,) = boundary.charges
    assert adapter.charge_ids == (finished.charge_id,) == (interrupted.charge_id,)
    assert (finished.settled, len(finished.continuations)) == (True, 1)
    evidence = adapter.record["evidence"]
    assert evidence["continuations"] == 1
    assert evidence["steps"] == evidence["noise_draws"] == boundary.plan.dpsgd.steps + 1


def test_a_training_interrupted_more_often_than_the_plan_has_spare_steps_is_refused(
    boundary: Boundary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(boundary.plan.dpsgd.spare_steps + 1):
        interrupt_in_step(monkeypatch.setattr, 1)
        with pytest.raises(KeyboardInterrupt):
            boundary.generator()
    reads = len(boundary.spy.seen)
    with pytest.raises(ChargeRefused):
        boundary.generator()
    assert len(boundary.spy.seen) == reads == boundary.plan.dpsgd.spare_steps + 1
    assert len(boundary.charges) == 1


def plant(folder: Path) -> dict[str, Path]:
    """The secret in every format that a run stores, one file each, and one file without it."""
    files = {
        name: folder / name for name in ("rows.parquet", "events.db", "catalog.duckdb", "log.txt", "clean.parquet")
    }
    filler = [f"{SECRET} and {number}" for number in range(2000)]
    pl.DataFrame({"text": filler}).write_parquet(files["rows.parquet"])
    pl.DataFrame({"text": ["nothing"]}).write_parquet(files["clean.parquet"])
    with sqlite3.connect(files["events.db"]) as connection:
        connection.execute("create table events (body blob)")
        connection.execute("insert into events values (?)", (zlib.compress(SECRET.encode()),))
    with duckdb.connect(str(files["catalog.duckdb"])) as connection:
        connection.execute("create table texts as select ? as text", (SECRET[::-1],))
        connection.execute("create view readable as select reverse(text) as text from texts")
    files["log.txt"].write_text(SECRET.upper())
    return files


def test_the_search_for_leaks_finds_a_text_in_every_stored_format(tmp_path: Path) -> None:
    files = plant(tmp_path)
    assert files_holding(tmp_path, SECRET) == set(files.values()) - {files["clean.parquet"]}


def leaks(household: Household, text: str) -> set[str]:
    """Where a text is found: the first folder under the data folder, or the Dagster home."""
    found = {path.relative_to(household.home).parts[0] for path in files_holding(household.home, text)}
    return found | ({"dagster"} if files_holding(household.dagster_home, text) else set())


@pytest.mark.slow
def test_what_one_user_wrote_is_nowhere_outside_the_private_zone_after_an_interrupted_and_a_full_run(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    household = Household(tmp_path, tiny_model_folder)
    calls = [household.command("register"), household.command("run", PARTITION, broken=[INTERRUPTED_TRAINING])]
    calls += [household.command("run", PARTITION), household.command("sql", "from metrics")]
    assert [call.returncode for call in calls] == [0, 130, 0, 0]
    printed = "".join(call.stdout + call.stderr for call in calls)
    assert leaks(household, SECRET) == {"private"}
    for private in (SECRET, SECRET_USER):
        assert leaks(household, private) <= {"private"}
        assert private not in printed
    statement = read_artifact(household.home / "released/artifacts/privacy_statement/all/eps-8")
    assert "| resumes used | 1 |" in statement.markdown  # type: ignore[union-attr]


@pytest.mark.slow
def test_errors_that_quote_private_rows_reach_the_private_log_only(tmp_path: Path, tiny_model_folder: Path) -> None:
    household = Household(tmp_path, tiny_model_folder)
    household.command("register")
    for broken in (["real_instructions"], ["real_embeddings", "dp_generator"], ["dp_histogram"]):
        failed = household.command("run", PARTITION, broken=broken)
        assert failed.returncode == 1
        assert all(f"{asset} failed: " in failed.stderr for asset in broken)
        assert failed.stderr.count(CONSTANT_MESSAGE) == len(broken)
        assert SECRET not in failed.stdout + failed.stderr
        assert leaks(household, SECRET) == {"private"}
    assert (household.home / "private/log/errors.log").read_text().count(QUOTED) == len(QUOTING_ERRORS)
