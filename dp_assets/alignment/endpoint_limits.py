"""How fast and how much an endpoint may be asked: requests and tokens a minute, and a budget in tokens or money.

    RateLimit   In every window at the server there are at most so many requests and tokens. A request leaves the window
                one full window after its response arrived, and it reached the server before that, so the claim holds
                however long each was under way.
    Budget      The most that a request can use is set aside before it is sent and replaced by what it used, so what is
                spent and what is under way never exceed the limit together.

Tokens of a prompt are bounded by its UTF-8 bytes, because a tokenizer is the server's affair and no token is shorter
than a byte. Left out: what a server bills for requests whose answer never arrived; nobody can know it here.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dp_assets.alignment.answers_store import Usage

MINUTE = 60.0
TEMPLATE_TOKENS = 100
"""What a chat template and a default system message add to a prompt at most."""

LONGEST_SLEEP = 0.5
"""Seconds after which a waiting thread looks whether the run was stopped."""


class Stopped(Exception):
    """The run is ending; this request was not sent."""


class BudgetReached(RuntimeError):
    """The next request might exceed the budget; the message names the setting, the limit and what is spent."""


@dataclass
class Slot:
    """A request under way. Whoever gets its answer sets `usage` to what it used.

    Until then it is what counts without an answer: nothing is spent, but the rate may have been used in full.
    """

    usage: Usage


class RateLimit:
    """At most `requests` requests and `tokens` tokens in any `window_seconds`; None means no limit.

    A request larger than `tokens` goes alone in its window.
    """

    def __init__(self, *, requests: int | None, tokens: int | None, window_seconds: float = MINUTE) -> None:
        self._limits, self._window = (requests, tokens), window_seconds
        self._changed = threading.Condition()
        self._requests, self._tokens = 0, 0
        self._ended: deque[tuple[float, int]] = deque()
        self._held_until = 0.0

    @contextmanager
    def slot(self, most: Usage, stopping: threading.Event) -> Iterator[Slot]:
        """Wait until a request of this size may be sent, and count it from then on.

        Raises:
          Stopped: `stopping` was set meanwhile.
        """
        self._enter(most.total, stopping)
        slot = Slot(most)
        try:
            yield slot
        finally:
            with self._changed:
                self._tokens += slot.usage.total - most.total
                self._ended.append((time.monotonic(), slot.usage.total))
                self._changed.notify_all()

    def hold(self, seconds: float) -> None:
        """Let nobody send for so long, because the server asked for it."""
        with self._changed:
            self._held_until = max(self._held_until, time.monotonic() + seconds)

    def _enter(self, tokens: int, stopping: threading.Event) -> None:
        with self._changed:
            while not stopping.is_set():
                now = time.monotonic()
                self._forget(now)
                if now >= self._held_until and self._fits(tokens):
                    self._requests += 1
                    self._tokens += tokens
                    return
                self._changed.wait(self._pause(now))
        raise Stopped

    def _forget(self, now: float) -> None:
        while self._ended and self._ended[0][0] + self._window <= now:
            self._tokens -= self._ended.popleft()[1]
            self._requests -= 1

    def _fits(self, tokens: int) -> bool:
        most_requests, most_tokens = self._limits
        if most_requests is not None and self._requests >= most_requests:
            return False
        return most_tokens is None or self._requests == 0 or self._tokens + tokens <= most_tokens

    def _pause(self, now: float) -> float:
        """Seconds until the next thing that may change the answer."""
        events = [self._held_until] if self._held_until > now else []
        events += [self._ended[0][0] + self._window] if self._ended else []
        return min([LONGEST_SLEEP, *(max(event - now, 0.001) for event in events)])


class Budget:
    """At most `tokens` tokens and `money` in all, of which `spent` was spent by earlier runs; None means no limit.

    Prices are per million tokens, in the unit of `money`. `group` names the settings in messages.
    """

    def __init__(
        self,
        *,
        group: str,
        tokens: int | None,
        money: float | None,
        input_price: float,
        output_price: float,
        spent: Usage,
    ) -> None:
        self._group, self._tokens, self._money = group, tokens, money
        self._prices = (input_price, output_price)
        self._spent, self._set_aside = spent, Usage()
        self._under_way = 0
        self._changed = threading.Condition()

    def cost(self, usage: Usage) -> float:
        """What these tokens cost."""
        input_price, output_price = self._prices
        return (usage.input_tokens * input_price + usage.output_tokens * output_price) / 1e6

    @contextmanager
    def slot(self, most: Usage, stopping: threading.Event) -> Iterator[Slot]:
        """Set `most` aside, waiting for other requests to end if need be; afterwards only the slot's usage is spent.

        Raises:
          BudgetReached: it does not fit, and nothing is under way that could give back what it set aside.
          Stopped: `stopping` was set meanwhile.
        """
        self._set_aside_for(most, stopping)
        slot = Slot(Usage())
        try:
            yield slot
        finally:
            with self._changed:
                self._set_aside += Usage(-most.input_tokens, -most.output_tokens)
                self._spent += slot.usage
                self._under_way -= 1
                self._changed.notify_all()

    def _set_aside_for(self, most: Usage, stopping: threading.Event) -> None:
        with self._changed:
            while not stopping.is_set():
                exceeded = self._exceeded_by(self._spent + self._set_aside + most)
                if exceeded is None:
                    self._set_aside += most
                    self._under_way += 1
                    return
                if self._under_way == 0:
                    raise BudgetReached(exceeded)
                self._changed.wait(LONGEST_SLEEP)
        raise Stopped

    def _exceeded_by(self, usage: Usage) -> str | None:
        """Which limit this usage would exceed, in words."""
        if self._tokens is not None and usage.total > self._tokens:
            return f"{self._group}.budget_tokens is {self._tokens}, and {self._spent.total} are used"
        if self._money is not None and self.cost(usage) > self._money:
            return f"{self._group}.budget_money is {self._money:g}, and {self.cost(self._spent):.4f} is spent"
        return None


def most_usage(*texts: str | None, max_new_tokens: int) -> Usage:
    """The most that a request with these texts can use."""
    read = sum(len(text.encode()) for text in texts if text)
    return Usage(read + TEMPLATE_TOKENS, max_new_tokens)
