"""Limits for an endpoint: requests and tokens per minute, and a budget in tokens or money.

    RateLimit   Bounds requests and tokens in every window at the server. A request leaves the window one full window
                after its response arrived, and it reached the server before that. So the bound holds however long
                requests were in flight.
    Budget      Reserves the most that a request can use before it is sent, and replaces it by the actual usage
                afterwards. So spent and reserved usage together never exceed the limit.

The tokens of a prompt are bounded by its UTF-8 bytes, because the server's tokenizer is unknown here and no token is
shorter than a byte. Left out: what a server bills for requests whose answer never arrived, which is unknown here.
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
"""The most tokens that a chat template and a default system message add to a prompt."""

LONGEST_SLEEP = 0.5
"""The most seconds that a waiting thread sleeps before it checks whether the run was stopped."""


class Stopped(Exception):
    """The run is ending; this request was not sent."""


class BudgetReached(RuntimeError):
    """The next request might exceed the budget. The message names the setting, the limit and what is spent."""


@dataclass
class Slot:
    """A request in flight. The caller that receives its answer sets `usage` to the actual usage.

    The initial value is what counts without an answer: nothing for the budget, the upper bound for the rate limit.
    """

    usage: Usage


class RateLimit:
    """At most `requests` requests and `tokens` tokens in any `window_seconds`; None means no limit.

    A request larger than `tokens` is sent alone in its window.
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
        """Send no request for this time, because the server asked for it."""
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
        """Return the seconds to wait until a request may fit."""
        events = [self._held_until] if self._held_until > now else []
        events += [self._ended[0][0] + self._window] if self._ended else []
        return min([LONGEST_SLEEP, *(max(event - now, 0.001) for event in events)])


class Budget:
    """At most `tokens` tokens and at most `money` in total; None means no limit.

    `spent` is the usage of earlier runs. Prices are per million tokens, in the unit of `money`. `group` names the
    settings in messages.
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
        """Return the cost of these tokens, in the unit of the prices."""
        input_price, output_price = self._prices
        return (usage.input_tokens * input_price + usage.output_tokens * output_price) / 1e6

    @contextmanager
    def slot(self, most: Usage, stopping: threading.Event) -> Iterator[Slot]:
        """Reserve `most`, after other requests have ended if necessary. Afterwards only the slot's usage is spent.

        Raises:
          BudgetReached: it does not fit, and no request is in flight that could release what it reserved.
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
        """Return words that name the limit which this usage would exceed, or None if it exceeds none."""
        if self._tokens is not None and usage.total > self._tokens:
            return f"{self._group}.budget_tokens is {self._tokens}, and {self._spent.total} are used"
        if self._money is not None and self.cost(usage) > self._money:
            return f"{self._group}.budget_money is {self._money:g}, and {self.cost(self._spent):.4f} is spent"
        return None


def most_usage(*texts: str | None, max_new_tokens: int) -> Usage:
    """Return an upper bound of the usage of a request with these texts."""
    read = sum(len(text.encode()) for text in texts if text)
    return Usage(read + TEMPLATE_TOKENS, max_new_tokens)
