"""The two roots of the data folder, and atomic writes to them.

Private artifacts live under `private/` (directories 0700, files 0600), released ones under `released/`. Writers use
`atomic_file` and `atomic_folder`: a temporary name beside the target, then a rename. So a reader never sees a partial
artifact, and a failed write leaves the old one in place. Writers that replace the same folder take turns, and a reader
within `folders_in_place` never finds the folder missing in between.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dp_assets.privacy.labels import Zone

PRIVATE_FOLDER_MODE, PRIVATE_FILE_MODE, PRIVATE_UMASK = 0o700, 0o600, 0o077
HOME_VARIABLE = "DP_INSTRUCTIONS_HOME"


def data_home() -> Path:
    """Return the data folder: `$DP_INSTRUCTIONS_HOME`, or `data` in the working directory."""
    return Path(os.environ.get(HOME_VARIABLE, "data")).absolute()


def private_folder(folder: Path) -> Path:
    """Create a folder of the private zone with mode 0700, also for its parents up to the private root, at any umask."""
    folder.mkdir(parents=True, exist_ok=True)
    lineage = [folder, *folder.parents]
    names = [path.name for path in lineage]
    depth = names.index(Zone.PRIVATE) if Zone.PRIVATE in names else 0
    for path in lineage[: depth + 1]:
        path.chmod(PRIVATE_FOLDER_MODE)
    return folder


@contextmanager
def private_umask() -> Iterator[None]:
    """Close all files that are created meanwhile to other users, from their creation on. Affects all threads."""
    former = os.umask(PRIVATE_UMASK)
    try:
        yield
    finally:
        os.umask(former)


def prepare_folder(folder: Path, zone: Zone) -> Path:
    """Create a folder of either zone."""
    if zone is Zone.PRIVATE:
        return private_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def atomic_file(target: Path, zone: Zone) -> Iterator[Path]:
    """Yield a temporary path beside `target`, and rename it to `target` if the block succeeds."""
    prepare_folder(target.parent, zone)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if zone is Zone.PRIVATE:
            temporary.chmod(PRIVATE_FILE_MODE)
        _flush(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path, zone: Zone) -> Iterator[Path]:
    """Yield a temporary folder beside `target`, and replace `target` by it if the block succeeds."""
    prepare_folder(target.parent, zone)
    temporary = prepare_folder(target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp"), zone)
    retired = temporary.with_suffix(".old")
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if zone is Zone.PRIVATE:
                path.chmod(PRIVATE_FOLDER_MODE if path.is_dir() else PRIVATE_FILE_MODE)
            if path.is_file():
                _flush(path)
        with _locked(target.parent, fcntl.LOCK_EX):
            _put_in_place(temporary, target, retired)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def _put_in_place(made: Path, target: Path, retired: Path) -> None:
    if target.exists():
        os.replace(target, retired)
    try:
        os.replace(made, target)
    except OSError:
        if retired.exists():
            os.replace(retired, target)
        raise


@contextmanager
def folders_in_place(parent: Path) -> Iterator[None]:
    """Prevent replacement of any folder in `parent` meanwhile; writers wait."""
    with _locked(parent, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Hold an operating-system lock on a folder, which ends with the process at the latest."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def create_once(path: Path, content: bytes) -> None:
    """Create a private file with this content atomically, unless another process was faster."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE_MODE), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _flush(path: Path) -> None:
    """Force the content to disk before the rename makes it visible."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
