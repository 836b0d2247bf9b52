"""The stores of artifacts and releases, and the rules on who may read them.

    <home>/<zone>/artifacts/<asset>[/<cohort>/<level>]/     the newest materialization, written by the IO manager
    <home>/<zone>/releases/<asset>/<reuse key>/             every output of a mechanism, for reuse at no cost

The zone follows from the asset's label and privacy level.

- A private asset makes a private table, which is never passed to a released asset.
- An artifact made without noise (level `no-dp`) is never passed to an asset of the released zone.
- An artifact is stored only with the charge ids of everything that was read to make it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from dp_assets.artifacts import CONTENT, Adapter, PrivateTable, Table, content_digest, union_of_ids
from dp_assets.privacy.labels import LABEL_METADATA, NO_DP, TAG, Label, Zone, may_read_private, zone
from dp_assets.privacy.ledger_state import ERASED_SUFFIX
from dp_assets.privacy.metadata import check_private_keys
from dp_assets.vocabulary import Partition
from resources.ledger.ledger_file import LedgerFile
from resources.private.private_step import private_step
from resources.public_failure import PublicFailure
from resources.storage.allowed_files import check_files, require_declared_content
from resources.storage.artifact_files import Artifact, UnreadableArtifact, read_artifact, read_kept, write_artifact
from resources.storage.room import room_in
from resources.storage.zones import atomic_folder, folders_in_place

COLUMNS_METADATA = "dagster/column_schema"
"""The metadata key under which Dagster stores and shows the columns of a table."""


class BoundaryViolation(PublicFailure):
    """A private artifact was about to cross into the released zone."""

    def __init__(self, asset: str) -> None:
        super().__init__(
            f"the asset {asset} is labeled released and may not hold or read a private table; only a"
            " mechanism may read one, and only a private asset may hold one"
        )


class OpenRows(PublicFailure):
    """A private asset's value was about to be stored in a form that any reader may open."""

    def __init__(self, asset: str) -> None:
        super().__init__(
            f"the asset {asset} is labeled private, so its value must be a PrivateTable, whose rows only a"
            " charge opens; put its rows into one"
        )


class UnprotectedInput(PublicFailure):
    """An artifact made without noise was about to be read for the released zone."""

    def __init__(self, asset: str) -> None:
        super().__init__(
            f"{asset} lies in the released zone and may not read what was made at the level no-dp; read"
            " other levels only (a partition mapping says which), or make it at the level no-dp"
        )


class LineageLost(PublicFailure):
    """An artifact was about to be stored without the charges of everything that was read to make it."""

    def __init__(self, asset: str) -> None:
        super().__init__(
            f"{asset} read artifacts whose charge ids its own value lacks, so its epsilon would be too"
            " small; pass the ids of all inputs on with union_of_ids"
        )


class OtherContent(PublicFailure):
    """A release, read back as stored, differs from what was observed while it was made."""

    def __init__(self, asset: str, digest: str) -> None:
        super().__init__(
            f"what was stored of {asset} is not what was observed while it was made, so it was removed;"
            " find out what changed it on the way"
        )
        self.digest = digest


class RowsErased(PublicFailure):
    """An artifact made from exact rows was about to be stored, and may hold a unit that was erased since."""

    def __init__(self, asset: str) -> None:
        super().__init__(
            f"a unit was erased while {asset} was made, so it was not stored; materialize it again, and"
            " real_instructions before it"
        )


