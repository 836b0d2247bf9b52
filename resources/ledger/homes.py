"""The ledgers that this user has had for the same source. Each has a budget of its own for the same people.

The list lies in the user's state folder, because a data folder knows nothing of others. It holds a hash of each
source's public name, the paths of the data folders, and the digest of each ledger's first entry, which distinguishes a
ledger that moved from one that was deleted. It is an aid and not a proof: other users and machines are not covered.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_assets.privacy.labels import Zone
from resources.ledger.ledger_file import LedgerFile
from resources.storage.zones import atomic_file

STATE_VARIABLE = "XDG_STATE_HOME"

Known = tuple[Path, str | None]
"""A data folder and the first digest of its ledger; None if the entry is older than that field."""


@dataclass(frozen=True)
class OtherLedgers:
    """The data folders of the other ledgers for a source: those that exist, and those that are gone."""

    there: Sequence[Path]
    gone: Sequence[Path]


def other_ledgers(locator: str, home: Path, first_digest: str | None) -> OtherLedgers:
    """Return the other ledgers for this source.

    `first_digest` is the digest of the first entry of the ledger in `home`, if there is one. A ledger that moved is not
    gone. An unreadable list counts as empty.
    """
    known = _of_source(_read(_list_of_homes()), locator)
    # A path that was listed several times counts with its last digest.
    there = {path: digest for path, digest in known if path != home and _has_ledger(path)}
    known_digests = {None, first_digest, *there.values()}
    gone = [path for path, digest in known if digest not in known_digests]
    return OtherLedgers(list(there), list(dict.fromkeys(gone)))


def note_home(locator: str, home: Path, first_digest: str) -> None:
    """Record the ledger of `home` for this source. A list that cannot be written is ignored."""
    file = _list_of_homes()
    listed, own = _read(file), (home, first_digest)
    known = _of_source(listed, locator)
    if own not in known:
        pairs = [(str(path), digest) for path, digest in [*known, own] if (path, digest) != (home, None)]
        with suppress(OSError), atomic_file(file, Zone.RELEASED) as temporary:
            temporary.write_text(json.dumps(listed | {_name(locator): pairs}))


def _has_ledger(home: Path) -> bool:
    return LedgerFile(home / Zone.PRIVATE).database.exists()


def _name(locator: str) -> str:
    return hashlib.sha256(locator.encode()).hexdigest()


def _of_source(listed: dict[str, Any], locator: str) -> list[Known]:
    """Return the entries of a source: paths alone, as older versions wrote them, or paths with digests."""
    pairs = ((entry, None) if isinstance(entry, str) else entry for entry in listed.get(_name(locator), []))
    return [(Path(path), digest) for path, digest in pairs]


def _list_of_homes() -> Path:
    state = os.environ.get(STATE_VARIABLE) or Path.home() / ".local" / "state"
    return Path(state) / "dp-instructions" / "homes.json"


def _read(file: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
