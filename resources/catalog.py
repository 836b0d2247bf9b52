"""The catalog: one DuckDB file with a view over every released table, and tables of lineage, cost and metrics.

It holds nothing of its own: it is rebuilt from the released folder and the ledger under a temporary name and swapped
in, so an open reader never stops a run. It is written in a storage version that older DuckDB clients read.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import polars as pl

from dp_assets.artifacts import Adapter, Document, Table
from dp_assets.privacy import accounting
from dp_assets.privacy.events import event_from_json, event_to_json
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger import LedgerState
from resources.artifact_files import SHARDS, read_artifact
from resources.zones import atomic_file

STORAGE_VERSION = "v1.2.0"
LINEAGE = {"asset": pl.String, "cohort": pl.String, "level": pl.String, "charge_id": pl.String}
COSTS = {
    "charge_id": pl.String,
    "mechanism": pl.String,
    "cohort": pl.String,
    "level": pl.String,
    "epsilon": pl.Float64,
    "delta": pl.Float64,
    "settled": pl.Boolean,
    "event": pl.String,
}
METRICS = {"cohort": pl.String, "level": pl.String, "subject": pl.String, "metric": pl.String, "value": pl.Float64}

Place = tuple[str, str, str, Path]


def catalog_file(home: Path) -> Path:
    return home / Zone.RELEASED / "catalog.duckdb"


def rebuild(home: Path, state: LedgerState) -> Path:
    """Write the catalog of everything released so far and return its path."""
    places = list(released_places(home))
    tables = {
        "lineage": pl.DataFrame(list(_lineage(places)), schema=LINEAGE, orient="row"),
        "costs": pl.DataFrame(list(_costs(state)), schema=COSTS, orient="row"),
        "metrics": pl.DataFrame(list(_metrics(places)), schema=METRICS, orient="row"),
    }
    # The connection closes first, so that the file is whole when it takes its name.
    with atomic_file(catalog_file(home), Zone.RELEASED) as temporary, duckdb.connect() as connection:
        connection.execute(f"attach '{_quoted(temporary)}' as catalog (storage_version '{STORAGE_VERSION}')")
        connection.execute("use catalog")
        for name, frame in tables.items():
            connection.register("incoming", frame.to_arrow())
            connection.execute(f"create table {name} as from incoming")
        for statement in _views(places):
            connection.execute(statement)
    return catalog_file(home)


def released_places(home: Path) -> Iterator[Place]:
    """Asset, cohort, level and folder of every released artifact."""
    root = home / Zone.RELEASED / "artifacts"
    for folder in sorted(path for path in root.glob("*/*/*") if path.is_dir() and not path.name.startswith(".")):
        yield (*folder.relative_to(root).parts, folder)  # type: ignore[misc]


def _views(places: Iterable[Place]) -> Iterator[str]:
    """One view an asset over all of its partitions, with `cohort` and `level` as first columns."""
    parts: dict[str, list[str]] = {}
    for asset, cohort, level, folder in places:
        if list(folder.glob(SHARDS)):
            source = f"read_parquet('{_quoted(folder / SHARDS)}')"
            parts.setdefault(asset, []).append(f"select '{cohort}' as cohort, '{level}' as level, * from {source}")
    for asset, selects in parts.items():
        yield f'create view "{asset}" as {" union all by name ".join(selects)}'


def _lineage(places: Iterable[Place]) -> Iterator[tuple[str, ...]]:
    for asset, cohort, level, folder in places:
        artifact = read_artifact(folder)
        if isinstance(artifact, Table | Adapter | Document):
            yield from ((asset, cohort, level, charge_id) for charge_id in artifact.charge_ids)


def _costs(state: LedgerState) -> Iterator[tuple[object, ...]]:
    for charge in state.charges.values():
        delta, event = state.registrations[charge.corpus_id].delta, event_from_json(charge.event)
        epsilon = accounting.epsilon(event, delta)
        place = (charge.charge_id, charge.mechanism, charge.cohort, charge.level)
        yield (*place, epsilon, delta, charge.settled, str(event_to_json(event)))


def _metrics(places: Iterable[Place]) -> Iterator[tuple[object, ...]]:
    for asset, cohort, level, folder in places:
        if asset == "quality_report":
            data = read_artifact(folder).data  # type: ignore[union-attr]
            for subject in ("before", "after", "baseline"):
                for metric, value in (data[subject] or {}).items():
                    yield (cohort, level, subject, metric, float(value))


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
