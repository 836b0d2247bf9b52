"""Which ledgers this user has had for the same source: each has a budget of its own for the same people.

The list lies in the user's state folder, since a data folder knows nothing of others. It holds a hash of each source's
public name, the data folders' paths, and the digest of each ledger's first entry, which tells a ledger that moved from
one that is gone. It is a help and no proof: another user or machine is not seen.
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
"""A data folder and the first digest of its ledger; None if it was listed before digests were."""


@dataclass(frozen=True)
class OtherLedgers:
    """The data folders of the other ledgers for a source: those that are there, and those that are gone."""

    there: Sequence[Path]
    gone: Sequence[Path]


def other_ledgers(locator: str, home: Path, first_digest: str | None) -> OtherLedgers:
    """The other ledgers for this source; `first_digest` is that of the first entry of the one in `home`, if any.

    One that moved is not gone. Where the list cannot be read, there are none.
    """
    known = _of_source(_read(_list_of_homes()), locator)
    there = {path: digest for path, digest in known if path != home and _has_ledger(path)}  # the last one of each path
    kept = {None, first_digest, *there.values()}
    gone = [path for path, digest in known if digest not in kept]
    return OtherLedgers(list(there), list(dict.fromkeys(gone)))


def note_home(locator: str, home: Path, first_digest: str) -> None:
    """Remember the ledger of `home` for this source. Where the list cannot be written, nobody is stopped."""
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
    """What is listed of a source: paths alone, as older versions wrote them, or with digests."""
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
