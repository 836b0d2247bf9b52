"""The metadata of an asset's value: what a privacy label requires beside the asset's own figures."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table
from dp_assets.pipeline.corpus import registration_of
from dp_assets.pipeline.partitions import Partition
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import LABEL_METADATA, Label, Zone, zone
from dp_assets.settings.profile import Profile
from resources.ledger.charging import Ledger
from resources.public_failure import PublicFailure


def result(
    context: dg.AssetExecutionContext,
    value: Table | Adapter | Document,
    *,
    ledger: Ledger,
    profile: Profile,
    extra: Mapping[str, Any],
    own_settings: str | None = None,
) -> dg.MaterializeResult[Any]:
    """The value of a mechanism or of an asset below one, with its privacy metadata and `extra` public figures.

    `own_settings` is the profile's `own_digest` of this asset, taken before a file that it covers was read.
    An asset without partitions belongs to no cohort and no level itself, only to those that it was made from.
    """
    partition = None if context.assets_def.partitions_def is None else Partition.of(context)
    cohort, level = (partition.cohort, partition.level) if partition else (None, None)
    label = Label(context.assets_def.metadata_by_key[context.asset_key][LABEL_METADATA])
    registration = registration_of(ledger, profile)
    try:
        figures = metadata.artifact_metadata(
            ledger.state(),
            registration,
            label=label,
            cohort=cohort,
            level=level,
            charge_ids=value.charge_ids,
        )
    except metadata.ForeignLineage as refusal:
        raise PublicFailure(str(refusal)) from None
    if label is Label.MECHANISM:
        metadata.check_mechanism_keys(context.asset_key.to_user_string(), extra)
    shown = extra if zone(label, level) is Zone.RELEASED else numbers(extra)
    decided_by = {
        metadata.PROFILE: profile.digest,
        metadata.CORPUS: registration.corpus_id,
        metadata.OWN_SETTINGS: own_settings,
    }
    made_under = {name: digest for name, digest in decided_by.items() if digest is not None}
    return dg.MaterializeResult(value=value, metadata={**made_under, **figures, **shown})


def numbers(extra: Mapping[str, Any]) -> dict[str, float]:
    """The figures without texts and pictures: the event log lies outside the private zone, where no-dp must stay."""
    return {name: value for name, value in extra.items() if isinstance(value, int | float)}


def private_result(
    context: dg.AssetExecutionContext,
    value: PrivateTable,
    *,
    ledger: Ledger,
    profile: Profile,
    of_public_rows: Callable[[PrivateTable], Mapping[str, Any]] = lambda table: {},
) -> dg.MaterializeResult[PrivateTable]:
    """The value of a private asset, with its terms and its snapshot's public name: nothing that depends on a row.

    `of_public_rows` makes further metadata from the rows. It is called only where the owner registered the rows' source
    as public, so that there is nothing to hide.
    """
    registration = registration_of(ledger, profile)
    terms = metadata.private_metadata(registration)
    decided_by = {metadata.PROFILE: profile.digest, metadata.CORPUS: registration.corpus_id}
    shown = {**decided_by, metadata.SNAPSHOT: value.snapshot, **terms}
    metadata.check_private_keys(shown)
    if registration.is_public and value.corpus_id == registration.corpus_id:
        figures = of_public_rows(value)
        shown |= {**figures, metadata.PUBLIC_SOURCE: True} if figures else {}
    version = private_version(
        profile=profile.digest,
        corpus_id=value.corpus_id,
        snapshot=value.snapshot,
        code_version=context.assets_def.code_versions_by_key[context.asset_key],
    )
    return dg.MaterializeResult(value=value, metadata=shown, data_version=dg.DataVersion(version))


def private_version(*, profile: str, corpus_id: str, snapshot: str, code_version: str | None) -> str:
    """The data version of a private table: a hash of the public names that decide its rows, and of no row.

    The ledger ties a snapshot to its rows, so a table that was made again under the same names holds the same rows, and
    nothing that was made from it is out of date.
    """
    names = json.dumps([profile, corpus_id, snapshot, code_version])
    return hashlib.sha256(names.encode()).hexdigest()[:16]
