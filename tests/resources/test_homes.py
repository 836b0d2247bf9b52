"""A second data folder for the same source is told of, and one that lost its ledger is refused."""

import shutil
from pathlib import Path

import pytest

from dp_assets.privacy.chain import LedgerTampered
from resources.homes import STATE_VARIABLE, note_home
from resources.ledger import Ledger
from tests.resources.ledgers import charge, register


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three data folders, of which the last has no ledger."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders[:2]:
        register(Ledger(private_root=str(folder / "private")))
    return folders


def test_another_folder_with_a_ledger_for_the_same_source_is_told_of(homes: list[Path]) -> None:
    one, two, without_ledger = homes
    assert note_home("file:/corpus", one) == []
    assert note_home("file:/corpus", one) == []
    assert note_home("file:/another", two) == []
    assert note_home("file:/corpus", without_ledger) == [one]
    assert note_home("file:/corpus", two) == [one]
    assert note_home("file:/corpus", one) == [two]


def test_a_list_that_cannot_be_read_or_written_stops_nobody(homes: list[Path], tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    assert note_home("file:/corpus", homes[0]) == []


def test_the_list_names_no_source(homes: list[Path], tmp_path: Path) -> None:
    note_home("file:/patients/anna.csv", homes[0])
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
