"""What Dagster's event log says of artifacts, in the part of it that is about this data folder.

Several data folders may share one Dagster instance, whose log then holds what was made in each. A corpus is registered
in one ledger under a random id, and every artifact's metadata names it, so it tells the data folders apart.
"""

from collections.abc import Collection
from typing import Any

import dagster as dg
from dagster import AssetRecordsFilter

from dp_assets.privacy import metadata

RECORDS_AT_A_TIME = 20


def latest(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, corpora: Collection[str]) -> Any:
    """The newest materialization of an asset, of one partition if it has any, that was made for one of `corpora`.

    Versions before this recorded no corpus. Theirs count too: what they made is out of date by its profile's digest.
    """
    wanted, cursor = AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None), None
    while True:
        page = instance.fetch_materializations(wanted, limit=RECORDS_AT_A_TIME, cursor=cursor)
        ours = (record for record in page.records if recorded(record, metadata.CORPUS) in (None, *corpora))
        record = next(ours, None)
        if record is not None or not page.has_more:
            return record
        cursor = page.cursor


def recorded(record: Any, name: str) -> Any:
    """A value that an asset recorded when it was made; None if it recorded none."""
    value = record.event_log_entry.asset_materialization.metadata.get(name)
    return None if value is None else value.value
