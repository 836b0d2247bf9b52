"""Where artifacts lie, and who may read them.

    <home>/<zone>/artifacts/<asset>[/<cohort>/<level>]/     the newest materialization, kept by the IO manager
    <home>/<zone>/releases/<asset>/<reuse key>/             every output of a mechanism, for reuse at no cost

The zone follows from the asset's label and privacy level. A released asset is never handed a private table.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from dp_assets.artifacts import PrivateTable
from dp_assets.privacy.labels import LABEL_METADATA, TAG, Label, Zone, may_read_private, zone
from resources.artifact_files import Artifact, read_artifact, write_artifact
from resources.zones import atomic_folder


class BoundaryViolation(dg.Failure):
    """A private artifact was about to cross into the released zone."""

    def __init__(self, asset: str) -> None:
        super().__init__(
            description=f"the asset {asset} is labelled released and may not hold or read a private table; only a"
            " mechanism may read one, and only a private asset may hold one",
            allow_retries=False,
        )


class ArtifactStore(dg.ConfigurableIOManager):
    """The IO manager of every asset: one folder an artifact, replaced as a whole."""

    home: str

    def handle_output(self, context: dg.OutputContext, obj: Artifact) -> None:
        """Store the value of an asset in the zone of its label and level."""
        label = _label(context)
        if isinstance(obj, PrivateTable) and zone(label, _level(context)) is not Zone.PRIVATE:
            raise BoundaryViolation(context.asset_key.to_user_string())
        folder = self._folder(context, _partition(context))
        with atomic_folder(folder, zone(label, _level(context))) as temporary:
            write_artifact(temporary, obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """The artifact an asset asks for; a dict by partition key when it reads several partitions."""
        upstream = context.upstream_output
        if upstream is None:
            raise dg.DagsterInvariantViolationError("artifacts are loaded for assets only")
        keys: list[str | None] = list(context.asset_partition_keys) if context.has_asset_partitions else [None]
        loaded = {key: read_artifact(self._folder(upstream, key)) for key in keys}
        if any(isinstance(artifact, PrivateTable) for artifact in loaded.values()):
            self._check_reader(context)
        return loaded if len(keys) > 1 else loaded[keys[0]]

    def _check_reader(self, context: dg.InputContext) -> None:
        reader = context.op_def
        if reader is None or not may_read_private(Label(reader.tags.get(TAG, Label.RELEASED))):
            raise BoundaryViolation(reader.name if reader else "(unknown)")

    def _folder(self, context: dg.OutputContext, partition: str | None) -> Path:
        return artifact_folder(Path(self.home), context.asset_key.path, _label(context), partition)


def artifact_folder(home: Path, asset: Sequence[str], label: Label, partition: str | None) -> Path:
    """Where the newest artifact of an asset lies; `cohort` and `level` become two path parts."""
    parts = partition.split("|") if partition else []
    return home.joinpath(zone(label, parts[-1] if parts else None), "artifacts", *asset, *parts)


class ReleaseStore(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Every output of a mechanism under the key of what decided it, so that asking again costs nothing."""

    home: str

    def folder(self, mechanism: str, level: str, reuse_key: str) -> Path:
        return Path(self.home) / zone(Label.MECHANISM, level) / "releases" / mechanism / reuse_key

    def save(self, mechanism: str, level: str, reuse_key: str, release: Artifact) -> None:
        """Store a release durably, before its charge is settled."""
        with atomic_folder(self.folder(mechanism, level, reuse_key), zone(Label.MECHANISM, level)) as temporary:
            write_artifact(temporary, release)

    def load(self, mechanism: str, level: str, reuse_key: str) -> Artifact:
        """A stored release.

        Raises:
          UnreadableArtifact: it was deleted.
        """
        return read_artifact(self.folder(mechanism, level, reuse_key))

    def has(self, mechanism: str, level: str, reuse_key: str) -> bool:
        return self.folder(mechanism, level, reuse_key).exists()


def _label(context: dg.OutputContext) -> Label:
    """From the asset's definition metadata, which Dagster also hands over for an upstream asset outside the run."""
    return Label(context.definition_metadata[LABEL_METADATA])


def _partition(context: dg.OutputContext) -> str | None:
    """The asset's own partition; an unpartitioned output of a partitioned run has none, though the run has one."""
    return context.asset_partition_key if context.has_asset_partitions else None


def _level(context: dg.OutputContext) -> str | None:
    partition = _partition(context)
    return partition.split("|")[-1] if partition else None
