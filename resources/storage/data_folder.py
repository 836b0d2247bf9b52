"""The version of a data folder, which fixes the layout of its zones, artifacts, releases and checkpoints.

The version is in `data_folder.json`, which is written with the first entry of the ledger. A folder without that file is
older than the file. It has the layout of version 1, and gets the file with the next entry. An unknown version is
refused before anything in the folder is read or written. The ledger's file has a schema version of its own
(`ledger_file.py`).
"""

import json
from pathlib import Path
from typing import Any

from dp_assets.privacy.labels import Zone
from resources.public_failure import PublicFailure
from resources.storage.zones import atomic_file

VERSION_FILE, VERSION = "data_folder.json", 1


class OtherDataFolder(PublicFailure):
    """The data folder has the layout of another version of this program."""

    def __init__(self, home: Path, found: object) -> None:
        super().__init__(
            f"the data folder {home} has version {found}, and this program knows {VERSION}; upgrade the"
            " program, or set DP_INSTRUCTIONS_HOME to another folder. Nothing in it was touched"
        )


def require_known_version(home: Path) -> None:
    """Refuse a data folder that this program cannot read.

    Raises:
      OtherDataFolder: the folder has another version, or one that cannot be read.
    """
    file = home / VERSION_FILE
    if file.exists() and (found := _version(file)) != VERSION:
        raise OtherDataFolder(home, found)


def write_version(home: Path) -> None:
    """Write the version of a folder that has none."""
    if not (home / VERSION_FILE).exists():
        with atomic_file(home / VERSION_FILE, Zone.RELEASED) as temporary:
            temporary.write_text(json.dumps({"version": VERSION}) + "\n")


def _version(file: Path) -> Any:
    try:
        return json.loads(file.read_text())["version"]
    except (ValueError, KeyError, TypeError):
        return "that cannot be read"
