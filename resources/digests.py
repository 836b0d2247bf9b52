"""SHA-256 of what a statement names: the installed sources, and the folder of an artifact.

A digest covers the relative path and the content of each file, in the order of the paths, and nothing else: neither
times nor modes, so that a copied folder keeps its digest. Hidden files, which desktops leave behind, are not counted.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

PACKAGE = "dp-instructions"
SOURCES = ("dp_assets", "resources")


def folder_digest(folder: Path) -> str:
    """The digest of every file under a folder."""
    return _digest((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if _counts(path, folder))


def code_digest() -> dict[str, str]:
    """Name and version of the package, and the digest of its Python sources as they are installed."""
    roots = [Path(str(files(name))) for name in SOURCES]
    sources = [(path.relative_to(root.parent).as_posix(), path) for root in roots for path in root.rglob("*.py")]
    return {"package": PACKAGE, "version": importlib.metadata.version(PACKAGE), "sha256": _digest(sources)}


def _counts(path: Path, folder: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _digest(named: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(named):
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{content}  {name}\n".encode())
    return digest.hexdigest()
