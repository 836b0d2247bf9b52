"""What holds between ledger, mechanisms and stores: charge before read, no read without a charge, nothing left behind.

The mechanisms are the real ones, over private rows that note what the ledger says at the moment they are read.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import dagster as dg
import polars as pl
import pytest

from dp_assets.artifacts import OpenableCharge, Table
from dp_assets.dpsgd import training
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from resources.ledger.ledger_resource import Charge, ChargeRefused
from resources.storage import stores
from resources.storage.stores import OtherContent
from tests.boundary import CENTROIDS, LEVEL, Boundary, UntriedVotes
from tests.cli_pipeline import interrupt_in_step

READINGS = {GENERATOR: 2, HISTOGRAM: 2}  # of the rows under one charge; votes are counted twice


@pytest.fixture
def boundary(tmp_path: Path, tiny_model_folder: Path) -> Boundary:
    return Boundary(tmp_path, tiny_model_folder)


@pytest.mark.parametrize("mechanism", [GENERATOR, HISTOGRAM])
def test_when_rows_are_read_their_charge_is_in_the_ledger_and_marked_opened(boundary: Boundary, mechanism: str) -> None:
    run = {GENERATOR: boundary.generator, HISTOGRAM: boundary.histogram}[mechanism]
    release = run()
    assert len(boundary.spy.seen) == READINGS[mechanism]
    [charge], *again = boundary.spy.seen
    assert all(charges == [charge] for charges in again)
    assert (charge.mechanism, charge.opened, charge.settled) == (mechanism, True, False)
    assert release.charge_ids == (charge.charge_id,)
    assert [(c.charge_id, c.settled) for c in boundary.charges] == [(charge.charge_id, True)]


def test_asking_again_returns_the_stored_release_and_reads_nothing(boundary: Boundary) -> None:
    first, second = boundary.histogram(), boundary.histogram()
    assert second.collect().equals(first.collect())
    assert second.charge_ids == first.charge_ids
    assert len(boundary.spy.seen) == READINGS[HISTOGRAM]
    assert len(boundary.charges) == 1


def test_a_refused_charge_reads_nothing(boundary: Boundary) -> None:
    boundary.histogram()
    with pytest.raises(ChargeRefused, match="No private row was read"):
        boundary.histogram(key="another release")
    assert len(boundary.spy.seen) == READINGS[HISTOGRAM]
    assert len(boundary.charges) == 1


@pytest.mark.parametrize("name", ["units", "spacy", "en_core_web_sm"])
def test_what_private_rows_were_made_with_is_models_and_versions_or_nothing_is_charged(
    boundary: Boundary, name: str
) -> None:
    boundary.made_with = {name: "20"}
    with pytest.raises(ChargeRefused, match=f"{name} in what private rows were made with"):
        boundary.histogram()
    assert (boundary.charges, boundary.spy.seen) == ([], [])
    boundary.made_with = {"spacy": "3.8.7", "presidio-analyzer": "2.2.360", "en_core_web_sm": "3.8.0", "embedder": "e"}
    assert boundary.histogram().record["private_rows_made_with"] == boundary.made_with


def test_what_is_kept_of_private_training_holds_no_step(boundary: Boundary, capfd: pytest.CaptureFixture[str]) -> None:
    boundary.generator()
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("training the generator")]
    assert {line.rpartition(": ")[2] for line in lines} <= {"began", "running", "ended"}
    assert lines[0].endswith("began")


def test_a_mechanism_that_fails_after_reading_has_spent(boundary: Boundary) -> None:
    class ReadsThenFails(UntriedVotes):
        def run(self, charge: OpenableCharge) -> tuple[Table, Evidence]:
            super().run(charge)
            raise RuntimeError("the machine went down")

    with pytest.raises(RuntimeError, match="went down"):
        boundary.histogram(mechanism=boundary.votes(ReadsThenFails))
    (charge,) = boundary.charges
    assert (charge.opened, charge.settled, charge.counts) == (True, False, True)
    with pytest.raises(ChargeRefused):
        boundary.histogram()
    assert len(boundary.spy.seen) == READINGS[HISTOGRAM]


def test_a_charge_under_which_nothing_was_read_is_used_by_the_next_run(boundary: Boundary) -> None:
    class FailsAtOnce(UntriedVotes):
        def run(self, charge: OpenableCharge) -> tuple[Table, Evidence]:
            raise RuntimeError("no memory for the model")

    with pytest.raises(RuntimeError, match="no memory"):
        boundary.histogram(mechanism=boundary.votes(FailsAtOnce))
    (unused,) = boundary.charges
    assert boundary.histogram().charge_ids == (unused.charge_id,)


def test_a_run_that_differs_from_its_plan_is_charged_without_a_bound_and_closes_the_cohort(boundary: Boundary) -> None:
    class SkipsABin(UntriedVotes):
        def run(self, charge: OpenableCharge) -> tuple[Table, Evidence]:
            value, evidence = super().run(charge)
            return value, evidence.also(noised_bins=len(CENTROIDS) - 1)

    with pytest.raises(dg.Failure, match="noised_bins: planned 4, ran otherwise") as failure:
        boundary.histogram(mechanism=boundary.votes(SkipsABin))
    assert failure.value.allow_retries is False
    planned, supplement = boundary.charges
    assert supplement.supplement_of == planned.charge_id
    assert boundary.ledger.state().cohort_epsilon(boundary.registration.corpus_id, "all") == float("inf")
    assert not boundary.releases.has(HISTOGRAM, LEVEL, "key")
    with pytest.raises(ChargeRefused, match="closed"):
        boundary.generator()
    assert len(boundary.spy.seen) == READINGS[HISTOGRAM]


def crash_before_settling(boundary: Boundary, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr(Charge, "settle", interrupt)
        with pytest.raises(KeyboardInterrupt):
            boundary.histogram()


def test_a_release_that_a_crash_left_unsettled_is_settled_with_the_evidence_it_was_checked_by(
    boundary: Boundary, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_settling(boundary, monkeypatch)
    assert [charge.settled for charge in boundary.charges] == [False]
    release = boundary.histogram()
    assert [charge.settled for charge in boundary.charges] == [True]
    assert len(boundary.spy.seen) == READINGS[HISTOGRAM]
    assert release.record["evidence"]["noised_bins"] == 4


def test_an_unsettled_release_that_another_charge_paid_for_is_refused_and_not_settled(
    boundary: Boundary, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_settling(boundary, monkeypatch)
    place = (HISTOGRAM, LEVEL, "key")
    stored: Any = boundary.releases.load(*place)
    boundary.releases.save(*place, replace(stored, rows=stored.collect().lazy(), charge_ids=("of another run",)))
    with pytest.raises(ChargeRefused, match="belongs to another charge"):
        boundary.histogram()
    assert [charge.settled for charge in boundary.charges] == [False]


def test_an_unsettled_release_that_was_changed_since_is_refused(
    boundary: Boundary, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_settling(boundary, monkeypatch)
    place = (HISTOGRAM, LEVEL, "key")
    stored: Any = boundary.releases.load(*place)
    changed = replace(stored, rows=stored.collect().with_columns(pl.col("noisy_votes") + 1).lazy())
    with pytest.raises(OtherContent, match="not what was observed"):
        boundary.releases.save(*place, changed)
    with monkeypatch.context() as unseen:
        unseen.setattr(stores, "_check_observed", lambda *_: None)
        boundary.releases.save(*place, changed)
    with pytest.raises(dg.Failure, match="content: planned 'as observed'"):
        boundary.histogram()


def test_what_a_mechanism_says_about_its_release_is_dropped(boundary: Boundary) -> None:
    class Talks(UntriedVotes):
        def run(self, charge: OpenableCharge) -> tuple[Table, Evidence]:
            value, evidence = super().run(charge)
            return replace(value, record={"units": 20}), evidence

    record = boundary.histogram(mechanism=boundary.votes(Talks)).record
    assert record.keys() == {"evidence", "content_sha256", "private_rows_made_with"}


@pytest.mark.parametrize("record", [{}, {"evidence": {"mechanism": "votes"}}])
def test_an_unsettled_release_without_evidence_that_passes_is_refused(
    boundary: Boundary, monkeypatch: pytest.MonkeyPatch, record: dict[str, object]
) -> None:
    crash_before_settling(boundary, monkeypatch)
    place = (HISTOGRAM, LEVEL, "key")
    boundary.releases.save(*place, replace(boundary.releases.load(*place), record=record))  # type: ignore[type-var]
    with pytest.raises(dg.Failure, match="noised_bins"):
        boundary.histogram()
    assert [charge.supplement_of is not None for charge in boundary.charges] == [False, True]
    with pytest.raises(ChargeRefused, match="closed"):
        boundary.histogram(key="another")


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
    assert evidence["continuations"] == "within the spare steps"
    assert evidence["steps"] == evidence["noise_draws"] == boundary.plan.dpsgd.steps


def test_a_continuation_that_is_interrupted_before_it_reads_a_row_uses_no_spare_step(
    boundary: Boundary, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in_step(monkeypatch.setattr, 2)
    with pytest.raises(KeyboardInterrupt):
        boundary.generator()
    reads = len(boundary.spy.seen)
    for _ in range(boundary.plan.dpsgd.spare_steps + 1):
        with monkeypatch.context() as patch:
            patch.setattr(training, "probe_sensitivity", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                boundary.generator()
    assert len(boundary.spy.seen) == reads
    boundary.generator()
    (finished,) = boundary.charges
    assert (finished.settled, len(finished.continuations)) == (True, 1)


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
    assert len(boundary.spy.seen) == reads == READINGS[GENERATOR] * (boundary.plan.dpsgd.spare_steps + 1)
    assert len(boundary.charges) == 1