class ArtifactStore(dg.ConfigurableIOManager):
    """The IO manager of every asset: one folder per artifact, replaced as a whole."""

    home: str
    _read: dict[tuple[str, str], set[str]] = PrivateAttr(default_factory=dict)  # charge ids, by run and step

    def handle_output(self, context: dg.OutputContext, obj: Artifact) -> None:
        """Store the value of an asset in the zone of its label and level.

        Raises:
          BoundaryViolation: an asset that is not private holds a private table.
          OpenRows: a private asset holds anything else.
          PrivateFigure: a private table comes with metadata beyond the allow-list.
          LineageLost: the artifact lacks the charge ids of an artifact that the asset read.
          UnexpectedFile: a released artifact has a file that its kind does not have.
          UnexpectedContent: a released artifact has an undeclared column, tensor or key.
          OtherContent: a release, as stored, differs from what was observed.
          RowsErased: a unit of the private table's corpus was erased since the rows were read.
          NoRoom: the disk is full; the former artifact is still there.
        """
        label, asset = _label(context), context.asset_key.to_user_string()
        target_zone = zone(label, _level(context))
        if isinstance(obj, PrivateTable):
            if target_zone is not Zone.PRIVATE:
                raise BoundaryViolation(asset)
            check_private_keys(context.output_metadata or {})
        elif label is Label.PRIVATE:
            raise OpenRows(asset)
        elif self._read.pop((context.run_id, context.step_key), set()) - set(obj.charge_ids):
            raise LineageLost(asset)
        folder, columns = self._folder(context, _partition(context)), _columns(context)
        _store(folder, obj, Path(self.home), target_zone, asset=asset, columns=columns)
        if isinstance(obj, PrivateTable):
            obj.drop_held()

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the artifact that an asset reads; a dict by partition key when it reads several partitions.

        Raises:
          BoundaryViolation: a released asset or a check reads a private table.
          UnprotectedInput: an asset of the released zone reads an artifact made without noise.
          UnreadableArtifact: there is no such artifact.
        """
        upstream = context.upstream_output
        if upstream is None:
            raise dg.DagsterInvariantViolationError("artifacts are loaded for assets only")
        keys: list[str | None] = list(context.asset_partition_keys) if context.has_asset_partitions else [None]
        if any(_level_of(key) == NO_DP for key in keys) and _reader_zone(context) is Zone.RELEASED:
            raise UnprotectedInput(context.op_def.name)
        loaded = {key: self._stored(upstream, key) for key in keys}
        if any(isinstance(artifact, PrivateTable) for artifact in loaded.values()):
            self._check_reader(context)
        step = (context.step_context.run_id, context.step_context.step.key)
        self._read.setdefault(step, set()).update(union_of_ids(*map(_charge_ids, loaded.values())))
        return loaded if len(keys) > 1 else loaded[keys[0]]

    def _stored(self, upstream: dg.OutputContext, partition: str | None) -> Artifact:
        folder = self._folder(upstream, partition)
        if folder.parent.is_dir():
            with folders_in_place(folder.parent):
                if folder.is_dir():
                    return read_kept(folder, Path(self.home) / Zone.PRIVATE)
        asset, of = upstream.asset_key.to_user_string(), f" for {partition}" if partition else ""
        raise UnreadableArtifact(f"{asset} was not made yet{of}, or was deleted; materialize it first")

    def _check_reader(self, context: dg.InputContext) -> None:
        if not may_read_private(_reader_label(context)):
            raise BoundaryViolation(context.op_def.name)

    def _folder(self, context: dg.OutputContext, partition: str | None) -> Path:
        return artifact_folder(Path(self.home), context.asset_key.path, _label(context), partition)


def artifact_folder(home: Path, asset: Sequence[str], label: Label, partition: str | None) -> Path:
    """Return the folder of the newest artifact of an asset; `cohort` and `level` become two path parts."""
    folder = home.joinpath(zone(label, _level_of(partition)), "artifacts", *asset)
    return folder / Partition.named(partition).path if partition else folder


class ReleaseStore(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Every output of a mechanism under the key of what decided it, so that making it again costs nothing."""

    home: str

    def folder(self, mechanism: str, level: str, reuse_key: str) -> Path:
        """Where a release is stored."""
        return Path(self.home) / zone(Label.MECHANISM, level) / "releases" / mechanism / reuse_key

    def save(self, mechanism: str, level: str, reuse_key: str, release: Artifact) -> None:
        """Store a release durably, before its charge is settled.

        Raises:
          OtherContent: the release, as stored, differs from what was observed; nothing is kept.
        """
        target_zone = zone(Label.MECHANISM, level)
        _store(self.folder(mechanism, level, reuse_key), release, Path(self.home), target_zone, asset=mechanism)

    def load(self, mechanism: str, level: str, reuse_key: str) -> Artifact:
        """Return a stored release.

        Raises:
          UnreadableArtifact: it was deleted.
        """
        return read_artifact(self.folder(mechanism, level, reuse_key))

    def has(self, mechanism: str, level: str, reuse_key: str) -> bool:
        """Whether a release is stored."""
        return self.folder(mechanism, level, reuse_key).exists()


