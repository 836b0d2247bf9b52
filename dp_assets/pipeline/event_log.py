"""The entries of Dagster's event log about artifacts of this data folder.

Several data folders may share one Dagster instance, whose log then holds the materializations of all of them. A corpus
is registered in one ledger under a random id, and the metadata of every artifact name that id. So the id tells to which
data folder an entry belongs.
"""

from collections.abc import Collection
from typing import Any

import dagster as dg
from dagster import AssetRecordsFilter

from dp_assets.privacy import metadata

RECORDS_AT_A_TIME = 20


def latest(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, corpora: Collection[str]) -> Any:
    """Return the newest materialization of an asset that was made for one of `corpora`, or None.

    - `partition` is None for an asset without partitions.
    - Entries of earlier versions name no corpus. They count too, since the digest of their profile differs, and so they
      are found out of date.
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
    """Return a metadata value of a materialization, or None if it has none of this name."""
    value = record.event_log_entry.asset_materialization.metadata.get(name)
    return None if value is None else value.value
