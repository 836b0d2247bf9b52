"""Live progress of public work on standard error: what is done, of how many, and how long it will still take.

Only public quantities are counted: steps of a plan, synthetic samples, rows of released tables. Work over private rows
shows no progress, because its pace tells how many there are. While private rows are read, standard error leads into the
private zone; what is public is then shown on the stream that `shown_on` names.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_REDRAWS = 0.2

Advance = Callable[[int], None]

_outside: ContextVar[TextIO | None] = ContextVar("outside", default=None)


def silent(_: int) -> None:
    """The `Advance` that shows nothing."""


@contextmanager
def shown_on(stream: TextIO) -> Iterator[None]:
    """Show progress on `stream` meanwhile, wherever standard error leads."""
    token = _outside.set(stream)
    try:
        yield
    finally:
        _outside.reset(token)


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Advance]:
    """Show `label` with a count towards `total`; the yielded function is called with each increment.

    A terminal gets one line redrawn in place, anything else a line now and then.
    """
    stream, started, shown, done = _outside.get() or sys.stderr, time.monotonic(), 0.0, 0
    interval = SECONDS_BETWEEN_REDRAWS if stream.isatty() else SECONDS_BETWEEN_LINES

    def show(now: float) -> None:
        elapsed = now - started
        remaining = f", {elapsed / done * (total - done):.0f} s left" if 0 < done < total else ""
        line = f"{label}: {done}/{total} {unit}, {elapsed:.0f} s{remaining}"
        stream.write(f"\r\x1b[2K{line}" if stream.isatty() else f"{line}\n")
        stream.flush()

    def advance(increment: int) -> None:
        nonlocal done, shown
        done += increment
        now = time.monotonic()
        if now - max(shown, started) >= interval:
            show(now)
            shown = now

    try:
        yield advance
    finally:
        show(time.monotonic())
        if stream.isatty():
            stream.write("\n")
