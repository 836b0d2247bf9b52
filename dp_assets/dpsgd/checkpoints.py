"""Private checkpoints of DP-SGD: resume an interrupted training, and never resume from one checkpoint twice.

    start    saved before any private row is read; a continuation is already counted in it
    draw     appended to a separate file before noise is drawn, and kept until the checkpoint is discarded
    step k   saved after every noisy update

A checkpoint holds the adapter, the optimizer state and counters. It holds no state of a random generator, so a
continuation draws fresh randomness. Every save has a fresh nonce, and the digest of the nonce names the checkpoint in
the ledger.

A checkpoint is continued at most once. Training resumes only from the checkpoint on disk, and replaces it under a new
nonce before it reads a row, however the training ends. An exclusive lock keeps a second process out. The operating
system releases the lock when its holder dies.

Adapter and optimizer state after a noisy step are post-processing. How many steps were lost, when and why is not
covered by the accounting, so the folder belongs to the private zone (directory 0700, files 0600).
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
    """Training must not resume from this checkpoint: load the one on disk, or discard it under a new charge."""


@dataclass(frozen=True)
class TrainingState:
    """The state of a training between two noisy steps.

    - `parameters`: CPU tensors by name.
    - `optimizer`: the optimizer's `state_dict`.
    - `continuations`: how often training was resumed after an interruption.
    - `observed`: the run monitor's observations so far, for the evidence. These are numbers, names and SHA-256 digests
      of the noise. The digests detect a repeated draw; no draw can be recomputed from them.
    - `nonce`: set by `Checkpoints.save`.
    """

    parameters: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    steps_taken: int
    continuations: int
    observed: Mapping[str, Any]
    nonce: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the nonce: the public name of this checkpoint."""
        return hashlib.sha256(self.nonce.encode()).hexdigest()


class Checkpoints:
    """The current checkpoint of one charge, in its own private folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "state.pt"
        self._unfinished = folder / "state.pt.tmp"
        self._drawn = folder / "drawn"
        self._lock = folder / "lock"

    def save(self, state: TrainingState) -> None:
        """Replace the checkpoint with `state` under a fresh nonce.

        A crash at any moment leaves either the old checkpoint or the new one intact.
        """
        self._make_folder()
        content = {name: getattr(state, name) for name in state.__dataclass_fields__} | {"nonce": secrets.token_hex(16)}
        with open(os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(self._unfinished, self._file)
        self._sync_folder()

    def note_draw(self) -> None:
        """Record durably that noise is about to be drawn, whether or not its step reaches a checkpoint."""
        with open(os.open(self._drawn, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as stream:
            stream.write(b".")
            stream.flush()
            os.fsync(stream.fileno())
        self._sync_folder()

    def is_accounted(self, state: TrainingState) -> bool:
        """Whether every recorded draw of noise is covered by the accounting if training resumes from `state`.

        A draw is covered if it belongs to a step of `state`, to a past continuation, or to the continuation that would
        start now. Each continuation is accounted as one lost step. If more steps were lost, training must not resume.
        """
        drawn = self._drawn.stat().st_size if self._drawn.exists() else 0
        return 0 <= drawn - state.steps_taken <= state.continuations + 1

    def load(self) -> TrainingState | None:
        """Return the current checkpoint with its tensors on the CPU, or None if none was saved.

        Also None if an earlier version of this code saved it: its observations would not support a claim.
        """
        if not self._file.exists():
            return None
        content = torch.load(self._file, map_location="cpu", weights_only=True)
        return TrainingState(**content) if content.keys() == TrainingState.__dataclass_fields__.keys() else None

    def require(self, expected: TrainingState | None) -> None:
        """Check that the checkpoint on disk is `expected`. None means that there is no checkpoint.

        Raises:
          StaleCheckpoint: it is not, because another continuation replaced it or because an unfinished training would
            be overwritten; or noise was drawn that no continuation accounts for.
        """
        current = self.load()
        if (current and current.nonce) != (expected and expected.nonce):
            raise StaleCheckpoint("resume_from is not the checkpoint on disk; load it again, or discard it")
        if expected is not None and not self.is_accounted(expected):
            raise StaleCheckpoint("more steps were lost than are accounted for; discard it under a new charge")

    def discard(self) -> None:
        """Remove the checkpoint after the release was stored.

        The lock file stays, because a lock on a removed file excludes no other process.
        """
        for file in (self._unfinished, self._file, self._drawn):
            file.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the exclusive lock until the block or the process ends.

        Raises:
          TrainingInProgress: another live process holds the lock.
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
        """Make changes of the folder's entries, such as a rename, durable."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
