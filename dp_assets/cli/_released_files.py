"""Compare the released files that a statement names with the files that are there.

Digests are declared: they show that a file is the one that the statement was made for, not that the statement is true.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dp_assets.export.parts import PARTS, STATEMENT, Kind, lacking
from dp_assets.export.release import mechanisms_of_charges
from dp_assets.export.target import CARD, CHECKSUMS, MANIFEST, MERGED
from dp_assets.statements.verification import Finding, Outcome
from resources.storage.artifact_files import DOCUMENT, HTML_PAGE, MARKDOWN_PAGE, UNREADABLE, stored_charge_ids
from resources.storage.digests import file_digest, files_under, holds, is_left_behind, is_plain

NAMED = 5
DEPTH = 3
"""Below `artifacts`, a file's name follows asset, cohort and level."""
FILES_OF_AN_EXPORT, FOLDERS_OF_AN_EXPORT = (MANIFEST, CARD, CHECKSUMS), (Kind.TABLE, Kind.MODEL, MERGED)
OWN_FILES = (DOCUMENT, MARKDOWN_PAGE, HTML_PAGE)
RELEASED = {"release_report", *(part.asset for part in PARTS)}
LATER = "made after the statement, which does not name its files; an export names every file"


@dataclass(frozen=True)
class Shelf:
    """The location of a statement's files.

    Attributes:
      root: the folder to which their paths are relative: an export, or the folder `artifacts` of a released zone.
      whole: whether `root` is an export, all of whose files the statement names.
      statement: the folder that holds the statement itself.
    """

    root: Path
    whole: bool
    statement: Path

    @staticmethod
    def of(document: Path, files: Mapping[str, str], root: Path | None) -> "Shelf":
        """Return the shelf of a statement's document; `root` is the folder of the files, if the user names one."""
        statement = Path(os.path.abspath(document)).parent
        export = _export_around(statement)
        whole = (
            statement.name == STATEMENT
            or export is not None
            or (root is not None and _is_export(root))
            or any(place.count("/") != DEPTH for place in files)
        )
        elsewhere = statement.parents[2] if len(statement.parents) > 2 else statement
        above = (export or statement.parent) if whole else elsewhere
        return Shelf(Path(os.path.abspath(root or above)), whole, statement)

    def statements(self) -> list[Path]:
        """Return the folders in which the statement, or a copy of it, may lie with its pages."""
        return [
            self.statement,
            *([self.root / STATEMENT] if self.whole and self.root / STATEMENT != self.statement else []),
        ]

    def partition(self) -> tuple[str, ...]:
        """Return cohort and level of the folder in which the statement lies; empty if it is no partition's folder."""
        asset, *partition = self.statement.parts[-3:]
        return tuple(partition) if asset == STATEMENT and len(partition) == 2 else ()


def _is_export(folder: Path) -> bool:
    """Return whether a folder holds anything that an export has, links included.

    The folders of an export have common names, so they count only beside a statement.
    """
    beside = os.path.lexists(folder / STATEMENT)
    names = (*FILES_OF_AN_EXPORT, *(FOLDERS_OF_AN_EXPORT if beside else ()))
    return any(os.path.lexists(folder / name) for name in names)


def _export_around(statement: Path) -> Path | None:
    """Return the export around a statement, even if the statement's folder was renamed or moved deeper."""
    around = [folder for folder in statement.parents[:DEPTH] if folder != folder.parent]
    for depth, folder in enumerate(around):
        inside = around[depth - 1] if depth else statement
        near = depth == 0 or inside.name == STATEMENT
        if os.path.lexists(folder / MANIFEST) or (near and _is_export(folder)):
            return folder
    return None


