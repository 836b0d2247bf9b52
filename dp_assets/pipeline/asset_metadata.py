"""The metadata of a materialization beside the asset's own figures: privacy metadata, provenance and data version.

The asset decorator (`pipeline/asset.py`) calls this module. It does not depend on how values are stored.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import dagster as dg

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table, union_of_ids
from dp_assets.pipeline.corpus import registration_of
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import LABEL_METADATA, Label, Zone, zone
from dp_assets.settings.profile import Profile
from dp_assets.vocabulary import Partition
from resources.ledger.ledger_resource import Ledger
from resources.public_failure import PublicFailure
from resources.storage.stores import BoundaryViolation, OpenRows

Value = TypeVar("Value", Table, Adapter, Document)
FiguresOfPublicRows = Callable[[PrivateTable], Mapping[str, Any]]


@dataclass(frozen=True)
class AssetValue(Generic[Value]):
    """The value that the body of a mechanism or of a released asset returns, and public figures about it.

    The body of a private asset returns only its `PrivateTable`, because no figure of its rows may be shown.
    """

    value: Value
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MadeUnder:
    """The ledger and the profile of a materialization, and a digest of the settings that decide this asset alone.

    `own_settings` is the profile's `own_digest` of the asset. It is computed before a file that it covers is read.
    """

    ledger: Ledger
    profile: Profile
    own_settings: str | None


def no_figures(table: PrivateTable) -> Mapping[str, Any]:
    """Return no figures: the default for the rows of a public source."""
    return {}


def materialized(
    context: dg.AssetExecutionContext,
    returned: AssetValue[Any] | PrivateTable,
    *,
    inputs: Iterable[Any],
    under: MadeUnder,
    of_public_rows: FiguresOfPublicRows,
) -> dg.MaterializeResult[Any]:
    """Return the value of a body with the metadata that its label requires.

    Args:
      context: the context of the asset that runs.
      returned: what the body returned.
      inputs: everything that the body received; the artifacts among them give the lineage.
      under: the ledger and the profile.
      of_public_rows: computes figures from the rows of a private asset whose source is public.

    Raises:
      OpenRows: a private asset returned something else than a private table.
      BoundaryViolation: another asset returned a private table.
      PrivateFigure: figures of a private table are not listed.
      FurtherFigure: a mechanism shows a figure that is not declared.
      PublicFailure: the value descends from charges that its figures could not state.
    """
    asset = context.asset_key.to_user_string()
    label = Label(context.assets_def.metadata_by_key[context.asset_key][LABEL_METADATA])
    if label is Label.PRIVATE:
        if not isinstance(returned, PrivateTable):
            raise OpenRows(asset)
        return _private_result(context, returned, under, of_public_rows)
    if isinstance(returned, PrivateTable):
        raise BoundaryViolation(asset)
    return _released_result(context, with_lineage(returned, inputs), label, under)


def with_lineage(returned: AssetValue[Value], inputs: Iterable[Any]) -> AssetValue[Value]:
    """Return the value with its own charge ids and those of every input, so that no body can lose a charge.

    An input that was read over several partitions is a dict of artifacts. Private tables have no charge.
    """
    artifacts = [each for one in inputs for each in (one.values() if isinstance(one, Mapping) else [one])]
    released = [each for each in artifacts if isinstance(each, Table | Adapter | Document)]
    value = replace(returned.value, charge_ids=union_of_ids(returned.value, *released))
    return replace(returned, value=value)


def _released_result(
    context: dg.AssetExecutionContext, returned: AssetValue[Any], label: Label, under: MadeUnder
) -> dg.MaterializeResult[Any]:
    """Return the value of a mechanism or of a released asset with its privacy metadata and its own public figures.

    An asset without partitions has no cohort and no level of its own, only those of the artifacts it was made from.
    """
    partition = None if context.assets_def.partitions_def is None else Partition.of(context)
    cohort, level = (partition.cohort, partition.level) if partition else (None, None)
    registration = registration_of(under.ledger, under.profile)
    try:
        privacy = metadata.artifact_metadata(
            under.ledger.state(),
            registration,
            label=label,
            cohort=cohort,
            level=level,
            charge_ids=returned.value.charge_ids,
        )
    except metadata.ForeignLineage as refusal:
        raise PublicFailure(str(refusal)) from None
    if label is Label.MECHANISM:
        metadata.check_mechanism_keys(context.asset_key.to_user_string(), returned.figures)
    shown = returned.figures if zone(label, level) is Zone.RELEASED else numbers(returned.figures)
    decided_by = {
        metadata.PROFILE: under.profile.digest,
        metadata.CORPUS: registration.corpus_id,
        metadata.OWN_SETTINGS: under.own_settings,
    }
    made_under = {name: digest for name, digest in decided_by.items() if digest is not None}
    return dg.MaterializeResult(value=returned.value, metadata={**made_under, **privacy, **shown})


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that are numbers, without texts and pictures.

    Artifacts of the level no-dp must stay in the private zone, and the event log lies outside it.
    """
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


def _private_result(
    context: dg.AssetExecutionContext, value: PrivateTable, under: MadeUnder, of_public_rows: FiguresOfPublicRows
) -> dg.MaterializeResult[PrivateTable]:
    """Return the value of a private asset with its terms and the public name of its snapshot.

    This metadata depends on no row. `of_public_rows` computes further metadata from the rows. It is called only if the
    owner registered the source of the rows as public.
    """
    registration = registration_of(under.ledger, under.profile)
    terms = metadata.private_metadata(registration)
    decided_by = {metadata.PROFILE: under.profile.digest, metadata.CORPUS: registration.corpus_id}
    shown = {**decided_by, metadata.SNAPSHOT: value.snapshot, **terms}
    metadata.check_private_keys(shown)
    if registration.is_public and value.corpus_id == registration.corpus_id:
        figures = of_public_rows(value)
        shown |= {**figures, metadata.PUBLIC_SOURCE: True} if figures else {}
    version = private_version(
        profile=under.profile.digest,
        corpus_id=value.corpus_id,
        snapshot=value.snapshot,
        code_version=context.assets_def.code_versions_by_key[context.asset_key],
    )
    return dg.MaterializeResult(value=value, metadata=shown, data_version=dg.DataVersion(version))


def private_version(*, profile: str, corpus_id: str, snapshot: str, code_version: str | None) -> str:
    """Return the data version of a private table: a hash of the public names that decide its rows, and of no row.

    The ledger binds a snapshot to its rows. So a table that is made again under the same names holds the same rows, and
    what was made from it stays current.
    """
    names = json.dumps([profile, corpus_id, snapshot, code_version])
    return hashlib.sha256(names.encode()).hexdigest()[:16]
