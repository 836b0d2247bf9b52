"""What a privacy statement says besides the ledger: evidence, and code, configuration and artifacts by hash."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from dp_assets.artifacts import Adapter, Table
from dp_assets.privacy.labels import Label
from dp_assets.privacy.ledger import LedgerState
from dp_assets.settings.profile import Profile
from dp_assets.statements.history import CohortHistory
from dp_assets.statements.statement import digest_of
from dp_assets.vocabulary import Partition
from resources.storage.artifact_files import stored_charge_ids
from resources.storage.digests import code_digest, file_digests
from resources.storage.stores import artifact_folder

PRIVATE_OF_AN_ENDPOINT = {"base_url", "extra_body", "api_key_variable"}
PLACES_OF_A_SOURCE = ("path", "dataset", "subset", "revision", "query", "url_variable")


def evidence_of(state: LedgerState, releases: Mapping[str, Table | Adapter]) -> dict[str, Any]:
    """The evidence that releases carry, by the charge each was made under. `releases` are named by their mechanism."""
    return {
        charge_id: release.record["evidence"]
        for mechanism, release in releases.items()
        for charge_id in release.charge_ids
        if "evidence" in release.record
        and charge_id in state.charges
        and state.charges[charge_id].mechanism == mechanism
    }


def pictures(
    statement: Mapping[str, Any], histories: Sequence[CohortHistory], partition: Partition
) -> dict[str, dg.MetadataValue[Any]]:
    """The trade-off curve and the spending of the cohorts for the asset's page."""
    from dp_assets.reports.pictures import epsilon_drawing, tradeoff_drawing

    spent = epsilon_drawing(histories, own=partition.cohort, budget=statement["budget"]["epsilon"])
    drawings = {"trade_off": tradeoff_drawing(statement), "epsilon_spent": spent}
    return {name: dg.MetadataValue.md(drawing.markdown()) for name, drawing in drawings.items()}


def provenance(
    profile: Profile, home: Path, partition: Partition, made_from: Mapping[str, Table | Adapter]
) -> dict[str, Any]:
    """The `code` and `configuration` of a statement, and the `files` of what it was `made_from` by asset.

    Raises:
      dg.Failure: one of them was replaced since it was handed over.
    """
    settings = public_settings(profile)
    return {
        "code": code_digest(),
        "configuration": {"profile_digest": profile.digest, "sha256": digest_of(settings), "profile": settings},
        "files": released_files(home, partition, made_from),
    }


def public_settings(profile: Profile) -> dict[str, Any]:
    """Every setting but places of files and endpoints, and what may hold a secret of theirs.

    The place of the source is kept in the ledger, as a keyed hash only.
    """
    places: Any = {
        "corpus": {"source": set(PLACES_OF_A_SOURCE)},
        "annotation": {"path": True, "endpoint": PRIVATE_OF_AN_ENDPOINT},
        "preferences": {"path": True, "judge": PRIVATE_OF_AN_ENDPOINT},
    }
    return profile.model_dump(mode="json", exclude=places)


def released_files(home: Path, partition: Partition, made_from: Mapping[str, Table | Adapter]) -> dict[str, str]:
    """The digest of each file of these assets, by its place below `artifacts`. A run in memory leaves no files.

    Raises:
      dg.Failure: a folder holds something of other charges than what was handed over.
    """
    key = f"{partition.cohort}|{partition.level}"
    digests: dict[str, str] = {}
    for asset, artifact in made_from.items():
        folder = artifact_folder(home, [asset], Label.RELEASED, key)
        if not folder.is_dir():
            continue
        if set(stored_charge_ids(folder)) != set(artifact.charge_ids):
            raise dg.Failure(f"{asset} was replaced while the statement was made; materialize privacy_statement again")
        digests |= file_digests(folder, below=folder.parents[2])
    return digests
