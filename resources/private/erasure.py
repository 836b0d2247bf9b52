"""Erasure of a unit: remove its rows, and what was made from them, from the private root.

The ledger records the erasure before anything is removed. This order makes an interruption safe:

- The event changes the corpus's snapshot. From then on no mechanism accepts a private table that was not rewritten, and
  `real_instructions` drops the unit whenever it is made.
- Every later step removes what exists. The next erasure of the same unit repeats all steps.
- No step that reads private rows runs at the same time. The store accepts no private table that was made before the
  erasure.

    artifacts      tables of units are rewritten without the rows of every erased unit; all others are removed
    releases       removed: in the private root they are those without noise (level no-dp)
    checkpoints    removed: a unit cannot be removed from a half-trained adapter; the charge stays spent
    tmp, log       emptied: they may hold or quote rows
    overlap        the unit's hash is removed from the corpus's sketch

Nothing here reveals whether the unit had any rows. Left out: the source, backups, blocks that a file system keeps of
deleted files, other corpora in the same root, and releases, whose guarantee covers the unit as it covers all others.
"""

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from dp_assets.artifacts import PrivateTable
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger_state import ERASED_SUFFIX
from resources.ledger.ledger_resource import Ledger
from resources.ledger.overlap import Sketches, sketch_hash
from resources.private.private_step import StepsRunning, no_private_step, private_errors
from resources.storage.artifact_files import UnreadableArtifact, read_artifact, write_artifact
from resources.storage.zones import atomic_folder

INSTRUCTIONS = "real_instructions"
UNIT_TABLES = (INSTRUCTIONS, "real_embeddings")
LOCK = "lock"

# Errors that show that a table cannot be read: it is damaged, half written, or written by something else.
UNREADABLE = (UnreadableArtifact, pl.exceptions.PolarsError, OSError, KeyError, json.JSONDecodeError)


class DropErased(Protocol):
    """A function that drops the rows of erased units. The corpus package implements it."""

    def __call__(self, rows: pl.LazyFrame, *, erased: Collection[str]) -> pl.LazyFrame:
        """Return the rows whose unit, named in the column `unit_id`, has a hash that is not in `erased`."""


class ErasureRefused(PublicError, ValueError):
    """Nothing was erased, because a running step may hold rows in memory."""


Fingerprint = Callable[[pl.LazyFrame], str]
"""A keyed hash of a whole table; the corpus package has it."""


def erase(
    ledger: Ledger, *, corpus_id: str, unit_id: str, reason: str, drop: DropErased, fingerprint: Fingerprint
) -> None:
    """Record the erasure of a unit and remove its rows, and everything made from exact rows, from the private root.

    Args:
      ledger: the ledger, which knows the private root.
      corpus_id: the id of the corpus.
      unit_id: the unit.
      reason: the reason that the ledger records.
      drop: drops the rows of erased units.
      fingerprint: computes the keyed hash of a table.

    Raises:
      ErasureRefused: a step that reads private rows is running; nothing was logged or removed.
      PrivateStepFailed: the unit is logged but not everything could be removed; erase it again.
    """
    try:
        with no_private_step(ledger.private_root):
            ledger.record_erasure(corpus_id, unit_id, reason)
            _erase_everywhere(ledger, corpus_id, unit_id, drop, fingerprint)
    except StepsRunning as running:
        raise ErasureRefused(f"{running}, then erase") from None


def _erase_everywhere(ledger: Ledger, corpus_id: str, unit_id: str, drop: DropErased, fingerprint: Fingerprint) -> None:
    root = Path(ledger.private_root)
    with private_errors(ledger.private_root):
        _erase_from_artifacts(root / "artifacts", ledger, drop, fingerprint)
        for derived in ("releases", "tmp"):
            _remove_content(root / derived)
        _discard_checkpoints(root / "checkpoints")
    _empty_files(root / "log")
    Sketches(root).forget(corpus_id, sketch_hash(unit_id, key=ledger.key))


def _erase_from_artifacts(artifacts: Path, ledger: Ledger, drop: DropErased, fingerprint: Fingerprint) -> None:
    """Rewrite the tables of units and remove everything else, including what an interrupted writer left behind.

    - The graph makes again what was removed.
    - A table that cannot be rewritten is removed too, because it may hold the unit.
    """
    for folder in _content(artifacts):
        try:
            is_rewritten = folder.name in UNIT_TABLES and _rewrite(folder, ledger, drop, fingerprint)
        except UNREADABLE:
            is_rewritten = False
        if not is_rewritten:
            _remove(folder)


def _rewrite(folder: Path, ledger: Ledger, drop: DropErased, fingerprint: Fingerprint) -> bool:
    """Replace a table by one without the erased units of its corpus, under the corpus's present snapshot.

    Returns False if it is not a private table. The remaining instructions are bound to that snapshot, as
    `real_instructions` binds the rows that it prepares.
    """
    table, state = read_artifact(folder), ledger.state()
    if not isinstance(table, PrivateTable):
        return False
    erased = frozenset(state.erasures.get(table.corpus_id, ()))
    snapshot = state.snapshot(table.corpus_id, table.snapshot.partition(ERASED_SUFFIX)[0])

    def write(rows: pl.LazyFrame) -> None:
        kept = drop(rows, erased=erased)
        if folder.name == INSTRUCTIONS:
            left = {"rows": fingerprint(kept), "content": fingerprint(kept.select("unit_id", "text"))}
            ledger.bind_remaining(table.corpus_id, former=table.snapshot, snapshot=snapshot, **left)
        names = ("corpus_id", "preparation", "made_with", "empty_cohorts")
        same: dict[str, Any] = {name: getattr(table, name) for name in names}
        write_artifact(temporary, PrivateTable(kept, **same, snapshot=snapshot))

    with atomic_folder(folder, Zone.PRIVATE) as temporary:
        table.store(write)
    return True


def _discard_checkpoints(checkpoints: Path) -> None:
    """Remove everything but the lock files, because a lock on a removed file excludes nobody."""
    for folder in _content(checkpoints):
        for path in _content(folder):
            if path.name != LOCK:
                _remove(path)


def _empty_files(folder: Path) -> None:
    """Truncate every file in place, so that modes and open handles stay valid."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                file.truncate()


def _content(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove_content(folder: Path) -> None:
    for path in _content(folder):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
