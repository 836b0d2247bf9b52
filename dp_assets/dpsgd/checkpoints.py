"""Private checkpoints: what a crashed training needs to go on, and what keeps it from going on twice.

    start    saved before any private row is read, with the continuation counted
    draw     noted in a file of its own before noise is drawn, and never taken back
    step k   saved after every noisy update

A checkpoint holds the adapter, the optimizer and counters, and no generator state: a continuation draws fresh
randomness. Every save carries a fresh nonce, whose digest names the checkpoint in the ledger. A checkpoint is
continued once: training goes on only from the checkpoint that is on disk, and replaces it under the next nonce before
it reads a row, however it ends. An exclusive lock keeps a second process out; the operating system drops it when its
holder dies.

Adapter and optimizer after a noisy step are post-processing, but how many steps were lost, when and why, is not
covered by the account; so the folder belongs to the private zone (directory 0700, files 0600).
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dp_assets.privacy.errors import PublicError


class TrainingInProgress(PublicError, RuntimeError):
    """Another live process trains on these checkpoints; wait for it, or end it."""


class StaleCheckpoint(PublicError, RuntimeError):
    """The checkpoint on disk is not the one to go on from: continue that one, or discard it under a new charge."""


@dataclass(frozen=True)
class TrainingState:
    """A point between two noisy steps.

    `parameters` are CPU tensors by name and `optimizer` is its `state_dict`. `continuations` counts how often
    training went on after an interruption. `observed` is what was observed so far, for the evidence: numbers, names
    and SHA-256 digests of the noise, which show a noise that comes twice and replay none. `nonce` is given by
    `Checkpoints.save`.
    """

    parameters: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    steps_taken: int
    continuations: int
    observed: Mapping[str, Any]
    nonce: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the nonce: the public name of this very checkpoint."""
        return hashlib.sha256(self.nonce.encode()).hexdigest()


class Checkpoints:
    """The one current checkpoint of one charge, in a private folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "state.pt"
        self._unfinished = folder / "state.pt.tmp"
        self._drawn = folder / "drawn"
        self._lock = folder / "lock"

    def save(self, state: TrainingState) -> None:
        """Replace the checkpoint by `state` under a fresh nonce; a crash at any moment leaves one of the two whole."""
        self._make_folder()
        content = {name: getattr(state, name) for name in state.__dataclass_fields__} | {"nonce": secrets.token_hex(16)}
        with open(os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(self._unfinished, self._file)
        self._sync_folder()

    def note_draw(self) -> None:
        """Note durably that noise is about to be drawn, whether or not a checkpoint will hold what comes of it."""
        with open(os.open(self._drawn, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as stream:
            stream.write(b".")
            stream.flush()
            os.fsync(stream.fileno())
        self._sync_folder()

    def is_accounted(self, state: TrainingState) -> bool:
        """Whether each draw that was noted is a step of `state`, or is accounted for by a continuation or the next one.

        Each continuation is accounted as one lost step, so a checkpoint kept less often than that must not go on.
        """
        drawn = self._drawn.stat().st_size if self._drawn.exists() else 0
        return 0 <= drawn - state.steps_taken <= state.continuations + 1

    def load(self) -> TrainingState | None:
        """The current checkpoint, tensors on the CPU, or None where none was saved, or an earlier version saved it.

        What such a version observed would not be enough for a claim, so it is not continued.
        """
        if not self._file.exists():
            return None
        content = torch.load(self._file, map_location="cpu", weights_only=True)
        return TrainingState(**content) if content.keys() == TrainingState.__dataclass_fields__.keys() else None

    def require(self, expected: TrainingState | None) -> None:
        """Check that `expected` is what is on disk; None stands for no checkpoint.

        Raises:
          StaleCheckpoint: it is not. Another continuation was faster, an unfinished training would be overwritten, or
            noise was drawn that no continuation accounts for.
        """
        current = self.load()
        if (current and current.nonce) != (expected and expected.nonce):
            raise StaleCheckpoint("resume_from is not the checkpoint on disk; load it again, or discard it")
        if expected is not None and not self.is_accounted(expected):
            raise StaleCheckpoint("more steps were lost than are accounted for; discard it under a new charge")

    def discard(self) -> None:
        """Remove the checkpoint, once the release is stored.

        The lock file stays: a lock on a removed file excludes nobody.
        """
        for file in (self._unfinished, self._file, self._drawn):
            file.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the exclusive lock, which ends with the block or with the process.

        Raises:
          TrainingInProgress: another holder lives.
        """
        self._make_folder()
        with open(os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600), "rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TrainingInProgress("another process holds the lock of these checkpoints; wait for it") from None
            yield

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)

    def _sync_folder(self) -> None:
        """Make the rename itself durable."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
