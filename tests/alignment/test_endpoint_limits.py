"""Rate and budget under many threads."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from dp_assets.alignment.answers_store import Usage
from dp_assets.alignment.endpoint_limits import Budget, BudgetReached, RateLimit, Stopped, most_usage

NOTHING, MOST, USED = Usage(), Usage(30, 10), Usage(7, 4)


def budget(*, tokens: int | None = None, money: float | None = None, spent: Usage = NOTHING) -> Budget:
    return Budget(group="judge", tokens=tokens, money=money, input_price=2.0, output_price=8.0, spent=spent)


def in_threads(work: Callable[[], None], *, number: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work) for _ in range(number)]:
            done.result()


def test_a_request_leaves_the_window_only_a_window_after_it_ended() -> None:
    rate, stopping = RateLimit(requests=1, tokens=None, window_seconds=0.1), threading.Event()
    with rate.slot(MOST, stopping):
        time.sleep(0.15)
        ended = time.monotonic()
    with rate.slot(MOST, stopping):
        assert time.monotonic() - ended >= 0.1


def test_no_window_holds_more_than_the_limits_however_the_threads_run() -> None:
    rate, stopping, times = RateLimit(requests=6, tokens=120, window_seconds=0.15), threading.Event(), []

    def work() -> None:
        with rate.slot(MOST, stopping) as slot:
            times.append(time.monotonic())
            slot.usage = USED

    in_threads(work, number=20)
    times.sort()
    assert all(later - earlier >= 0.15 for earlier, later in zip(times, times[6:], strict=False))


def test_tokens_that_were_not_used_are_given_back() -> None:
    rate, stopping = RateLimit(requests=None, tokens=MOST.total + USED.total, window_seconds=60), threading.Event()
    for _ in range(2):
        with rate.slot(MOST, stopping) as slot:
            slot.usage = USED
    waiting = threading.Timer(0.05, stopping.set)
    waiting.start()
    with pytest.raises(Stopped), rate.slot(MOST, stopping):
        pass


def test_a_request_without_an_answer_keeps_counting_as_the_most_it_could_use() -> None:
    rate, stopping = RateLimit(requests=None, tokens=MOST.total + 1, window_seconds=60), threading.Event()
    with pytest.raises(OSError, match="lost"), rate.slot(MOST, stopping):
        raise OSError("lost")
    threading.Timer(0.05, stopping.set).start()
    with pytest.raises(Stopped), rate.slot(MOST, stopping):
        pass


def test_a_request_larger_than_the_limit_goes_alone() -> None:
    rate, stopping = RateLimit(requests=None, tokens=10, window_seconds=0.05), threading.Event()
    for _ in range(2):
        with rate.slot(MOST, stopping):
            pass


def test_nobody_sends_while_the_server_wants_to_be_left_alone() -> None:
    rate, stopping = RateLimit(requests=None, tokens=None), threading.Event()
    rate.hold(0.1)
    start = time.monotonic()
    with rate.slot(MOST, stopping):
        assert time.monotonic() - start >= 0.1


def test_what_is_spent_and_under_way_never_exceeds_the_budget() -> None:
    limited, stopping, lock = budget(tokens=300), threading.Event(), threading.Lock()
    under_way, spent, refused = [0], [0], [0]

    def work() -> None:
        try:
            with limited.slot(MOST, stopping) as slot:
                with lock:
                    under_way[0] += MOST.total
                    assert spent[0] + under_way[0] <= 300
                time.sleep(0.001)
                slot.usage = USED
                with lock:
                    under_way[0] -= MOST.total
                    spent[0] += USED.total
        except BudgetReached:
            with lock:
                refused[0] += 1

    in_threads(work, number=60)
    # A request is refused when not even alone it would fit: 40 more than what is spent.
    assert 300 - MOST.total < spent[0] <= 300
    assert refused[0] == 60 - spent[0] // USED.total


def test_what_earlier_runs_spent_counts_and_lost_requests_do_not() -> None:
    limited, stopping = budget(tokens=100, spent=Usage(30, 20)), threading.Event()
    for _ in range(3):
        with pytest.raises(OSError, match="lost"), limited.slot(MOST, stopping):
            raise OSError("lost")
    with limited.slot(MOST, stopping) as slot:
        slot.usage = USED
    with (
        pytest.raises(BudgetReached, match=r"judge\.budget_tokens is 100, and 61 are used"),
        limited.slot(MOST, stopping),
    ):
        pass


def test_money_is_tokens_times_their_prices_per_million() -> None:
    assert budget().cost(Usage(1_000_000, 500_000)) == 2.0 + 4.0
    with (
        pytest.raises(BudgetReached, match=r"judge\.budget_money is 0\.0001, and 0\.0000 is spent"),
        budget(money=1e-4).slot(MOST, threading.Event()),
    ):
        pass


def test_a_thread_that_waits_for_others_ends_with_the_run() -> None:
    limited, stopping = budget(tokens=MOST.total), threading.Event()
    threading.Timer(0.05, stopping.set).start()
    with limited.slot(MOST, stopping), pytest.raises(Stopped), limited.slot(MOST, stopping):
        pass


def test_a_prompt_is_bounded_by_its_bytes() -> None:
    assert most_usage("é" * 10, None, max_new_tokens=5) == Usage(20 + 100, 5)
