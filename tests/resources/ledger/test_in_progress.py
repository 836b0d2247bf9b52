"""One run at a time makes a release; others are refused before they pay, and a lock ends with its holder."""

from pathlib import Path

import pytest

from resources.ledger.in_progress import only_run_making
from resources.ledger.ledger_resource import ChargeRefused


def test_a_second_run_of_one_release_is_refused_and_of_another_is_not(tmp_path: Path) -> None:
    with only_run_making(str(tmp_path), "one"):
        with (
            pytest.raises(ChargeRefused, match="another run makes this release"),
            only_run_making(str(tmp_path), "one"),
        ):
            pass
        with only_run_making(str(tmp_path), "other"):
            pass


def test_the_lock_ends_with_its_block_however_that_ends(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), only_run_making(str(tmp_path), "one"):
        raise KeyboardInterrupt
    with only_run_making(str(tmp_path), "one"):
        pass


def test_its_file_is_closed_to_others(tmp_path: Path) -> None:
    with only_run_making(str(tmp_path), "one"):
        (file,) = (path for path in tmp_path.rglob("one") if path.is_file())
        assert file.stat().st_mode & 0o077 == 0
