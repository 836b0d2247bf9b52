"""Which data folders of this user hold a ledger for the same source: each has a budget of its own for the same people.

The list lies in the user's state folder, since a data folder knows nothing of others. It holds a hash of each source's
public name and the folders' paths. It is a help and no proof: another user or machine is not seen.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from dp_assets.privacy.labels import Zone
from resources.ledger_file import LedgerFile
from resources.zones import atomic_file

STATE_VARIABLE = "XDG_STATE_HOME"


def note_home(locator: str, home: Path) -> list[Path]:
    """Remember that `home` has a ledger for this source, and return the other folders that have one too.

    Where the list cannot be read or written, nothing is remembered and nobody is stopped.
    """
    name, file = hashlib.sha256(locator.encode()).hexdigest(), _list_of_homes()
    known = _known(file)
    homes = [Path(path) for path in known.get(name, [])]
    if home not in homes:
        with suppress(OSError), atomic_file(file, Zone.RELEASED) as temporary:
            temporary.write_text(json.dumps(known | {name: [str(path) for path in (*homes, home)]}))
    return [path for path in homes if path != home and LedgerFile(path / Zone.PRIVATE).database.exists()]


def _list_of_homes() -> Path:
    state = os.environ.get(STATE_VARIABLE) or Path.home() / ".local" / "state"
    return Path(state) / "dp-instructions" / "homes.json"


def _known(file: Path) -> dict[str, list[str]]:
    try:
        known: dict[str, list[str]] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
