"""Runs of one partition of the graph in this process, on the persistent Dagster instance of the data folder.

Only assets that are missing or out of date run. An asset is current if its artifact

- exists,
- was made under this profile, its own settings and file, and this code version,
- was made from what its upstream assets hold now,
- and, if it is private, holds the present snapshot of the corpus.

So an interrupted run continues where it stopped, a finished one has nothing to do, and after an erasure all assets run
again. Materializations in another data folder of the same Dagster instance do not count.

Whether an upstream has changed is decided by time, and for private tables by their data version: the run of each
partition may make private tables again from the same snapshot, which must not make the other partitions out of date.
"""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from dp_assets.pipeline.event_log import latest, recorded
from dp_assets.pipeline.partitions import COHORTS_BY_LEVELS
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import LABEL_METADATA, Label
from resources.ledger.ledger_resource import ChargeRefused
from resources.storage.stores import artifact_folder
from resources.storage.zones import data_home

DAGSTER_HOME = "DAGSTER_HOME"
FULL_PIPELINE, NEW_SNAPSHOT = "full_pipeline", "new_snapshot"
CODE_VERSION_TAG, VERSION_TAG = "dagster/code_version", "dagster/data_version"
VERSION_IS_OURS_TAG = "dagster/data_version_is_user_provided"
INPUT_VERSION_TAGS = "dagster/input_data_version"
INTERRUPTS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    - `made` names the assets that were stored, `failed` the assets that failed and the reasons.
    - `refused` means that every failure is a refused charge, so no mechanism that failed had read anything.
    """

    success: bool
    interrupted: bool
    made: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    refused: bool = False


@contextmanager
def persistent_instance() -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance in the data folder, or in `$DAGSTER_HOME` if it is set. It is created at first use."""
    home = Path(os.environ.setdefault(DAGSTER_HOME, str(data_home() / "dagster_home")))
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copy(Path(__file__).parents[1] / "dagster.yaml", home)
    with dg.DagsterInstance.get() as instance:
        yield instance


def materialize(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    *,
    job: str = FULL_PIPELINE,
    partition: str | None = None,
    assets: Sequence[dg.AssetKey] | None = None,
) -> Outcome:
    """Materialize assets of a job and return how the run ended. Each asset is named on standard error as it starts.

    Args:
      defs: the code location.
      instance: the Dagster instance that records the run.
      job: the name of the job.
      partition: the key of the partition, or None if the job has none.
      assets: the assets to materialize, or None for all assets of the job.
    """
    run = defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=partition,
        asset_selection=None if assets is None else list(assets),
        raise_on_error=False,
        run_config={"loggers": {"console": {}}},
    )
    failures = [event for event in run.all_events if event.is_step_failure]
    ends = [*failures, *(event for event in run.all_events if event.is_job_failure)]
    return Outcome(
        success=run.success,
        interrupted=any(_is_interrupt(event.event_specific_data) for event in ends),
        made=tuple(event.step_key or "" for event in run.get_asset_materialization_events()),
        failed=tuple((event.step_key or "", _reason(event.step_failure_data.error)) for event in failures),
        refused=bool(failures) and all(_is_refusal(event.step_failure_data.error) for event in failures),
    )


def _is_interrupt(failure: Any) -> bool:
    """Return whether a signal ended a step, or the run between two steps."""
    return failure.error is not None and failure.error.cls_name in INTERRUPTS


def _is_refusal(error: Any) -> bool:
    return error is not None and error.cls_name == ChargeRefused.__name__


def no_own_settings(_: str) -> str | None:
    """Return None: the `own_settings` of a graph in which the profile's digest covers everything."""
    return None


def out_of_date(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    *,
    home: Path,
    partition: str,
    profile: str,
    corpora: Collection[str],
    snapshot: str,
    own_settings: Callable[[str], str | None] = no_own_settings,
) -> list[dg.AssetKey]:
    """Return the assets of a partition that must run, in topological order.

    Args:
      defs: the code location.
      instance: the Dagster instance whose event log is read.
      home: the data folder, which holds the artifacts.
      partition: the key of the partition.
      profile: the digest of the profile.
      corpora: the ids of the corpora that are registered in this data folder.
      snapshot: the present snapshot of the profile's corpus, which an erasure changes.
      own_settings: returns the digest of what decides one asset alone, given the asset's name.
    """
    graph = defs.resolve_asset_graph()
    made: dict[dg.AssetKey, Any] = {}
    stale: list[dg.AssetKey] = []
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        own_partition = partition if node.partitions_def == COHORTS_BY_LEVELS else None
        record = latest(instance, key, own_partition, corpora)
        current = (
            record is not None
            and _is_stored(home, node, own_partition)
            and _is_of(record, profile, node.code_version)
            and recorded(record, metadata.OWN_SETTINGS) == own_settings(key.to_user_string())
            and _is_of_snapshot(record, snapshot, node)
            and all(parent in made and _is_made_from(record, made[parent], parent) for parent in node.parent_keys)
        )
        if current and record is not None:
            made[key] = record
        else:
            stale.append(key)
    return stale


def _is_stored(home: Path, node: Any, partition: str | None) -> bool:
    """Return whether the artifact exists in the folder of the IO manager."""
    return artifact_folder(home, node.key.path, Label(node.metadata[LABEL_METADATA]), partition).is_dir()


def _is_of(record: Any, profile: str, code_version: str | None) -> bool:
    same_code = _tags(record).get(CODE_VERSION_TAG) == code_version
    return same_code and recorded(record, metadata.PROFILE) == profile


def _is_of_snapshot(record: Any, snapshot: str, node: Any) -> bool:
    """Return whether a private table holds the present snapshot. Other assets follow their upstream in the graph."""
    if node.metadata[LABEL_METADATA] != Label.PRIVATE:
        return True
    return bool(recorded(record, metadata.SNAPSHOT) == snapshot)


def _is_made_from(record: Any, upstream: Any, key: dg.AssetKey) -> bool:
    """Return whether an artifact was made from what its upstream `key` holds now.

    A data version that Dagster generates follows from code alone and does not depend on rows. There only time decides.
    """
    if upstream.storage_id < record.storage_id:
        return True
    held = _tags(upstream)
    made_from = _tags(record).get(f"{INPUT_VERSION_TAGS}/{key.to_user_string()}")
    return held.get(VERSION_IS_OURS_TAG) == "true" and held[VERSION_TAG] == made_from


def _tags(record: Any) -> dict[str, str]:
    return dict(record.event_log_entry.asset_materialization.tags or {})


def _reason(error: Any) -> str:
    """Return the message of the innermost cause of an error."""
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return "unknown"
    return str(error.message).strip().removeprefix(f"{ChargeRefused.__module__}.{ChargeRefused.__name__}: ")


class _StageHandler(logging.Handler):
    """Print one line when an asset starts. Asset checks are not named."""

    def __init__(self, assets: Set[str]) -> None:
        super().__init__()
        self._assets = assets

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is not None and event.event_type_value == "STEP_START" and event.step_key in self._assets:
            print(f"== {event.step_key}", file=sys.stderr, flush=True)


def _stages(context: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("dp_instructions")
    keys = context.job_def.asset_layer.executable_asset_keys if context.job_def is not None else ()
    logger.addHandler(_StageHandler({key.to_python_identifier() for key in keys}))
    return logger


stage_logger = dg.LoggerDefinition(_stages, description="Names each asset as it starts, and nothing else.")
"""The console logger of the code location; Dagster's own prints every engine event."""
