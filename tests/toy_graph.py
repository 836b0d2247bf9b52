"""A graph of the real shape without a model: a private table, a mechanism and a released table, in the real stores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from dp_assets.artifacts import PrivateTable, Table
from dp_assets.pipeline.asset import labeled_asset
from dp_assets.pipeline.asset_metadata import private_version
from dp_assets.pipeline.running import stage_logger
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import Label
from resources.storage.stores import ArtifactStore

PARTITION, OTHER_PARTITION, UNPROTECTED = "all|eps-8", "all|eps-1", "all|no-dp"
PROFILE, CORPUS, SNAPSHOT = "digest of the profile", "corpus", "1"
SECRET = "only the private zone knows"
NOISE = pl.Schema({"noisy_votes": pl.Int64()})
POOL = pl.Schema({"noisy_votes": pl.Int64(), "text": pl.String()})
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def made(value: Any, corpus: str = CORPUS) -> dg.MaterializeResult[Any]:
    decided_by = {metadata.PROFILE: PROFILE, metadata.CORPUS: corpus}
    if not isinstance(value, PrivateTable):
        return dg.MaterializeResult(value=value, metadata=decided_by)
    version = private_version(profile=PROFILE, corpus_id=corpus, snapshot=value.snapshot, code_version="1")
    shown = {**decided_by, metadata.SNAPSHOT: value.snapshot}
    return dg.MaterializeResult(value=value, metadata=shown, data_version=dg.DataVersion(version))


@labeled_asset(label=Label.PRIVATE, group="toys", kinds={"polars"}, partitioned=False)
def secrets() -> dg.MaterializeResult[PrivateTable]:
    """Private rows."""
    return made(PrivateTable(pl.LazyFrame({"text": [SECRET]}), corpus_id=CORPUS, snapshot=SNAPSHOT))


@labeled_asset(label=Label.MECHANISM, group="toys", kinds={"polars"}, columns=NOISE)
def noise(context: dg.AssetExecutionContext, secrets: PrivateTable) -> dg.MaterializeResult[Table]:
    """A release that carries one charge id a partition."""
    level = context.partition_key.split("|")[1]
    return made(Table(pl.LazyFrame({"noisy_votes": [1, 2]}), (f"charge-{level}",)))


@labeled_asset(label=Label.RELEASED, group="toys", kinds={"polars"}, columns=POOL)
def pool(noise: Table) -> dg.MaterializeResult[Table]:
    """Post-processing."""
    return made(Table(noise.rows.with_columns(text=pl.lit("synthetic")), noise.charge_ids))


@dg.asset_check(asset=secrets)
def passing() -> dg.AssetCheckResult:
    """A check that reads nothing."""
    return dg.AssetCheckResult(passed=True)


TOYS = (secrets, noise, pool)


def materialize(
    home: Path,
    partition: str | None = PARTITION,
    *,
    assets: Sequence[dg.AssetsDefinition | dg.AssetChecksDefinition] = TOYS,
    selection: Sequence[str] | None = None,
) -> dg.ExecuteInProcessResult:
    """One run of the toys over a data folder."""
    store = ArtifactStore(home=str(home))
    resources = {"io_manager": store}
    return dg.materialize(
        list(assets), partition_key=partition, resources=resources, selection=selection, run_config=SILENT
    )


def definitions(home: Path, assets: Sequence[dg.AssetsDefinition] = TOYS) -> dg.Definitions:
    """The toys as a code location with the job and the logger of the real one."""
    return dg.Definitions(
        assets=assets,
        asset_checks=[passing],
        jobs=[dg.define_asset_job("full_pipeline", selection=dg.AssetSelection.all())],
        resources={"io_manager": ArtifactStore(home=str(home))},
        executor=dg.in_process_executor,
        loggers={"console": stage_logger},
    )
