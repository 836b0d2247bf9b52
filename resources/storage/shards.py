"""Finished shards of a released table that takes long to make, stored so that a stopped run can be resumed.

    <home>/released/spool/<asset>/<cohort>/<level>/<key>/<name>.parquet

The key is a digest of everything that decides the rows. A folder with another key is useless and is removed. Shards are
written atomically, and stay after the table is stored: a larger pool with the same settings begins with them.

Without noise (level no-dp) shards stay in memory, because an erasure must find everything that was made from exact
rows.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from dp_assets.artifacts import Adapter, adapter_digest
from dp_assets.privacy.labels import Label, Zone, zone
from dp_assets.vocabulary import Partition
from resources.storage.room import room_in
from resources.storage.zones import atomic_file


class ShardStore(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Opens the shards of released assets; `home` is the data folder."""

    home: str

    def open(self, asset: str, partition: str, *, adapter: Adapter, decided_by: Mapping[str, Any]) -> "Shards":
        """Return the shards of one partition made from `adapter` and whatever else decides its rows. Remove others."""
        made = Partition.named(partition)
        if zone(Label.RELEASED, made.level) is not Zone.RELEASED:
            return Shards(None)
        parent = Path(self.home) / Zone.RELEASED / "spool" / asset / made.path
        folder = parent / _key(adapter, decided_by)
        for other in parent.iterdir() if parent.is_dir() else ():
            if other != folder:
                shutil.rmtree(other)
        return Shards(folder)


class Shards:
    """Tables by name, in a folder, or in memory if the folder is None."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def found(self, name: str) -> pl.LazyFrame | None:
        """Return the shard of this name, if it was finished."""
        if self._folder is None or not self._path(self._folder, name).exists():
            return None
        return pl.scan_parquet(self._path(self._folder, name))

    def kept(self, name: str, rows: pl.DataFrame) -> pl.LazyFrame:
        """Store `rows` and return them as a scan of the file; return them as they are where nothing is stored.

        Raises:
          NoRoom: the disk is full; shards stored before are intact.
        """
        if self._folder is None:
            return rows.lazy()
        path = self._path(self._folder, name)
        with room_in(self._folder), atomic_file(path, Zone.RELEASED) as temporary:
            rows.write_parquet(temporary)
        return pl.scan_parquet(path)

    @staticmethod
    def _path(folder: Path, name: str) -> Path:
        return folder / f"{name}.parquet"


def _key(adapter: Adapter, decided_by: Mapping[str, Any]) -> str:
    digest = adapter_digest(adapter.weights, adapter.config)
    named = {"adapter": digest, "base_model": adapter.base_model, "charge_ids": adapter.charge_ids}
    return hashlib.sha256(json.dumps([named, decided_by], sort_keys=True, default=str).encode()).hexdigest()[:32]
