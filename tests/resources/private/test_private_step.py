"""Steps that read private rows run side by side, and what excludes them all runs alone."""

from pathlib import Path

import pytest

from dp_assets.privacy.errors import PublicError
from resources.private.private_log import PrivateStepFailed
from resources.private.private_step import StepsRunning, no_private_step, private_step


def test_steps_run_side_by_side_and_nothing_else_runs_beside_one(tmp_path: Path) -> None:
    with (
        private_step(str(tmp_path)),
        private_step(str(tmp_path)),
        pytest.raises(StepsRunning, match="wait for it"),
        no_private_step(str(tmp_path)),
    ):
        pass
    with no_private_step(str(tmp_path)), pytest.raises(StepsRunning), no_private_step(str(tmp_path)):
        pass


def test_a_step_that_fails_gives_the_lock_back_and_says_nothing_outside(tmp_path: Path) -> None:
    with pytest.raises(PrivateStepFailed) as failure, private_step(str(tmp_path)):
        raise ValueError("a row of somebody")
    assert "somebody" not in str(failure.value)
    with no_private_step(str(tmp_path)):
        pass


def test_a_public_error_passes(tmp_path: Path) -> None:
    with pytest.raises(PublicError, match="the column is missing"), private_step(str(tmp_path)):
        raise PublicError("the column is missing")