def file_findings(shelf: Shelf, statement: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield findings on the files of a shelf: those that the statement names, and those that it does not."""
    files = statement["files"]
    if not files and not shelf.whole:
        yield Finding("files", Outcome.NOT_CHECKED, "the statement names none")
    if shelf.whole and os.path.lexists(shelf.root / CHECKSUMS):
        yield _checksums(shelf, files)
    for group, named in _groups(shelf, files).items():
        name = f"files of {group}" if group else "files of the export"
        outcome = _compared(shelf, shelf.root / group, named)
        lineage = _untrue(shelf, group, statement) if outcome[0] is Outcome.AGREES else []
        yield Finding(name, Outcome.DIFFERS, lineage[0]) if lineage else Finding(name, *outcome)
    if not shelf.whole:
        yield from _beside(shelf)
        yield from _later(shelf, set(_groups(shelf, files)), statement)


def _groups(shelf: Shelf, files: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the named files by the folder that holds nothing else: an artifact's, or that of the whole export."""
    groups: dict[str, dict[str, str]] = {"": {}} if shelf.whole else {}
    for place, digest in files.items():
        folder = "" if shelf.whole else PurePosixPath(place).parent.as_posix()
        groups.setdefault(folder, {})[place] = digest
    return groups


def _compared(shelf: Shelf, folder: Path, named: Mapping[str, str]) -> tuple[Outcome, str]:
    is_there = _is_export(shelf.root) if shelf.whole else folder.exists()
    if not is_there and not any((shelf.root / place).exists() for place in named):
        return Outcome.NOT_CHECKED, f"not found in {shelf.root}"
    if any(shelf.root.joinpath(*parts).is_symlink() for parts in _ways(folder.relative_to(shelf.root).parts)):
        return Outcome.DIFFERS, "its folder is a link, or lies in one"
    there = {path.relative_to(shelf.root).as_posix(): path for path in files_under(folder)}
    own = {folder / name for folder in shelf.statements() for name in OWN_FILES} | {shelf.root / CHECKSUMS}
    wrong = [
        *(f"{place} is missing or no plain file" for place in _required(shelf) if not _is_file(shelf.root / place)),
        *(f"{place} is missing" for place in sorted(named.keys() - there.keys())),
        *(f"{place} is not named by the statement" for place in _further(shelf, there, {*named}, own)),
        *(
            f"{place} {what}"
            for place in sorted(named.keys() & there.keys())
            if (what := _unlike(there[place], named[place]))
        ),
    ]
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        return Outcome.DIFFERS, "; ".join(wrong[:NAMED]) + more
    return Outcome.AGREES, f"{len(named)}"


def _ways(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return all prefixes of a relative path: the folder itself and every folder above it, below the root."""
    return [parts[: depth + 1] for depth in range(len(parts))]


def _required(shelf: Shelf) -> list[str]:
    """Return the files that every export has."""
    own = [f"{STATEMENT}/{name}" for name in OWN_FILES]
    return [*FILES_OF_AN_EXPORT, *own] if shelf.whole else []


def _is_file(path: Path) -> bool:
    return os.path.lexists(path) and is_plain(path)


def _checksums(shelf: Shelf, files: Mapping[str, str]) -> Finding:
    """Compare the list for `sha256sum -c`, which no hash covers, with the statement and the files that it names."""
    listed, own = shelf.root / CHECKSUMS, (shelf.root / STATEMENT / name for name in OWN_FILES)
    digests = dict(files) | {
        f"{STATEMENT}/{path.name}": file_digest(path) for path in own if path.exists() and is_plain(path)
    }
    expected = "".join(f"{digest}  {place}\n" for place, digest in sorted(digests.items()))
    if holds(listed, expected.encode()):
        return Finding(f"file {CHECKSUMS}", Outcome.AGREES)
    return Finding(f"file {CHECKSUMS}", Outcome.DIFFERS, "it does not list what the statement does")


def _further(shelf: Shelf, there: Mapping[str, Path], named: set[str], own: set[Path]) -> list[str]:
    """Return the files that the statement does not name, except those that desktops and git leave behind."""
    return [
        place
        for place, path in sorted(there.items())
        if place not in named and path not in own and not is_left_behind(path, shelf.root)
    ]


def _unlike(path: Path, digest: str) -> str:
    if not is_plain(path):
        return "is a link or another special file"
    return "" if file_digest(path) == digest else "was changed"


def _untrue(shelf: Shelf, group: str, statement: Mapping[str, Any]) -> list[str]:
    """Return contradictions between the statement and files that have the stated digests."""
    if not shelf.whole:
        return _foreign(shelf.root / group, statement)
    from dp_assets.export.checking import problems_of_export

    return ["; ".join(wrong)] if (wrong := problems_of_export(shelf.root, statement)) else []


def _foreign(folder: Path, statement: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the charges that an artifact descends from."""
    if not all(map(is_plain, files_under(folder))):
        return ["it holds a link or another special file"]
    try:
        ids = set(stored_charge_ids(folder))
    except UNREADABLE:
        return ["it does not say what it descends from"]
    if folder.parts[-DEPTH] not in RELEASED:
        return ["there is no such asset"]
    if ids - set(statement["ledger"]["charge_ids"]):
        return ["it descends from charges that the statement lacks"]
    lacks = lacking(folder.parts[-DEPTH], mechanisms_of_charges(statement, ids))
    return [f"it names no charge of {', '.join(lacks)}, from which every artifact of it descends"] if lacks else []


def _beside(shelf: Shelf) -> Iterator[Finding]:
    """Yield findings on files beside a statement in a data folder, where only its own files belong."""
    if not shelf.partition():
        return
    own = {shelf.statement / name for name in OWN_FILES}
    there = {path.relative_to(shelf.statement).as_posix(): path for path in files_under(shelf.statement)}
    for place in [name for name, path in sorted(there.items()) if path not in own][:NAMED]:
        if not is_left_behind(there[place], shelf.statement):
            yield Finding(f"file {place}", Outcome.DIFFERS, "it is none of the statement's own")


def _later(shelf: Shelf, named: Collection[str], statement: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield findings on other artifacts of the partition in whose folder the statement lies."""
    partition = shelf.partition()
    if not partition or shelf.statement.parents[2] != shelf.root:
        return
    for asset in sorted(shelf.root.iterdir()):
        folder = asset.joinpath(*partition)
        group = folder.relative_to(shelf.root).as_posix()
        if not folder.is_dir() or group in named or folder == shelf.statement:
            continue
        wrong = _foreign(folder, statement)
        yield Finding(
            f"files of {group}", Outcome.DIFFERS if wrong else Outcome.NOT_CHECKED, wrong[0] if wrong else LATER
        )
