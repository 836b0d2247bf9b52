"""Which files a released artifact may consist of. Whatever else a writer leaves in its folder is never published.

A library that one day adds a log, a cache or a training state to what it saves would otherwise publish it unseen.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table

ALLOWED: dict[type, tuple[str, ...]] = {
    Table: (r"part-\d{5,}-[0-9a-f]{16}\.parquet",),
    Adapter: (r"adapter_config\.json", r"adapter_model\.safetensors", r"provenance\.json"),
    Document: (r"document\.json", r"document\.md", r"document\.html"),
    PrivateTable: (),
}


class UnexpectedFile(dg.Failure):
    """A released artifact was about to be published with a file that its kind does not consist of."""

    def __init__(self, kind: type, name: str) -> None:
        super().__init__(
            description=f"the folder of a released {kind.__name__} holds {name!r}, so it was not published; find out"
            " what writes it, and list it in resources/allowed_files.py only if it is made from released values",
            allow_retries=False,
        )


def check_files(folder: Path, kind: type) -> None:
    """Refuse to publish a folder that holds anything but the files of its kind of artifact.

    Raises:
      UnexpectedFile: it does; the first one is named.
    """
    for path in unexpected_files(folder, kind):
        raise UnexpectedFile(kind, str(path.relative_to(folder)))


def unexpected_files(folder: Path, kind: type) -> Iterator[Path]:
    """What a folder holds besides the files of this kind of artifact: other names, folders, links."""
    for path in sorted(folder.rglob("*")):
        plain = path.parent == folder and path.is_file() and not path.is_symlink()
        if not (plain and any(re.fullmatch(pattern, path.name) for pattern in ALLOWED[kind])):
            yield path
