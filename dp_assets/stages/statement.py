"""Contents of a privacy statement that are not in the ledger: evidence, and digests of code, settings and artifacts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from dp_assets.artifacts import Adapter, Table
from dp_assets.privacy.labels import Label
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.settings.profile import Profile
from dp_assets.statements.history import CohortHistory
from dp_assets.statements.statement import digest_of
from dp_assets.vocabulary import Partition
from resources.public_failure import PublicFailure
from resources.storage.artifact_files import stored_charge_ids
from resources.storage.digests import code_digest, file_digests
from resources.storage.stores import artifact_folder

PRIVATE_OF_AN_ENDPOINT = {"base_url", "extra_body", "api_key_variable"}
PLACES_OF_A_SOURCE = ("path", "dataset", "subset", "revision", "query", "url_variable")


def evidence_of(state: LedgerState, releases: Mapping[str, Table | Adapter]) -> dict[str, Any]:
    """Return the evidence of releases, by the charge under which each was made.

    `releases` maps the name of a mechanism to its release.
    """
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
    """Return pictures of the trade-off curve and of the spending of the cohorts as metadata."""
    from dp_assets.reports.pictures import epsilon_drawing, tradeoff_drawing

    spent = epsilon_drawing(histories, own=partition.cohort, budget=statement["budget"]["epsilon"])
    drawings = {"trade_off": tradeoff_drawing(statement), "epsilon_spent": spent}
    return {name: dg.MetadataValue.md(drawing.markdown()) for name, drawing in drawings.items()}


def provenance(
    profile: Profile, home: Path, partition: Partition, made_from: Mapping[str, Table | Adapter]
) -> dict[str, Any]:
    """Return the `code`, the `configuration` and the `files` of a statement.

    `made_from` maps the name of an asset to the artifact that the statement is made from.

    Raises:
      PublicFailure: an artifact was replaced after it was loaded.
    """
    settings = public_settings(profile)
    return {
        "code": code_digest(),
        "configuration": {"profile_digest": profile.digest, "sha256": digest_of(settings), "profile": settings},
        "files": released_files(home, partition, made_from),
    }


def public_settings(profile: Profile) -> dict[str, Any]:
    """Return every setting except paths, addresses of endpoints and sources, and what may hold a secret of theirs.

    The ledger keeps the location of the source, as a keyed hash only.
    """
    places: Any = {
        "corpus": {"source": set(PLACES_OF_A_SOURCE)},
        "annotation": {"path": True, "endpoint": PRIVATE_OF_AN_ENDPOINT},
        "preferences": {"path": True, "judge": PRIVATE_OF_AN_ENDPOINT},
    }
    return profile.model_dump(mode="json", exclude=places)


def released_files(home: Path, partition: Partition, made_from: Mapping[str, Table | Adapter]) -> dict[str, str]:
    """Return the digest of each file of these assets, by its path below `artifacts`. A run in memory leaves no files.

    Raises:
      PublicFailure: the artifact in a folder has other charges than the artifact that was loaded.
    """
    key = f"{partition.cohort}|{partition.level}"
    digests: dict[str, str] = {}
    for asset, artifact in made_from.items():
        folder = artifact_folder(home, [asset], Label.RELEASED, key)
        if not folder.is_dir():
            continue
        if set(stored_charge_ids(folder)) != set(artifact.charge_ids):
            raise PublicFailure(f"{asset} was replaced while it was stated; materialize privacy_statement again")
        digests |= file_digests(folder, below=folder.parents[2])
    return digests