def _store(
    folder: Path,
    artifact: Artifact,
    home: Path,
    target_zone: Zone,
    *,
    asset: str,
    columns: Mapping[str, str] | None = None,
) -> None:
    """Write an artifact as a whole. `columns` are the columns that a released table must have; None skips the check.

    An artifact of the private zone may hold exact rows, and may compute them only while it is written. So the output of
    that step stays private, and nothing is stored if a unit was erased meanwhile.
    """
    if target_zone is Zone.RELEASED:
        with room_in(home), atomic_folder(folder, target_zone) as temporary:
            write_artifact(temporary, artifact)
            check_files(temporary, type(artifact))
            _check_observed(temporary, artifact, asset)
            require_declared_content(temporary, type(artifact), asset=asset, columns=columns)
        return
    root = home / target_zone
    with private_step(str(root)):
        if not _holds_present_units(LedgerFile(root), artifact):
            raise RowsErased(asset)
        with atomic_folder(folder, target_zone) as temporary:
            write_artifact(temporary, artifact)
            _check_observed(temporary, artifact, asset)


def _check_observed(folder: Path, artifact: Artifact, asset: str) -> None:
    """Compare a release, read back from its folder, with what was observed while it was made.

    Raises:
      OtherContent: the two differ.
    """
    if not isinstance(artifact, Table | Adapter) or CONTENT not in artifact.record:
        return
    stored = read_artifact(folder)
    digest = content_digest(stored) if isinstance(stored, Table | Adapter) else ""
    if digest != artifact.record[CONTENT]:
        raise OtherContent(asset, digest)


def _holds_present_units(ledger: LedgerFile, artifact: Artifact) -> bool:
    """Return whether no unit was erased since the artifact's rows were read: a snapshot's name counts erasures."""
    if not ledger.is_used():
        return True
    state = ledger.state()
    if isinstance(artifact, PrivateTable):
        read = {(artifact.corpus_id, artifact.snapshot)}
    else:
        charges = (state.charges[charge_id] for charge_id in artifact.charge_ids if charge_id in state.charges)
        read = {(charge.corpus_id, charge.snapshot) for charge in charges}
    return all(state.snapshot(corpus, name.partition(ERASED_SUFFIX)[0]) == name for corpus, name in read)


def _charge_ids(artifact: Artifact) -> tuple[str, ...]:
    return () if isinstance(artifact, PrivateTable) else artifact.charge_ids


def _label(context: dg.OutputContext) -> Label:
    """Return the label in the asset's definition metadata, which Dagster also passes for assets outside the run."""
    return Label(context.definition_metadata[LABEL_METADATA])


def _partition(context: dg.OutputContext) -> str | None:
    """Return the asset's own partition. An unpartitioned output of a partitioned run has none."""
    return context.asset_partition_key if context.has_asset_partitions else None


def _columns(context: dg.OutputContext) -> dict[str, str]:
    """Return the types of the declared columns of an asset's table, by name; empty if it declares none."""
    declared = context.definition_metadata.get(COLUMNS_METADATA)
    return {} if declared is None else {column.name: column.type for column in declared.columns}


def _level(context: dg.OutputContext) -> str | None:
    return _level_of(_partition(context))


def _level_of(partition: str | None) -> str | None:
    return Partition.named(partition).level if partition else None


def _reader_label(context: dg.InputContext) -> Label:
    """Return the label in the reading asset's op tag. Readers without one, such as checks, count as released."""
    return Label(context.op_def.tags.get(TAG, Label.RELEASED))


def _reader_zone(context: dg.InputContext) -> Zone:
    """Return the zone of the reader's own artifact. A reader without partitions has no level, though its run may."""
    reader = context.step_context.assets_def
    is_partitioned = reader is not None and reader.partitions_def is not None
    return zone(_reader_label(context), _level_of(context.partition_key) if is_partitioned else None)
