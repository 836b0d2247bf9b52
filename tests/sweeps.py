"""Test pipelines whose corpus has several cohorts and several planned levels, and what a backfill left in them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from dp_assets.artifacts import Adapter
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger_state import ChargeRecord
from resources.storage.artifact_files import read_artifact
from resources.storage.digests import file_digests
from tests.cli_pipeline import CliPipeline
from tests.tiny_pipeline import write_corpus

LEVELS = ("eps-2.86", "eps-1")
BUCKETS = ("bucket-0", "bucket-1")
TOO_LARGE = "eps-8"  # beside the planned levels; its generator alone fits the budget of no cohort here
BUDGET = 3.5


def set_corpus(pipeline: CliPipeline, **settings: Any) -> None:
    """Put settings of the corpus into a profile file; a name such as `cohorts__kind` is a dotted key."""
    lines = [f"{name.replace('__', '.')} = {json.dumps(value)}" for name, value in settings.items()]
    text = pipeline.profile_file.read_text()
    pipeline.profile_file.write_text(text.replace("[corpus]\n", "\n".join(["[corpus]", *lines, ""])))


def pipeline_of_buckets(folder: Path, model: Path) -> CliPipeline:
    """Two disjoint sets of users, each with both levels planned; registered."""
    pipeline = CliPipeline(folder, model)
    set_corpus(
        pipeline,
        planned_levels=LEVELS,
        budget_epsilon=BUDGET,
        cohorts__kind="user_bucket",
        cohorts__num_buckets=len(BUCKETS),
    )
    assert pipeline.command("register").returncode == 0
    return pipeline


def pipeline_of_months(folder: Path, model: Path) -> CliPipeline:
    """Instructions as units, in a cohort for each month of a quarter whose last month has no rows yet; registered."""
    pipeline = CliPipeline(folder, model)
    write_months(pipeline.corpus_file, 1, 2)
    text = pipeline.profile_file.read_text().replace('user_id = "user"', 'created_at = "time"')
    pipeline.profile_file.write_text(text)
    set_corpus(
        pipeline,
        unit="instruction",
        max_rows_per_unit=1,
        cohorts__kind="month",
        cohorts__first="2026-01",
        cohorts__last="2026-03",
    )
    assert pipeline.command("register").returncode == 0
    return pipeline


def write_months(corpus: Path, *months: int) -> None:
    """The instructions of these months of 2026: the same questions in each, told apart by their last words."""
    questions = pl.read_parquet(write_corpus(corpus))["prompt"]
    tables = [
        pl.DataFrame({"prompt": questions + f" in month {month}"}).with_columns(time=pl.datetime(2026, month, 1))
        for month in months
    ]
    pl.concat(tables).write_parquet(corpus)


def made_of(messages: str) -> Counter[str]:
    """How often each asset was started, from what the command said."""
    return Counter(line.removeprefix("== ") for line in messages.splitlines() if line.startswith("== "))


def artifacts_of(pipeline: CliPipeline, cohort: str, level: str) -> dict[str, dict[str, str]]:
    """The digests of the files of every artifact of a partition, in both zones."""
    return {
        f"{zone}/{folder.parent.parent.name}": file_digests(folder, below=folder)
        for zone in Zone
        for folder in (pipeline.home / zone / "artifacts").glob(f"*/{cohort}/{level}")
    }


def charges_of(pipeline: CliPipeline, cohort: str, level: str) -> list[ChargeRecord]:
    charges = pipeline.ledger.state().charges.values()
    return [charge for charge in charges if (charge.cohort, charge.level) == (cohort, level)]


def ids_behind(pipeline: CliPipeline, asset: str, cohort: str, level: str) -> set[str]:
    """The charge ids that a released artifact carries."""
    artifact: Any = read_artifact(pipeline.home / Zone.RELEASED / "artifacts" / asset / cohort / level)
    return set(artifact.charge_ids)


def noise_of(pipeline: CliPipeline, cohort: str, level: str) -> float:
    """The noise multiplier that the evidence of a generator states."""
    folder = pipeline.home / Zone.RELEASED / "artifacts/dp_generator" / cohort / level
    adapter: Adapter = read_artifact(folder)  # type: ignore[assignment]
    evidence = adapter.record["evidence"]
    return float(evidence["noise_stddev"] / evidence["l2_clip_norm"])
