"""The sensors of the code location. None of them reads a private row.

One sensor keeps privacy statements up to date. A statement names its cohort's guarantee, the spending and the budget as
of when it was made. A later charge for another level of the cohort, a raised budget or a closed cohort make it out of
date. The sensor then requests a run that makes the statement again, from released artifacts and the ledger alone. It
charges nothing. It is off by default.

Two sensors rebuild the catalog after runs launched in the UI, if a daemon runs, as under `dagster dev`. The command
line rebuilds it after its own runs. These sensors launch nothing and are on by default.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb

from dp_assets.pipeline.corpus import registration_of
from dp_assets.pipeline.event_log import latest, recorded
from dp_assets.pipeline.partitions import COHORTS_BY_LEVELS
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import NO_DP
from dp_assets.settings.profile import Profile
from dp_assets.vocabulary import Partition
from resources.ledger.ledger_resource import Ledger
from resources.storage.catalog import rebuild
from resources.storage.stores import ReleaseStore

STATEMENT = dg.AssetKey("privacy_statement")
SECONDS_BETWEEN = 300


@dg.sensor(
    asset_selection=[STATEMENT],
    default_status=dg.DefaultSensorStatus.STOPPED,
    minimum_interval_seconds=SECONDS_BETWEEN,
)
def statements_follow_the_ledger(
    context: dg.SensorEvaluationContext, ledger: dg.ResourceParam[Ledger], profile: dg.ResourceParam[Profile]
) -> Iterator[dg.RunRequest]:
    """Makes a privacy statement again once the ledger says otherwise of its cohort. Charges nothing."""
    corpus_id, state = registration_of(ledger, profile).corpus_id, ledger.state()
    for key in COHORTS_BY_LEVELS.get_partition_keys():
        partition = Partition.named(key)
        stated = stated_figures(context.instance, key, corpus_id)
        if stated is None or partition.level == NO_DP:
            continue
        guarantee = state.guarantee(corpus_id, [partition.cohort], without_noise=False)
        present = (guarantee.epsilon, guarantee.spent, guarantee.budget)
        if stated != present:
            yield dg.RunRequest(run_key=f"{key} at {present!r}", partition_key=key)


def rebuild_catalog(ledger: Ledger, releases: ReleaseStore) -> str:
    """Rebuild the catalog and return a message about it. An open reader or a damaged file is reported, not raised."""
    try:
        return f"rebuilt {rebuild(Path(releases.home), ledger.state()).name}"
    except (duckdb.Error, OSError, ValueError) as error:
        return f"the catalog was not rebuilt, `dp-instructions sql` tries again: {error}"


def _after_runs(name: str, status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=name,
        run_status=status,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Rebuilds the catalog after a run. Launches and charges nothing.",
    )
    def follow(
        context: dg.RunStatusSensorContext, ledger: dg.ResourceParam[Ledger], releases: dg.ResourceParam[ReleaseStore]
    ) -> dg.SkipReason:
        return dg.SkipReason(rebuild_catalog(ledger, releases))

    return follow


# A run that failed late has released the artifacts that it made before.
CATALOG_SENSORS = (
    _after_runs("catalog_follows_finished_runs", dg.DagsterRunStatus.SUCCESS),
    _after_runs("catalog_follows_failed_runs", dg.DagsterRunStatus.FAILURE),
)


STATED = (metadata.COHORT_EPSILON, metadata.SPENT_EPSILON, metadata.BUDGET_EPSILON)


def stated_figures(instance: dg.DagsterInstance, partition: str, corpus_id: str) -> tuple[object, ...] | None:
    """Return guarantee, spending and budget of the newest statement of a partition, or None if there is no statement.

    Statements of earlier versions recorded only the guarantee, so they differ and are made again once.
    """
    record = latest(instance, STATEMENT, partition, {corpus_id})
    return None if record is None else tuple(recorded(record, name) for name in STATED)
