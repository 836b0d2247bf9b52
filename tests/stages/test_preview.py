"""The preview reads a corpus as preparation does, leaves out erased units, and keeps nothing."""

from pathlib import Path
from typing import Any

import pytest

from dp_assets.corpus.columns import SourceError
from dp_assets.corpus.prepare import unit_of_user
from dp_assets.settings.profile import Profile
from dp_assets.stages.preview import preview_of
from resources.ledger.ledger_resource import Ledger
from tests.tiny_pipeline import register, tiny_profile, write_corpus

NUM_USERS, NUM_ROWS = 60, 120


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(private_root=str(tmp_path / "private"))


def profile(folder: Path, **corpus: Any) -> Profile:
    return tiny_profile(write_corpus(folder / "corpus.parquet", num_users=NUM_USERS), Path("no model"), **corpus)


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_every_row_and_user_is_counted_and_nothing_of_them_is_kept(tmp_path: Path, ledger: Ledger) -> None:
    shown = preview_of(ledger, profile(tmp_path))
    assert shown["rows"] == NUM_ROWS
    assert shown["columns"]["user_id"]["from"] == "user"
    assert not any(b"number" in path.read_bytes() for path in files_below(tmp_path / "private"))
    assert ledger.state().registrations == {}


def test_a_unit_that_was_erased_is_counted_as_such(tmp_path: Path, ledger: Ledger) -> None:
    asked = profile(tmp_path)
    corpus_id = register(ledger, asked).corpus_id

    def dropped() -> dict[str, int]:
        return {step["rows_that"]: step["dropped"] for step in preview_of(ledger, asked)["steps"]}

    assert "were erased" not in dropped()
    ledger.record_erasure(corpus_id, unit_of_user("user-2", key=ledger.key), "asked for")
    assert dropped()["were erased"] == 3


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path, ledger: Ledger) -> None:
    wrong = profile(tmp_path)
    (tmp_path / "corpus.parquet").unlink()
    with pytest.raises(SourceError, match="corpus"):
        preview_of(ledger, wrong)
