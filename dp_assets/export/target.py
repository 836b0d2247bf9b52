"""The target folder of an export, and its checksums. An earlier export is replaced only if it was not changed."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from dp_assets.export.parts import ExportRefused

CHECKSUMS, MANIFEST, CARD, MERGED = "SHA256SUMS", "export.json", "README.md", "merged"
MARK = "dp-instructions export"


def check_target(target: Path, home: Path) -> None:
    """Refuse a target in which files could be lost or mixed up.

    Raises:
      ExportRefused: it is inside the data folder or contains it, is not a folder, or holds anything but an unchanged
        export.
    """
    if target.resolve().is_relative_to(home.resolve()) or home.resolve().is_relative_to(target.resolve()):
        raise ExportRefused(f"--to {target} is inside the data folder or contains it; choose a folder of its own")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ExportRefused(f"--to {target} is not a folder; choose another name")
    if not target.exists() or not any(target.iterdir()):
        return
    if not _is_export(target):
        raise ExportRefused(f"--to {target} is neither empty nor an earlier export; choose an empty folder")
    if changed := sorted(_changes(target)):
        raise ExportRefused(
            f"--to {target} is an earlier export that was changed since ({', '.join(changed[:3])}); choose an empty"
            " folder, so that nothing of it is lost"
        )


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file, in the format that `sha256sum -c SHA256SUMS` checks."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in sorted(_files(folder))]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _is_export(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / MANIFEST).read_text())["kind"] == MARK) and (folder / CHECKSUMS).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _changes(folder: Path) -> Iterator[str]:
    """Yield the files that were added, changed or removed since the checksums of an export were written."""
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    known = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    names = set(_files(folder))
    yield from names ^ set(known)
    yield from (name for name in names & set(known) if _sha256(folder / name) != known[name])


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if (path.is_symlink() or not path.is_dir()) and name != CHECKSUMS:
            yield name


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
