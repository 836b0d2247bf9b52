"""`dp-instructions backfill`: several levels and cohorts from the command line, and a month that comes later."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.cli_pipeline import CliPipeline
from tests.sweeps import (
    BUCKETS,
    BUDGET,
    LEVELS,
    TOO_LARGE,
    artifacts_of,
    charges_of,
    ids_behind,
    made_of,
    noise_of,
    pipeline_of_buckets,
    pipeline_of_months,
    set_corpus,
    write_months,
)

pytestmark = pytest.mark.slow

PLACES = [(cohort, level) for cohort in BUCKETS for level in LEVELS]
RELEASED = ("dp_generator", "filtered_instructions", "rlhf_model", "quality_report", "privacy_statement")


def told(run: CompletedProcess[str]) -> list[dict[str, Any]]:
    """What a backfill with --json said of each partition."""
    partitions: list[dict[str, Any]] = json.loads(run.stdout)["partitions"]
    return partitions


class Sweep:
    """Two levels in two cohorts, and then a level that the budget has no room for."""

    def __init__(self, pipeline: CliPipeline) -> None:
        self.pipeline = pipeline
        self.first = pipeline.command("backfill", "--json")
        assert self.first.returncode == 0, self.first.stderr
        self.artifacts = {place: artifacts_of(pipeline, *place) for place in PLACES}
        self.anchor = pipeline.ledger.state().anchor
        levels = ",".join((TOO_LARGE, LEVELS[0]))
        self.second = pipeline.command("backfill", "--cohorts", "bucket-*", "--levels", levels, "--json")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Sweep:
    return Sweep(pipeline_of_buckets(tmp_path_factory.mktemp("sweep"), tiny_model_folder))


def test_the_planned_levels_of_every_cohort_are_made_and_the_private_tables_once(sweep: Sweep) -> None:
    assert [(one["partition"], one["how"]) for one in told(sweep.first)] == [("|".join(p), "made") for p in PLACES]
    made = made_of(sweep.first.stderr)
    assert (made.pop("real_instructions"), made.pop("real_embeddings")) == (1, 1)
    assert set(made.values()) == {len(PLACES)}


def test_results_of_partitions_do_not_mix(sweep: Sweep) -> None:
    for asset in RELEASED:
        ids = [ids_behind(sweep.pipeline, asset, *place) for place in PLACES]
        assert sum(map(len, ids)) == len(set.union(*ids)) > 0
    for place in PLACES:
        own = {charge.charge_id for charge in charges_of(sweep.pipeline, *place)}
        assert ids_behind(sweep.pipeline, "privacy_statement", *place) == own
    noise = [noise_of(sweep.pipeline, *place) for place in PLACES]
    assert noise[0] == noise[2] < noise[1] == noise[3]


def test_each_line_tells_what_the_partition_cost_and_what_is_left_of_its_cohort(sweep: Sweep) -> None:
    state = sweep.pipeline.ledger.state()
    (corpus_id,) = state.registrations
    for line, place in zip(told(sweep.first), PLACES, strict=True):
        assert set(line["charges"]) == {charge.charge_id for charge in charges_of(sweep.pipeline, *place)}
        assert line["epsilon"] == state.lineage_epsilon(line["charges"])
        assert line["spent_epsilon"] == state.cohort_epsilon(corpus_id, place[0])
        assert line["left"] == pytest.approx(BUDGET - line["spent_epsilon"])


def test_a_level_that_does_not_fit_is_refused_unread_and_the_backfill_goes_on(sweep: Sweep) -> None:
    assert sweep.second.returncode == 1
    assert [one["how"] for one in told(sweep.second)] == ["refused", "up to date"] * 2
    assert "No private row was read" in sweep.second.stderr
    assert all(one["charges"] == [] for one in told(sweep.second))
    assert sweep.pipeline.ledger.state().anchor == sweep.anchor


def test_the_bytes_of_a_level_are_unchanged_by_another(sweep: Sweep) -> None:
    assert {place: artifacts_of(sweep.pipeline, *place) for place in PLACES} == sweep.artifacts
    assert all(len(artifacts) > len(RELEASED) for artifacts in sweep.artifacts.values())


def test_an_interrupted_backfill_goes_on_where_it_stopped(tmp_path: Path, tiny_model_folder: Path) -> None:
    pipeline = pipeline_of_buckets(tmp_path, tiny_model_folder)
    interrupted = pipeline.run_script("interrupted_backfill", umask=0o022)
    codes = json.loads((pipeline.folder / "record/seen.json").read_text())["codes"]
    assert codes == [130, 0], interrupted.stderr
    made = made_of(interrupted.stderr)
    assert (made["real_instructions"], made["synthetic_pool"], made["dp_generator"]) == (1, 2, 3)
    charges = pipeline.ledger.state().charges.values()
    assert [charge.settled for charge in charges] == [True] * 4
    assert sum(len(charge.continuations) for charge in charges) == 1


class Months:
    """Two months, then a third one that comes in as a new snapshot."""

    def __init__(self, pipeline: CliPipeline) -> None:
        self.pipeline = pipeline
        self.first = pipeline.command("backfill", "--cohorts", "2026-01,2026-02", "--json")
        assert self.first.returncode == 0, self.first.stderr
        self.before = {month: artifacts_of(pipeline, month, "eps-8") for month in ("2026-01", "2026-02")}
        write_months(pipeline.corpus_file, 1, 2, 3)
        self.unnamed = pipeline.command("snapshot")
        set_corpus(pipeline, snapshot="2026-03")
        self.named = pipeline.command("snapshot")
        self.third = pipeline.command("backfill", "--cohorts", "2026-03", "--json")


@pytest.fixture(scope="module")
def months(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Months:
    return Months(pipeline_of_months(tmp_path_factory.mktemp("months"), tiny_model_folder))


def test_rows_that_changed_need_another_name(months: Months) -> None:
    assert months.unnamed.returncode == 1
    assert "real_instructions failed" in months.unnamed.stderr
    assert [name for _, name in months.pipeline.ledger.state().snapshots] == ["1", "2026-03"]


def test_a_new_snapshot_makes_the_private_tables_and_charges_nothing(months: Months) -> None:
    assert months.named.returncode == 0, months.named.stderr
    assert "2026-03" in months.named.stdout
    assert made_of(months.named.stderr) == {"real_instructions": 1, "real_embeddings": 1}


def test_a_new_month_is_charged_to_its_own_budget_and_leaves_the_others_as_they_are(months: Months) -> None:
    assert months.third.returncode == 0, months.third.stderr
    (line,) = told(months.third)
    assert (line["partition"], line["how"], len(line["charges"])) == ("2026-03|eps-8", "made", 2)
    assert "real_instructions" not in made_of(months.third.stderr)
    assert {charge.snapshot for charge in charges_of(months.pipeline, "2026-03", "eps-8")} == {"2026-03"}
    for month, artifacts in months.before.items():
        assert len(charges_of(months.pipeline, month, "eps-8")) == 2
        assert artifacts_of(months.pipeline, month, "eps-8") == artifacts
