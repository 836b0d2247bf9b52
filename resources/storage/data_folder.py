"""The version of a data folder: how its zones, artifacts, releases and checkpoints are laid out.

A folder says its version in `data_folder.json`, written with the first entry of its ledger. A folder without that file
was made before versions were written, when the layout was that of version 1, and gets the file with the next entry. A
version that this program does not know is refused before anything in the folder is read or written. The ledger's file
has a schema version of its own (`ledger_file.py`).
"""

import json
from pathlib import Path
from typing import Any

from dp_assets.privacy.labels import Zone
from resources.public_failure import PublicFailure
from resources.storage.zones import atomic_file

VERSION_FILE, VERSION = "data_folder.json", 1


class OtherDataFolder(PublicFailure):
    """The data folder was made by a version of this program that lays it out in another way."""

    def __init__(self, home: Path, found: object) -> None:
        super().__init__(
            f"the data folder {home} has version {found}, and this program knows {VERSION}; upgrade the"
            " program, or set DP_INSTRUCTIONS_HOME to another folder. Nothing in it was touched"
        )


def require_known_version(home: Path) -> None:
    """Refuse a data folder that this program cannot read.

    Raises:
      OtherDataFolder: it says another version than ours, or none that can be read.
    """
    file = home / VERSION_FILE
    if file.exists() and (found := _version(file)) != VERSION:
        raise OtherDataFolder(home, found)


def write_version(home: Path) -> None:
    """Write down the version of a folder that does not say it."""
    if not (home / VERSION_FILE).exists():
        with atomic_file(home / VERSION_FILE, Zone.RELEASED) as temporary:
            temporary.write_text(json.dumps({"version": VERSION}) + "\n")


def _version(file: Path) -> Any:
    try:
        return json.loads(file.read_text())["version"]
    except (ValueError, KeyError, TypeError):
        return "that cannot be read"
