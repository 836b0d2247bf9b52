"""A second data folder for the same source is told of, and one that lost its ledger is refused."""

import json
import shutil
from pathlib import Path

import pytest

from dp_assets.privacy.chain import LedgerTampered
from resources.ledger.homes import STATE_VARIABLE, note_home, other_ledgers
from resources.ledger.ledger_resource import Ledger
from tests.resources.ledgers import charge, register


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three data folders, of which the last has no ledger."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders[:2]:
        register(Ledger(private_root=str(folder / "private")))
    return folders


SOURCE = "file:/corpus"


def others(home: Path, first_digest: str | None) -> tuple[list[Path], list[Path]]:
    found = other_ledgers(SOURCE, home, first_digest)
    return list(found.there), list(found.gone)


def test_another_folder_with_a_ledger_for_the_same_source_is_told_of(homes: list[Path]) -> None:
    one, two, without_ledger = homes
    note_home(SOURCE, one, "first")
    note_home(SOURCE, one, "first")
    note_home("file:/another", two, "second")
    assert others(one, "first") == ([], [])
    assert others(without_ledger, None) == ([one], [])
    note_home(SOURCE, two, "second")
    assert others(two, "second") == ([one], [])
    assert others(one, "first") == ([two], [])


def test_a_copy_of_a_ledger_is_told_of_though_it_begins_alike(homes: list[Path]) -> None:
    note_home(SOURCE, homes[0], "first")
    note_home(SOURCE, homes[1], "first")
    assert others(homes[0], "first") == ([homes[1]], [])


def test_a_ledger_that_is_gone_is_told_of_in_its_own_folder_and_in_others(homes: list[Path]) -> None:
    one, two, _ = homes
    note_home(SOURCE, one, "first")
    shutil.rmtree(one)
    assert others(one, None) == others(one, "new") == others(two, "second") == ([], [one])
    note_home(SOURCE, two, "second")
    register(Ledger(private_root=str(one / "private")))
    note_home(SOURCE, one, "new")
    assert others(one, "new") == ([two], [one])
    assert others(two, "second") == ([one], [one])


def test_a_ledger_that_moved_is_not_gone(homes: list[Path]) -> None:
    one, two, without_ledger = homes
    note_home(SOURCE, one, "first")
    one.rename(without_ledger)
    assert others(without_ledger, "first") == ([], [])
    note_home(SOURCE, without_ledger, "first")
    assert others(two, "second") == ([without_ledger], [])


def test_a_list_of_paths_alone_is_read_and_completed(homes: list[Path], tmp_path: Path) -> None:
    one, two, without_ledger = homes
    note_home(SOURCE, one, "first")
    (listed,) = tmp_path.rglob("homes.json")
    (name,) = json.loads(listed.read_text())
    listed.write_text(json.dumps({name: [str(one), str(without_ledger)]}))
    assert others(two, "second") == ([one], [])
    note_home(SOURCE, one, "first")
    shutil.rmtree(one)
    assert others(two, "second") == ([], [one])


def test_a_list_that_cannot_be_read_or_written_stops_nobody(homes: list[Path], tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    note_home(SOURCE, homes[0], "first")
    assert others(homes[1], "second") == ([], [])


def test_the_list_names_no_source(homes: list[Path], tmp_path: Path) -> None:
    note_home("file:/patients/anna.csv", homes[0], "first")
    assert "anna" not in (tmp_path / "state/dp-instructions/homes.json").read_text()


PAID = ("private/releases/a", "released/releases/a", "private/artifacts/real_instructions", "private/checkpoints/a")


@pytest.mark.parametrize("made", PAID)
def test_a_folder_with_paid_work_but_without_a_ledger_is_refused_and_left_as_it_is(tmp_path: Path, made: str) -> None:
    ledger = Ledger(private_root=str(tmp_path / "private"))
    corpus = register(ledger, "eps-8")
    (tmp_path / made).mkdir(parents=True)
    for lost in ("ledger.duckdb", "anchor.json"):
        (tmp_path / "private/ledger" / lost).unlink()
    (tmp_path / "released/ledger_anchor.json").unlink()
    for act in (ledger.state, lambda: register(ledger, "eps-8"), lambda: charge(ledger, corpus.corpus_id, "eps-8")):
        with pytest.raises(LedgerTampered, match="ledger is missing"):
            act()
    assert not (tmp_path / "private/ledger/ledger.duckdb").exists()


def test_releases_without_ledger_and_key_are_refused(tmp_path: Path) -> None:
    ledger = Ledger(private_root=str(tmp_path / "private"))
    register(ledger)
    (tmp_path / "released/releases/dp_generator").mkdir(parents=True)
    shutil.rmtree(tmp_path / "private")
    (tmp_path / "released/ledger_anchor.json").unlink()
    with pytest.raises(LedgerTampered, match="missing"):
        register(ledger)


def test_a_key_alone_is_no_lost_ledger(tmp_path: Path) -> None:
    ledger = Ledger(private_root=str(tmp_path / "private"))
    assert ledger.key
    register(ledger, "eps-8")
