"""The catalog: one DuckDB file with a view over every released table, and tables of lineage, costs, metrics and more.

    <asset>      a view over every partition of a released table, with `cohort` and `level` as first columns
    lineage      one row for each charge that a released artifact descends from
    costs        one row per charge of the ledger, with the epsilon of that charge alone
    statements   one row per privacy statement: the figures of the whole release
    metrics      figures of the quality reports and of the reward models

The catalog holds nothing of its own. It is rebuilt from the released folder and the ledger under a temporary name and
swapped in, so an open reader never blocks a run. Its storage version can be read by older DuckDB clients.

Views name their files below the released folder. They hold its absolute path, because a relative path would be resolved
in each reader's working directory. A reader of a copy sets the path with `set variable released = '/mnt/released'`, and
a rebuild writes the new path.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from dp_assets.privacy import accounting
from dp_assets.privacy.events import event_from_json, event_to_json
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger_state import LedgerState
from resources.storage.artifact_files import DOCUMENT, SHARDS, UnreadableArtifact, stored_charge_ids, stored_record
from resources.storage.zones import atomic_file

STORAGE_VERSION = "v1.2.0"
RELEASED_VARIABLE = "released"
ATTEMPTS = 3
PLACE = {"cohort": pl.String, "level": pl.String}
LINEAGE = {"asset": pl.String, **PLACE, "charge_id": pl.String}
COSTS = {
    "charge_id": pl.String,
    "mechanism": pl.String,
    **PLACE,
    "epsilon": pl.Float64,
    "delta": pl.Float64,
    "settled": pl.Boolean,
    "voided": pl.Boolean,
    "event": pl.String,
}
STATEMENTS = {
    **PLACE,
    "headline_epsilon": pl.Float64,
    "headline_basis": pl.String,
    "lineage_epsilon": pl.Float64,
    "delta": pl.Float64,
    "budget_epsilon": pl.Float64,
    "unit": pl.String,
    "max_rows_per_unit": pl.Int64,
    "relation": pl.String,
}
METRICS = {**PLACE, "subject": pl.String, "metric": pl.String, "value": pl.Float64}

Place = tuple[str, str, str, Path]
Rows = Iterator[tuple[object, ...]]


def catalog_file(home: Path) -> Path:
    """Where the catalog of a data folder lies."""
    return home / Zone.RELEASED / "catalog.duckdb"


def rebuild(home: Path, state: LedgerState) -> Path:
    """Write the catalog of everything released so far and return its path.

    A run may replace an artifact while it is read. All artifacts are then read again.

    Raises:
      UnreadableArtifact: a released folder holds no artifact.
      ValueError: a document in the released folder is damaged.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _rebuild(home, state)
        except (FileNotFoundError, UnreadableArtifact, duckdb.IOException):
            continue
    return _rebuild(home, state)


def _rebuild(home: Path, state: LedgerState) -> Path:
    places = list(released_places(home))
    tables = {
        "lineage": pl.DataFrame(list(_lineage(places)), schema=LINEAGE, orient="row"),
        "costs": pl.DataFrame(list(_costs(state)), schema=COSTS, orient="row"),
        "statements": pl.DataFrame(list(_statements(places)), schema=STATEMENTS, orient="row"),
        "metrics": pl.DataFrame(list(_metrics(places)), schema=METRICS, orient="row"),
    }
    # The connection closes first, so that the file is complete when it gets its name.
    with atomic_file(catalog_file(home), Zone.RELEASED) as temporary, duckdb.connect() as connection:
        connection.execute(f"attach {_literal(temporary)} as catalog (storage_version '{STORAGE_VERSION}')")
        connection.execute("use catalog")
        for name, frame in tables.items():
            connection.register("incoming", frame.to_arrow())
            connection.execute(f"create table {name} as from incoming")
        for view in _views(places, home / Zone.RELEASED):
            connection.execute(view)
    return catalog_file(home)


def released_places(home: Path) -> Iterator[Place]:
    """Yield asset, cohort, level and folder of every released artifact."""
    root = home / Zone.RELEASED / "artifacts"
    for folder in sorted(path for path in root.glob("*/*/*") if path.is_dir() and not path.name.startswith(".")):
        yield (*folder.relative_to(root).parts, folder)  # type: ignore[misc]


def _views(places: Iterable[Place], released: Path) -> Iterator[str]:
    """Yield one view per asset over all of its partitions, with `cohort` and `level` as first columns."""
    root = f"coalesce(getvariable('{RELEASED_VARIABLE}'), {_literal(_glob_of(released))})"
    parts: dict[str, list[str]] = {}
    for asset, cohort, level, folder in places:
        if list(folder.glob(SHARDS)):
            shards = f"{root} || {_literal('/' + (folder.relative_to(released) / SHARDS).as_posix())}"
            source = f"read_parquet({shards}, hive_partitioning = false)"
            columns = f"{_literal(cohort)} as cohort, {_literal(level)} as level, *"
            parts.setdefault(asset, []).append(f"select {columns} from {source}")
    for asset, selects in parts.items():
        yield f'create view "{asset}" as {" union all by name ".join(selects)}'


def _lineage(places: Iterable[Place]) -> Rows:
    for asset, cohort, level, folder in places:
        yield from ((asset, cohort, level, charge_id) for charge_id in stored_charge_ids(folder))


def _costs(state: LedgerState) -> Rows:
    for charge in state.charges.values():
        delta, event = state.registrations[charge.corpus_id].delta, event_from_json(charge.event)
        epsilon = 0.0 if charge.voided else accounting.epsilon(event, delta)
        identity = (charge.charge_id, charge.mechanism, charge.cohort, charge.level)
        yield (*identity, epsilon, delta, charge.settled, charge.voided, json.dumps(event_to_json(event)))


def _statements(places: Iterable[Place]) -> Rows:
    for asset, cohort, level, folder in places:
        if asset == "privacy_statement":
            yield (cohort, level, *_figures_of(_data(folder)))


def _figures_of(data: Mapping[str, Any]) -> tuple[object, ...]:
    guarantee, terms = data["guarantee"], data["terms"]
    return (
        guarantee["headline_epsilon"],
        guarantee["headline_basis"],
        guarantee["lineage_epsilon"],
        terms["delta"],
        data["budget"]["epsilon"],
        terms["unit_in_words"],
        terms["max_rows_per_unit"],
        terms["relation"],
    )


def _metrics(places: Iterable[Place]) -> Rows:
    for asset, cohort, level, folder in places:
        if asset == "quality_report":
            data = _data(folder)
            subjects = {"votes": data, **{name: data[name] or {} for name in ("before", "after", "baseline")}}
        elif asset == "reward_model":
            subjects = {asset: stored_record(folder).get("figures", {})}
        else:
            continue
        for subject, figures in subjects.items():
            yield from ((cohort, level, subject, metric, value) for metric, value in _numbers(figures))


def _numbers(figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    return ((name, float(value)) for name, value in figures.items() if isinstance(value, int | float))


def _data(folder: Path) -> Mapping[str, Any]:
    """Return the JSON value of a document."""
    data: Mapping[str, Any] = json.loads((folder / DOCUMENT).read_text())["data"]
    return data


def _glob_of(folder: Path) -> str:
    """Return the pattern that matches this folder only, whatever characters its name holds."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(folder))


def _literal(text: str | Path) -> str:
    return "'" + str(text).replace("'", "''") + "'"
