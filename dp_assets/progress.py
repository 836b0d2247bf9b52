"""Live progress on standard error: the finished amount, the total, and the estimated remaining time.

Only public quantities are counted: steps of a plan, synthetic samples, rows of released tables. While private rows are
read, standard error leads into the private zone. Public progress is then shown on the stream that `shown_on` names.

The pace of work over private rows depends on them: a step of private training takes longer for a larger batch. So its
progress is shown live on the terminal of the operator only, who is trusted. Streams that are stored (Dagster's compute
logs, a file, a pipe) get the beginning and the end of such work, and a message at fixed intervals in between.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_REDRAWS = 0.2
SECONDS_BETWEEN_BEATS = 600.0

Advance = Callable[[int], None]

_outside: ContextVar[TextIO | None] = ContextVar("outside", default=None)


class _Terminal:
    """The terminal of the person who started the command, if there is one."""

    stream: TextIO | None = None


def keep_terminal() -> None:
    """Keep this process's terminal for live progress, because Dagster redirects standard error during a step."""
    if sys.stderr.isatty():
        _Terminal.stream = os.fdopen(os.dup(sys.stderr.fileno()), "w")


def silent(_: int) -> None:
    """Do nothing: the `Advance` that shows no progress."""


@contextmanager
def shown_on(stream: TextIO) -> Iterator[None]:
    """Show progress on `stream` within the block, wherever standard error leads."""
    token = _outside.set(stream)
    try:
        yield
    finally:
        _outside.reset(token)


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Advance]:
    """Show `label` with a count towards `total`. Call the yielded function with each increment.

    A terminal gets one line that is redrawn in place; other streams get a line now and then.
    """
    with _counted_on(_outside.get() or sys.stderr, label, total, unit) as advance:
        yield advance


@contextmanager
def private_progress(label: str, total: int, unit: str) -> Iterator[Advance]:
    """Show progress of work whose pace depends on private rows: live on a terminal, and no counts elsewhere."""
    outside = _outside.get() or sys.stderr
    if outside.isatty():
        with _counted_on(outside, label, total, unit) as advance:
            yield advance
        return
    with _beating_on(outside, label):
        if _Terminal.stream is None:
            yield silent
            return
        with _counted_on(_Terminal.stream, label, total, unit) as advance:
            yield advance


@contextmanager
def _beating_on(stream: TextIO, label: str) -> Iterator[None]:
    """Report the beginning of work, at fixed intervals that it still runs, and its end, successful or not."""
    ended = threading.Event()

    def say(what: str) -> None:
        stream.write(f"{label}: {what}\n")
        stream.flush()

    def beat() -> None:
        while not ended.wait(SECONDS_BETWEEN_BEATS):
            say("running")

    beating = threading.Thread(target=beat, daemon=True)
    say("began")
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        say("ended")


@contextmanager
def _counted_on(stream: TextIO, label: str, total: int, unit: str) -> Iterator[Advance]:
    started, shown_at, done = time.monotonic(), 0.0, 0
    interval = SECONDS_BETWEEN_REDRAWS if stream.isatty() else SECONDS_BETWEEN_LINES

    def show(now: float) -> None:
        elapsed = now - started
        remaining = f", {elapsed / done * (total - done):.0f} s left" if 0 < done < total else ""
        line = f"{label}: {done}/{total} {unit}, {elapsed:.0f} s{remaining}"
        stream.write(f"\r\x1b[2K{line}" if stream.isatty() else f"{line}\n")
        stream.flush()

    def advance(increment: int) -> None:
        nonlocal done, shown_at
        done += increment
        now = time.monotonic()
        if now - max(shown_at, started) >= interval:
            show(now)
            shown_at = now

    try:
        yield advance
    finally:
        show(time.monotonic())
        if stream.isatty():
            stream.write("\n")
