"""The one sensor of the code location: statements that say what their cohort has spent by now.

A privacy statement names its cohort's epsilon as of when it was made. A later charge for another level of the cohort
raises that figure. The sensor makes such a statement again, from released artifacts and the ledger alone; it reads no
private row and charges nothing. It is off until somebody turns it on.
"""

from collections.abc import Iterator

import dagster as dg

from dp_assets.assets._corpus import registration_of
from dp_assets.partitions import RELEASES, Partition
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import NO_DP
from resources.ledger import Ledger
from resources.profile import Profile

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
    """Makes a privacy statement again once its cohort has spent more than it says. Charges nothing."""
    corpus_id, state = registration_of(ledger, profile).corpus_id, ledger.state()
    for key in RELEASES.get_partition_keys():
        partition = Partition.named(key)
        stated = stated_epsilon(context.instance, key)
        if stated is None or partition.level == NO_DP:
            continue
        spent = state.cohort_epsilon(corpus_id, partition.cohort)
        if stated != spent:
            yield dg.RunRequest(run_key=f"{key} at {spent!r}", partition_key=key)


def stated_epsilon(instance: dg.DagsterInstance, partition: str) -> object | None:
    """The cohort's epsilon as the newest statement of a partition has it, None where there is no statement."""
    wanted = dg.AssetRecordsFilter(asset_key=STATEMENT, asset_partitions=[partition])
    for record in instance.fetch_materializations(wanted, limit=1).records:
        made = record.asset_materialization
        figure = None if made is None else made.metadata.get(metadata.COHORT_EPSILON)
        return None if figure is None else figure.value
    return None
