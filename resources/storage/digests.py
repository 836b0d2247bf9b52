"""SHA-256 digests for statements: of the installed sources, and of the files of a release.

A digest covers content only, neither times nor modes, so a copied file keeps it. Hidden files, links and other special
files belong to no release. A few hidden files may lie beside it, because desktops and git leave them there.
"""

import hashlib
import importlib.metadata
import re
import stat
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

PACKAGE = "dp-instructions"
SOURCES = ("dp_assets", "resources")
LEFT_BEHIND = re.compile(r"\.(DS_Store|directory|gitattributes|_.*)")


def file_digest(path: Path) -> str:
    """Return the digest of one file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_digests(folder: Path, *, below: Path) -> dict[str, str]:
    """Return the digest of each file under a folder, by its path relative to `below`."""
    plain = (path for path in files_under(folder) if is_plain(path) and not is_hidden(path, below))
    return {path.relative_to(below).as_posix(): file_digest(path) for path in sorted(plain)}


def files_under(folder: Path) -> Iterator[Path]:
    """Yield everything under a folder that is not a folder itself; links are listed and not followed."""
    return (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def is_plain(path: Path) -> bool:
    """Return whether a path is a regular file and not a link."""
    return stat.S_ISREG(path.lstat().st_mode)


def holds(path: Path, content: bytes) -> bool:
    """Return whether a path is a regular file with exactly this content. A file of another size is not read."""
    return is_plain(path) and path.lstat().st_size == len(content) and path.read_bytes() == content


def is_hidden(path: Path, below: Path) -> bool:
    """Return whether a desktop would hide the file."""
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def is_left_behind(path: Path, below: Path) -> bool:
    """Return whether a desktop or git made the file, by its name. Other hidden files may matter to `datasets`."""
    return bool(LEFT_BEHIND.fullmatch(path.name)) and is_plain(path) and not is_hidden(path.parent, below)


def code_digest() -> dict[str, str]:
    """Return name and version of the package, and the digest of its installed Python sources."""
    roots = [Path(str(files(name))) for name in SOURCES]
    sources = [(path.relative_to(root.parent).as_posix(), path) for root in roots for path in root.rglob("*.py")]
    return {"package": PACKAGE, "version": importlib.metadata.version(PACKAGE), "sha256": _digest(sources)}


def _digest(named: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(named):
        digest.update(f"{file_digest(path)}  {name}\n".encode())
    return digest.hexdigest()
