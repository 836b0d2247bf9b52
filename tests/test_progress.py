"""The pace of work over private rows is seen on a terminal only; what is kept gets begin, a fixed beat, and end."""

import io
import os
import pty
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from dp_assets import progress as module
from dp_assets.progress import keep_terminal, private_progress, progress, shown_on

KEPT_LINES = re.compile(r"training: began\n(training: running\n)*training: ended\n")


@contextmanager
def terminal() -> Iterator[tuple[TextIO, int]]:
    """A stream to a pseudo terminal, and the descriptor to read there what it shows."""
    reading, writing = pty.openpty()
    with os.fdopen(writing, "w") as stream:
        yield stream, reading
    os.close(reading)


def seen_on(reading: int) -> str:
    return os.read(reading, 65536).decode()


def train(steps: int = 3) -> None:
    with private_progress("training", steps, "steps") as advance:
        for _ in range(steps):
            advance(1)


def test_what_is_kept_of_private_work_holds_no_step_and_no_time() -> None:
    kept = io.StringIO()
    with shown_on(kept):
        train()
    assert kept.getvalue() == "training: began\ntraining: ended\n"


def test_the_beat_is_slow_enough_for_a_file_that_people_read() -> None:
    assert module.SECONDS_BETWEEN_BEATS >= 300


def test_the_beat_goes_on_while_the_work_makes_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept(io.StringIO):
        beats = 0

        def write(self, text: str) -> int:
            Kept.beats += "running" in text
            if Kept.beats == 3:
                three.set()
            return super().write(text)

    kept, three = Kept(), threading.Event()
    monkeypatch.setattr(module, "SECONDS_BETWEEN_BEATS", 0.01)
    with shown_on(kept), private_progress("training", 3, "steps"):
        assert three.wait(60)
    assert KEPT_LINES.fullmatch(kept.getvalue())


def test_an_error_looks_like_any_other_end() -> None:
    kept = io.StringIO()
    with pytest.raises(ValueError, match="step"), shown_on(kept), private_progress("training", 3, "steps"):
        raise ValueError("in a step")
    assert kept.getvalue() == "training: began\ntraining: ended\n"


def test_a_terminal_shows_every_step_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_REDRAWS", 0.0)
    with terminal() as (stream, reading), shown_on(stream):
        train()
        shown = seen_on(reading)
    assert all(f"training: {done}/3 steps" in shown for done in (1, 2, 3))
    assert "began" not in shown


def test_the_terminal_of_the_command_shows_private_work_though_standard_error_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = io.StringIO()
    monkeypatch.setattr(module._Terminal, "stream", None)
    with terminal() as (stream, reading):
        with monkeypatch.context() as of_the_command:
            of_the_command.setattr(module.sys, "stderr", stream)
            keep_terminal()
        with shown_on(kept):
            train()
        module._Terminal.stream.close()  # type: ignore[union-attr]
        shown = seen_on(reading)
    assert "training: 3/3 steps" in shown
    assert kept.getvalue() == "training: began\ntraining: ended\n"


def test_a_command_without_a_terminal_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Terminal, "stream", None)
    monkeypatch.setattr(module.sys, "stderr", io.StringIO())
    keep_terminal()
    assert module._Terminal.stream is None


def test_public_work_is_counted_wherever_it_is_shown() -> None:
    kept = io.StringIO()
    with shown_on(kept), progress("sampling", 3, "samples") as advance:
        advance(3)
    assert kept.getvalue().startswith("sampling: 3/3 samples")
