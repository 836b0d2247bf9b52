"""Checkpoints are private, whole, without generator state, continued once, and held by one live process."""

import os
import signal
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dp_assets.dpsgd.checkpoints import Checkpoints, StaleCheckpoint, TrainingInProgress, TrainingState

STATE = TrainingState(
    parameters={"a": torch.arange(6.0).view(2, 3)},
    optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]},
    steps_taken=3,
    continuations=1,
    observed={"steps": 3, "noise_energy": 1.5, "noise_digests": ["ab", "cd"], "noised_tensors": None},
)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "private" / "charge")


def note_draws(checkpoints: Checkpoints, number: int) -> None:
    for _ in range(number):
        checkpoints.note_draw()


def loaded(checkpoints: Checkpoints) -> TrainingState:
    state = checkpoints.load()
    assert state is not None
    return state


def test_a_state_survives_being_stored(checkpoints: Checkpoints) -> None:
    checkpoints.save(STATE)
    state = loaded(checkpoints)
    assert torch.equal(state.parameters["a"], STATE.parameters["a"])
    assert state.optimizer == STATE.optimizer
    assert replace(state, parameters={}, optimizer={}, nonce="") == replace(STATE, parameters={}, optimizer={})


def test_nothing_saved_loads_as_none(checkpoints: Checkpoints) -> None:
    assert checkpoints.load() is None


def test_every_save_has_a_name_of_its_own(checkpoints: Checkpoints) -> None:
    digests = set()
    for _ in range(3):
        checkpoints.save(STATE)
        digests.add(loaded(checkpoints).digest)
        assert loaded(checkpoints).nonce not in digests  # the public name does not give the nonce away
    assert len(digests) == 3


def test_files_are_for_the_owner_only(checkpoints: Checkpoints, tmp_path: Path) -> None:
    with checkpoints.locked():
        checkpoints.save(STATE)
        checkpoints.note_draw()
    folder = tmp_path / "private" / "charge"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "state.pt": 0o600,
        "lock": 0o600,
        "drawn": 0o600,
    }


def test_a_folder_left_open_to_others_is_closed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "private" / "charge"
    folder.mkdir(parents=True, mode=0o755)
    checkpoints.save(STATE)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_checkpoint_holds_no_generator_state(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save(STATE)
    stored = torch.load(tmp_path / "private" / "charge" / "state.pt", weights_only=True)
    assert stored.keys() == {"parameters", "optimizer", "steps_taken", "continuations", "observed", "nonce"}


def test_a_checkpoint_of_an_earlier_version_is_none(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save(STATE)
    file = tmp_path / "private" / "charge" / "state.pt"
    content = torch.load(file, weights_only=True)
    torch.save({name: value for name, value in content.items() if name != "observed"} | {"noise_draws": 4}, file)
    assert checkpoints.load() is None
    checkpoints.require(None)


def test_a_save_that_fails_half_way_leaves_the_old_checkpoint(checkpoints: Checkpoints) -> None:
    checkpoints.save(STATE)
    before = loaded(checkpoints).nonce
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        checkpoints.save(replace(STATE, optimizer={"unwritable": lambda: None}))
    assert loaded(checkpoints).nonce == before
    checkpoints.save(STATE)
    assert loaded(checkpoints).nonce != before


def test_only_the_checkpoint_on_disk_is_continued(checkpoints: Checkpoints) -> None:
    checkpoints.require(None)
    checkpoints.save(STATE)
    note_draws(checkpoints, 3)
    first = loaded(checkpoints)
    checkpoints.require(first)
    checkpoints.save(STATE)
    with pytest.raises(StaleCheckpoint):
        checkpoints.require(first)
    with pytest.raises(StaleCheckpoint):
        checkpoints.require(None)


@pytest.mark.parametrize(("drawn", "fits"), [(2, False), (3, True), (5, True), (6, False)])
def test_a_checkpoint_goes_on_if_each_lost_draw_is_a_continuation(
    checkpoints: Checkpoints, drawn: int, fits: bool
) -> None:
    checkpoints.save(STATE)  # three steps and one continuation; to go on is a second one
    note_draws(checkpoints, drawn)
    assert checkpoints.is_accounted(loaded(checkpoints)) is fits


def test_a_discarded_checkpoint_is_gone(checkpoints: Checkpoints) -> None:
    checkpoints.save(STATE)
    checkpoints.discard()
    assert checkpoints.load() is None
    checkpoints.discard()


def test_the_lock_excludes_a_second_holder_and_ends_with_its_block(checkpoints: Checkpoints, tmp_path: Path) -> None:
    second = Checkpoints(tmp_path / "private" / "charge")
    with checkpoints.locked(), pytest.raises(TrainingInProgress), second.locked():
        pass
    with second.locked():
        pass


def test_the_lock_survives_a_discard(checkpoints: Checkpoints, tmp_path: Path) -> None:
    second = Checkpoints(tmp_path / "private" / "charge")
    with checkpoints.locked():
        checkpoints.discard()
        with pytest.raises(TrainingInProgress), second.locked():
            pass


def fork_lock_holder(checkpoints: Checkpoints) -> int:
    """The id of a process that holds the lock until it is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with checkpoints.locked():
            os.write(writing, b"held")
            signal.pause()
    assert os.read(reading, 4) == b"held"
    return child


def test_the_lock_of_a_live_process_holds_and_dies_with_it(checkpoints: Checkpoints) -> None:
    child = fork_lock_holder(checkpoints)
    try:
        with pytest.raises(TrainingInProgress), checkpoints.locked():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with checkpoints.locked():
        pass
