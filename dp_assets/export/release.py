"""The release behind an export: the artifacts of one partition, complete, current and covered by their statement."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_assets.export.parts import STATEMENT, ExportRefused, Part, lacking
from dp_assets.privacy.labels import NO_DP, Label, Zone, zone
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.statements.against_ledger import untrue
from dp_assets.statements.figures import joint_figures
from dp_assets.vocabulary import Partition
from resources.storage.artifact_files import stored_charge_ids
from resources.storage.stores import artifact_folder


@dataclass(frozen=True)
class Release:
    """The folders of an export's parts with their privacy cost.

    costs        the cost of each part's lineage alone
    together     that of all parts: composition over the union of their charges
    out_of_date  assets that are exported as stored although a run would make them again
    found        the identity of each folder, which differs from that of a folder a later run puts in its place
    """

    partition: str
    folders: Mapping[Part, Path]
    statement: Mapping[str, Any]
    costs: Mapping[Part, Mapping[str, Any]]
    together: Mapping[str, Any]
    out_of_date: tuple[str, ...]
    found: Mapping[Path, tuple[int, int]]


def asset_folder(home: Path, asset: str, partition: str) -> Path:
    """Return the folder of an asset's released artifact.

    Raises:
      ExportRefused: it is in the private zone.
    """
    if zone(Label.RELEASED, Partition.named(partition).level) is not Zone.RELEASED:
        raise ExportRefused(f"{partition}: what was made at the level {NO_DP} has no guarantee and is never exported")
    return artifact_folder(home, [asset], Label.RELEASED, partition)


def gather(
    home: Path,
    state: LedgerState,
    partition: str,
    parts: Sequence[Part],
    *,
    stale: Collection[str],
    as_stored: bool,
    verified: Callable[[Path], Mapping[str, Any]],
) -> Release:
    """Return the release of a partition.

    Args:
      home: the data folder.
      state: the ledger.
      partition: the cohort and level.
      parts: what to export.
      stale: the assets that a run would make again.
      as_stored: whether assets that are out of date are exported all the same.
      verified: returns the statement in a folder, built anew; raises `ExportRefused` if it does not verify.

    Raises:
      ExportRefused: the level is no-dp; an artifact is missing, out of date (unless `as_stored`) or not covered by the
        statement; or the statement does not verify or no longer agrees with the ledger.
    """
    assets = (*(part.asset for part in parts), STATEMENT)
    folders = {asset: asset_folder(home, asset, partition) for asset in assets}
    remedy = f"run `dp-instructions run '{partition}'` first"
    if missing := [asset for asset, folder in folders.items() if not folder.is_dir()]:
        raise ExportRefused(f"{partition} has no {', '.join(missing)}; {remedy}")
    outdated = tuple(asset for asset in assets if asset in stale)
    if outdated and not as_stored:
        raise ExportRefused(
            f"out of date: {', '.join(outdated)}; {remedy}, or export what is stored, and say so, with --as-stored"
        )
    found = identities(folders.values())
    statement = verified(folders[STATEMENT])
    ids = {part: stored_charge_ids(folders[part.asset]) for part in parts}
    _check_covered(statement, ids, remake(folders[STATEMENT], partition))
    _check_current(state, statement, remake(folders[STATEMENT], partition))
    for part, own in ids.items():
        _check_complete(statement, part, own, remake(folders[part.asset], partition))
    return Release(
        partition=partition,
        folders={part: folders[part.asset] for part in parts},
        statement=statement,
        costs={part: joint_figures(statement, own) for part, own in ids.items()},
        together=joint_figures(statement, statement["ledger"]["charge_ids"]),
        out_of_date=outdated,
        found=found,
    )


def remake(folder: Path, partition: str) -> str:
    """Return how to have one artifact made again."""
    return f"delete {folder} and run `dp-instructions run '{partition}'`"


def identities(folders: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Return the identity of each folder now. A run that makes an artifact again puts another folder in its place."""
    return {folder: (status.st_ino, status.st_mtime_ns) for folder in folders for status in [folder.stat()]}


def _check_covered(statement: Mapping[str, Any], ids: Mapping[Part, Sequence[str]], remedy: str) -> None:
    covered = set(statement["ledger"]["charge_ids"])
    if beyond := [part.asset for part, own in ids.items() if set(own) - covered]:
        raise ExportRefused(
            f"{', '.join(beyond)} descends from a charge that the privacy statement does not cover, so they were made"
            f" from different releases; {remedy}"
        )


def _check_complete(statement: Mapping[str, Any], part: Part, ids: Collection[str], remedy: str) -> None:
    """Check that an artifact's charges include every mechanism that the asset graph has upstream of it."""
    if lacks := lacking(part.asset, mechanisms_of_charges(statement, ids)):
        raise ExportRefused(
            f"{part.asset} names no charge of {', '.join(lacks)}, from which every artifact of it descends, so what is"
            f" stored was changed; {remedy}"
        )


def mechanisms_of_charges(statement: Mapping[str, Any], ids: Collection[str]) -> set[str]:
    """Return the mechanisms of these charges, as the statement names them."""
    return {charge["mechanism"] for charge in statement["charges"] if charge["charge_id"] in ids}


def _check_current(state: LedgerState, statement: Mapping[str, Any], remedy: str) -> None:
    """Check that the statement agrees with the ledger, which changes when a budget is raised or a run is charged."""
    if wrong := "; ".join(untrue(statement, state)):
        raise ExportRefused(
            f"the ledger has changed since the privacy statement was made ({wrong}), so the statement is out of date;"
            f" {remedy}"
        )
