"""The two zones: closed whatever the umask, and replaced in one step or not at all."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dp_assets.privacy.chain import Anchor
from dp_assets.privacy.labels import Zone
from resources.ledger.ledger_file import LedgerFile
from resources.ledger.ledger_resource import Ledger
from resources.storage.zones import (
    HOME_VARIABLE,
    atomic_file,
    atomic_folder,
    data_home,
    folders_in_place,
    private_folder,
    private_umask,
)


@pytest.fixture(params=[0o000, 0o022], ids=["umask 0", "umask 022"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def write_half(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError("the disk is full")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("umask")
def test_private_folders_are_closed_up_to_the_private_root_and_no_further(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    private_folder(tmp_path / "private" / "artifacts" / "real_instructions")
    folders = [tmp_path / "private", *(tmp_path / "private").rglob("*")]
    assert [mode(folder) for folder in folders] == [0o700] * 3
    assert mode(tmp_path) == 0o755


@pytest.mark.usefixtures("umask")
def test_a_private_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    target = tmp_path / "private" / "secret.json"
    with atomic_file(target, Zone.PRIVATE) as temporary:
        temporary.write_text("{}")
    assert mode(target) == 0o600
    assert mode(target.parent) == 0o700


@pytest.mark.usefixtures("umask")
def test_everything_in_a_private_artifact_is_closed(tmp_path: Path) -> None:
    target = tmp_path / "private" / "artifacts" / "table"
    with atomic_folder(target, Zone.PRIVATE) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "part").write_text("rows")
        (temporary / "part").write_text("rows")
    assert {str(path.relative_to(target)): mode(path) for path in [target, *target.rglob("*")]} == {
        ".": 0o700,
        "inner": 0o700,
        "inner/part": 0o600,
        "part": 0o600,
    }


@pytest.mark.usefixtures("umask")
def test_what_a_library_creates_under_the_private_umask_is_closed_from_its_first_moment(tmp_path: Path) -> None:
    with private_umask():
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
    assert (mode(tmp_path / "folder"), mode(tmp_path / "file")) == (0o700, 0o600)


def test_the_private_umask_ends_with_its_block_however_that_ends(tmp_path: Path, umask: int) -> None:
    with pytest.raises(RuntimeError, match="disk"), private_umask():
        write_half(tmp_path / "file")
    (tmp_path / "released").touch()
    assert mode(tmp_path / "released") == 0o666 & ~umask


@pytest.mark.usefixtures("umask")
def test_the_ledger_is_closed_in_the_middle_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, during = Ledger(private_root=str(tmp_path / "private")), {}
    write_anchors = LedgerFile._write_anchors

    def look(self: LedgerFile, anchor: Anchor) -> None:
        during.update({path.name: mode(path) for path in (tmp_path / "private").rglob("*")})
        write_anchors(self, anchor)

    monkeypatch.setattr(LedgerFile, "_write_anchors", look)
    assert ledger.key
    ledger.transact(lambda _: [])
    modes = dict.fromkeys(("ledger.duckdb", "ledger.duckdb.wal", "anchor.json", "key", "lock"), 0o600)
    assert during == modes | {"ledger": 0o700}


def test_released_artifacts_keep_the_modes_of_the_umask(tmp_path: Path, umask: int) -> None:
    target = tmp_path / "released" / "artifacts" / "table"
    with atomic_folder(target, Zone.RELEASED) as temporary:
        (temporary / "part").write_text("rows")
    assert mode(target) == 0o777 & ~umask
    assert mode(target / "part") == 0o666 & ~umask


@pytest.mark.parametrize("zone", list(Zone))
def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, zone: Zone) -> None:
    target = tmp_path / zone / "table"
    for name in ("first", "second"):
        with atomic_folder(target, zone) as temporary:
            (temporary / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in target.parent.iterdir()] == ["table"]


def test_two_that_replace_a_folder_again_and_again_both_succeed_and_a_reader_always_finds_one(tmp_path: Path) -> None:
    target = tmp_path / "private" / "table"

    def write(name: str) -> None:
        for _ in range(150):
            with atomic_folder(target, Zone.PRIVATE) as temporary:
                (temporary / name).touch()

    def read(_: str) -> None:
        for _ in range(1500):
            with folders_in_place(target.parent):
                assert len(list(target.iterdir())) == 1

    with atomic_folder(target, Zone.PRIVATE) as temporary:
        (temporary / "first").touch()
    with ThreadPoolExecutor(3) as workers:
        tasks = [workers.submit(write, "one"), workers.submit(write, "other"), workers.submit(read, "")]
        for task in tasks:
            task.result(timeout=300)
    assert [path.name for path in target.parent.iterdir()] == ["table"]


@pytest.mark.parametrize("zone", list(Zone))
def test_a_writer_that_fails_leaves_the_old_folder_and_nothing_else(tmp_path: Path, zone: Zone) -> None:
    target = tmp_path / zone / "table"
    with atomic_folder(target, zone) as temporary:
        (temporary / "part").write_text("old")
    with pytest.raises(RuntimeError, match="disk"), atomic_folder(target, zone) as temporary:
        write_half(temporary / "part")
    assert (target / "part").read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["table"]


@pytest.mark.parametrize("zone", list(Zone))
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, zone: Zone) -> None:
    target = tmp_path / zone / "anchor.json"
    with atomic_file(target, zone) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), atomic_file(target, zone) as temporary:
        write_half(temporary)
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["anchor.json"]


def test_a_reader_sees_the_old_artifact_while_the_new_one_is_written(tmp_path: Path) -> None:
    target = tmp_path / "released" / "table"
    with atomic_folder(target, Zone.RELEASED) as temporary:
        (temporary / "part").write_text("old")
    with atomic_folder(target, Zone.RELEASED) as temporary:
        (temporary / "part").write_text("new")
        assert (target / "part").read_text() == "old"
    assert (target / "part").read_text() == "new"


def test_the_data_folder_is_the_environments_or_data_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    assert data_home() == tmp_path / "data"
    monkeypatch.setenv(HOME_VARIABLE, "elsewhere")
    assert data_home() == tmp_path / "elsewhere"
