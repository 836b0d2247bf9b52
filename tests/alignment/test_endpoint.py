"""Asking a real HTTP server that fails, stalls, cuts answers off and limits the rate."""

import itertools
import json
import logging
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

import pytest

from dp_assets.alignment.endpoint import DOUBT_AFTER, MOST_ANSWERS, PROBE_TEXT, SENT_HEADERS, EndpointError
from dp_assets.alignment.endpoint_limits import RateLimit
from tests.alignment.asking import PARAMETERS, SAMPLING, asked, endpoint_at, questions
from tests.alignment.fake_endpoint import MODEL, FakeEndpoint, serving

ROOT = Path(__file__).parents[2]
FAILURES = {"error": 0.12, "limited": 0.06, "cut": 0.06, "error_inside": 0.06, "garbled": 0.06}
STALLS = {"stall": 0.02}
KEY = "sk-this-must-stay-inside"


def expected(texts: list[str]) -> list[str]:
    return [f"answer to {text}" for text in texts]


def saved(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_is_lost_and_nothing_is_computed_twice_under_every_failure(answers: Path, seed: int) -> None:
    texts = questions(100)
    with serving(FakeEndpoint(FAILURES | STALLS, seed=seed)) as server:
        result = asked(texts, server.url, answers, timeout_seconds=0.4)
    assert {request.kind for request in server.requests} == {"fine", *FAILURES, *STALLS}
    assert result.texts == expected(texts)
    assert result.dropped == {}
    assert server.computed == dict.fromkeys([*texts, PROBE_TEXT], 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_under_failures_and_useless_answers_together_every_question_is_answered_or_dropped_and_paid_for_at_most_twice(
    answers: Path, seed: int
) -> None:
    texts, useless = questions(100), {"truncated": 0.1, "empty": 0.1, "odd": 0.1, "refused": 0.05}
    with serving(FakeEndpoint(FAILURES | STALLS | useless, seed=seed)) as server:
        result = asked(texts, server.url, answers, timeout_seconds=0.4)
        before = len(server.requests)
        again = asked(texts, server.url, answers)
        assert len(server.requests) == before
    assert {request.kind for request in server.requests} == {"fine", *FAILURES, *STALLS, *useless}
    assert again.texts == result.texts
    assert all(text in ("", f"answer to {question}") for question, text in zip(texts, result.texts, strict=True))
    assert sum(result.dropped.values()) == result.texts.count("") > 0
    assert max(server.computed[text] for text in texts) == MOST_ANSWERS


def test_an_answer_that_arrived_is_never_asked_for_again_though_the_server_ignores_idempotency_keys(
    answers: Path,
) -> None:
    texts = questions(100)
    with serving(FakeEndpoint(FAILURES, honors_idempotency=False)) as server:
        asked(texts[:60], server.url, answers)
        result = asked(texts, server.url, answers)
    assert result.texts == expected(texts)
    assert result.reused == 60
    assert {server.delivered[text] for text in texts} == {1}
    assert sum(server.computed.values()) > sum(server.delivered.values())  # what never arrived could not be saved


def test_answers_come_in_the_order_of_the_questions_whatever_order_they_arrive_in(answers: Path) -> None:
    texts = questions(8)

    def after_the_others(question: str) -> float:
        while question == texts[0] and answers.read_text().count("\n") < len(texts):
            time.sleep(0.005)
        return 0.0

    with serving(FakeEndpoint(delay=after_the_others)) as server:
        result = asked(texts, server.url, answers)
        key = endpoint_at(server.url).key
    assert result.texts == expected(texts)
    assert [line["key"] for line in saved(answers)][-1] == key(texts[0])


def test_a_text_that_occurs_twice_is_asked_once_and_counted_twice(answers: Path) -> None:
    steps: list[int] = []
    with serving(FakeEndpoint()) as server:
        result = asked(["why?", "how?", "why?"], server.url, answers, advance=steps.append)
    assert result.texts == expected(["why?", "how?", "why?"])
    assert sorted(server.questions) == ["how?", "why?"]
    assert sum(steps) == 3


def test_a_finished_table_needs_neither_server_nor_key(answers: Path) -> None:
    texts = questions(5)
    with serving(FakeEndpoint()) as server:
        first = asked(texts, server.url, answers)

    def no_key() -> str:
        raise AssertionError("the key was asked for")

    again = asked(texts, "http://127.0.0.1:9/v1", answers, api_key=no_key)
    assert again.texts == first.texts
    assert again.reused == 5


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"sampling": replace(SAMPLING, temperature=0.1)}, {"system": "Be brief."}]
)
def test_another_model_parameter_or_system_message_is_another_question(change: dict[str, object]) -> None:
    same, other = endpoint_at("http://a/v1"), endpoint_at("http://a/v1", **change)
    assert endpoint_at("http://b/v1", concurrency=1, attempts=2).key("why?") == same.key("why?") != other.key("why?")


def test_a_request_carries_system_message_parameters_and_its_idempotency_key(answers: Path) -> None:
    with serving(FakeEndpoint()) as server:
        asked(["why?"], server.url, answers, system="Be brief.")
        key = endpoint_at(server.url, system="Be brief.").key("why?")
    probe, request = server.requests
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "why?"}]
    assert request.body == {"model": MODEL, "messages": messages, **PARAMETERS}
    assert probe.body == {**request.body, "messages": [messages[0], {"role": "user", "content": PROBE_TEXT}]}
    assert request.headers["idempotency-key"] == f"{key}-0"


@pytest.mark.parametrize("useless", ["truncated", "empty", "odd"])
def test_a_useless_answer_is_asked_for_again_with_another_seed(answers: Path, useless: str) -> None:
    once = FakeEndpoint(plan=lambda question, arrivals: useless if question == "why?" and not arrivals else "fine")
    with serving(once) as server:
        result = asked(["why?"], server.url, answers)
    assert result.texts == expected(["why?"])
    assert [request.body["seed"] for request in server.requests] == [3, 3, 4]
    assert server.computed["why?"] == 2


def test_what_stays_useless_is_dropped_by_reason_and_not_paid_for_again(answers: Path) -> None:
    kinds = {"a": "truncated", "b": "empty", "c": "odd", "d": "refused", "e": "rejected", "f": "fine"}
    texts = list(kinds)
    with serving(FakeEndpoint(plan=lambda question, _: kinds.get(question, "fine"))) as server:
        result = asked(texts, server.url, answers)
        again = asked(texts, server.url, answers)
    assert result.texts == again.texts == ["", "", "", "", "", "answer to f"]
    assert (
        result.dropped == again.dropped == dict.fromkeys(("truncated", "empty", "malformed", "refused", "rejected"), 1)
    )
    assert [server.computed[text] for text in texts] == [2, 2, 2, 1, 0, 1]


def test_an_answer_that_cannot_be_read_is_asked_for_again_and_then_dropped(answers: Path) -> None:
    with serving(FakeEndpoint()) as server:
        result = asked(["why?", "how?"], server.url, answers, is_readable=lambda text: "how" in text)
    assert result.texts == ["", "answer to how?"]
    assert result.dropped == {"unreadable": 1}
    assert server.computed["why?"] == 2


def test_one_question_that_always_fails_does_not_stop_the_others_and_is_tried_by_the_next_run(answers: Path) -> None:
    texts = questions(20)
    poison = FakeEndpoint(plan=lambda question, _: "error" if question == texts[3] else "fine")
    with serving(poison) as server:
        result = asked(texts, server.url, answers, attempts=2)
        poison.plan = None
        before = len(server.questions)
        again = asked(texts, server.url, answers)
    assert result.dropped == {"no_answer": 1}
    assert [text for text in result.texts if text] == expected(texts[:3] + texts[4:])
    assert again.texts == expected(texts)
    assert server.questions[before:] == [texts[3]]


def test_questions_that_always_fail_do_not_stop_a_sound_server_however_many_follow_each_other(answers: Path) -> None:
    texts = questions(20)
    poison = FakeEndpoint(plan=lambda question, _: "error" if question in texts[5:17] else "fine")
    with serving(poison) as server:
        result = asked(texts, server.url, answers, attempts=1)
    assert result.dropped == {"no_answer": 12}
    assert server.requests[-1].question == PROBE_TEXT


INSIDE_200 = ["garbled", "error_inside", "error_in_choice", "limited_inside", "nothing_inside"]


@pytest.mark.parametrize("kind", INSIDE_200)
def test_http_200_without_a_completion_is_repeated_with_the_same_key_and_booked_as_nothing(
    answers: Path, kind: str
) -> None:
    twice = FakeEndpoint(plan=lambda question, arrivals: kind if question == "why?" and arrivals < 4 else "fine")
    with serving(twice) as server:
        result = asked(["why?"], server.url, answers)
    assert result.texts == expected(["why?"])
    assert len({request.headers["idempotency-key"] for request in server.requests[1:]}) == 1
    assert [line["outcome"] for line in saved(answers)] == ["probe", "answered"]


@pytest.mark.parametrize("kind", INSIDE_200)
def test_an_outage_behind_http_200_stops_the_run_and_the_next_one_asks_only_what_failed(
    answers: Path, kind: str
) -> None:
    texts, server_ = questions(40), FakeEndpoint()
    server_.plan = lambda *_: kind if sum(server_.delivered.values()) > 15 else "fine"
    with serving(server_) as server:
        with pytest.raises(EndpointError, match=r"annotation\.endpoint\.base_url .* is saved, so run again"):
            asked(texts, server.url, answers, attempts=2)
        kept = len(saved(answers)) - 1
        assert {line["outcome"] for line in saved(answers)} == {"probe", "answered"}
        server.plan, before = None, len(server.questions)
        assert asked(texts, server.url, answers).reused == kept
    assert len(server.questions) - before == len(texts) - kept
    assert {server.computed[text] for text in texts} == {1}


@pytest.mark.parametrize("kind", ["rejected", "forbidden", "unavailable", "illegal", "forbidden_inside"])
def test_an_http_error_of_one_question_drops_it_and_one_of_all_stops_the_run(answers: Path, kind: str) -> None:
    texts, server_ = questions(20), FakeEndpoint(plan=lambda question, _: kind if "number 3?" in question else "fine")
    with serving(server_) as server:
        result = asked(texts, server.url, answers)
        assert result.dropped == {"rejected": 1}
        assert [text for text in result.texts if text] == expected(texts[:3] + texts[4:])
        assert sum(request.question == PROBE_TEXT for request in server.requests) == 2
        server.plan = lambda *_: kind if sum(server_.delivered.values()) > 30 else "fine"
        more = questions(60)
        with pytest.raises(EndpointError, match=r"annotation\.endpoint"):
            asked(more, server.url, answers)
        assert sum(line["outcome"] == "rejected" for line in saved(answers)) == 1
        server.plan = None
        assert asked(more, server.url, answers).dropped == {"rejected": 1}
    assert {server.computed[text] for text in more if "number 3?" not in text} == {1}


def test_content_in_parts_is_an_answer(answers: Path) -> None:
    with serving(FakeEndpoint(plan=lambda *_: "parts")) as server:
        assert asked(["why?"], server.url, answers).texts == expected(["why?"])


def test_variables_of_openai_in_the_environment_reach_no_endpoint(
    answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", f"of-openai-{name}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/of-openai")
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS", "X-Tenant: of-openai\nAuthorization: Bearer of-openai\nCookie: of-openai"
    )
    with serving(FakeEndpoint(key=KEY)) as server:
        asked(["why?"], server.url, answers, api_key=lambda: KEY)
    for request in [*server.requests, *server.listings]:
        assert "of-openai" not in str(dict(request.headers))
        assert set(request.headers) <= SENT_HEADERS
        assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("sound_probes", [1, 2])
def test_a_server_that_goes_down_near_the_end_is_no_reason_to_drop_questions(answers: Path, sound_probes: int) -> None:
    texts = questions(10)

    def plan(question: str, arrivals: int) -> str:
        down = arrivals >= sound_probes if question == PROBE_TEXT else question in texts[-2:]
        return "error" if down else "fine"

    with serving(FakeEndpoint(plan=plan)) as server, pytest.raises(EndpointError, match="gives no answer"):
        asked(texts, server.url, answers, attempts=1)
    assert len(saved(answers)) == 8 + sound_probes


def test_a_server_that_goes_down_stops_the_run_and_the_next_one_goes_on(answers: Path) -> None:
    texts = questions(60)
    server_ = FakeEndpoint()
    server_.plan = lambda *_: "error" if sum(server_.delivered.values()) > 20 else "fine"
    with serving(server_) as server:
        with pytest.raises(EndpointError, match=r"base_url .* gives no answer \(HTTP 500\).* is saved, so run again"):
            asked(texts, server.url, answers, attempts=2)
        kept = len(saved(answers)) - 1
        assert 20 <= kept <= 20 + 8
        assert len(server.questions) <= kept + 4 * (DOUBT_AFTER + 8)
        server.plan = None
        assert asked(texts, server.url, answers).reused == kept
    assert {server.computed[text] for text in texts} == {1}


def test_retry_after_is_honored(answers: Path) -> None:
    limited = FakeEndpoint(
        plan=lambda question, arrivals: "limited" if question != PROBE_TEXT and not arrivals else "fine",
        retry_after="0.25",
    )
    with serving(limited) as server:
        asked(["why?"], server.url, answers)
    _, refused, repeated = server.requests
    assert repeated.arrived - refused.arrived >= 0.25


def test_a_wait_of_hours_ends_the_run_instead(answers: Path) -> None:
    with (
        serving(FakeEndpoint(plan=lambda *_: "limited", retry_after="7200")) as server,
        pytest.raises(EndpointError, match="left alone for 7200 seconds"),
    ):
        asked(["why?"], server.url, answers)


def test_the_rate_of_requests_holds_in_every_window_at_the_server(answers: Path) -> None:
    window, most = 0.4, 10
    with serving(FakeEndpoint({"error": 0.2}, delay=lambda _: 0.01)) as server:
        asked(questions(30), server.url, answers, rate=RateLimit(requests=most, tokens=None, window_seconds=window))
    times = sorted(request.arrived for request in server.requests)
    assert len(times) > 30
    assert all(later - earlier >= window for earlier, later in zip(times, times[most:], strict=False))


def test_the_rate_of_tokens_holds_in_every_window_at_the_server(answers: Path) -> None:
    window, most = 0.3, 400
    with serving(FakeEndpoint(delay=lambda _: 0.01)) as server:
        asked(questions(40), server.url, answers, rate=RateLimit(requests=None, tokens=most, window_seconds=window))
    requests = sorted(server.requests, key=lambda request: request.arrived)
    for start in requests:
        inside = [other.tokens for other in requests if 0 <= other.arrived - start.arrived < window]
        assert sum(inside) <= most
    assert requests[-1].arrived - requests[0].arrived >= window


@pytest.mark.parametrize(
    ("budget", "named"), [({"budget_tokens": 900}, "budget_tokens is 900"), ({"budget_money": 3e-3}, "budget_money is")]
)
def test_a_budget_is_never_exceeded_and_what_it_paid_for_is_kept(
    answers: Path, budget: dict[str, float], named: str
) -> None:
    texts = questions(80)
    with serving(FakeEndpoint(FAILURES)) as server:
        with pytest.raises(EndpointError, match=rf"annotation\.endpoint\.{named}.*are saved\. Raise the limit"):
            asked(texts, server.url, answers, **budget)
        usages = [line["usage"] for line in saved(answers)]
        kept = len(usages) - 1
        assert 20 < kept < 80
        read, written = (sum(usage[name] for usage in usages) for name in ("input_tokens", "output_tokens"))
        assert read + written <= 900 if "budget_tokens" in budget else (read + 10 * written) / 1e6 <= 3e-3
        asked_before = len(server.questions)
        with pytest.raises(EndpointError, match=named):
            asked(texts, server.url, answers, **budget)
        assert len(server.questions) <= asked_before + 8  # the limit holds for all runs together
        assert asked(texts, server.url, answers).texts == expected(texts)
    assert {server.computed[text] for text in texts} == {1}


def test_usage_that_the_server_does_not_report_is_counted_as_the_most_it_can_be(answers: Path) -> None:
    with serving(FakeEndpoint(reports_usage=False)) as server:
        asked(["why?"], server.url, answers)
    usage = saved(answers)[-1]["usage"]
    assert usage == {"input_tokens": len("why?") + 100, "output_tokens": 20}


def closed_port() -> FakeEndpoint:
    with serving(FakeEndpoint()) as server:
        return server


MISTAKES = {
    "key": (FakeEndpoint(key="another"), {}, r"does not accept the key \(HTTP 401\); check .*api_key_variable"),
    "model": (FakeEndpoint(), {"model": "huge"}, rf"model 'huge' is unknown .*it offers {MODEL}"),
    "parameters": (FakeEndpoint(plan=lambda *_: "rejected"), {}, r"rejects the request \(HTTP 400\); .*`omitted`"),
    "no chat": (FakeEndpoint(plan=lambda *_: "garbled"), {}, r"does not answer with a chat completion; .*/v1"),
    "credit": (FakeEndpoint(plan=lambda *_: "no_credit"), {}, r"api_key_variable has no credit left"),
    "unpaid": (FakeEndpoint(plan=lambda *_: "unpaid"), {}, r"api_key_variable has no credit left"),
    "credit inside": (FakeEndpoint(plan=lambda *_: "no_credit_inside"), {}, r"api_key_variable has no credit left"),
    "right": (FakeEndpoint(plan=lambda *_: "forbidden"), {}, r"does not accept the key \(HTTP 403\)"),
    "law": (FakeEndpoint(plan=lambda *_: "illegal"), {}, r"may not serve annotation\.endpoint\.model here"),
    "down": (FakeEndpoint(plan=lambda *_: "error"), {"attempts": 2}, r"base_url .* gives no answer \(HTTP 500\)"),
    "slow": (
        FakeEndpoint(plan=lambda *_: "stall"),
        {"attempts": 1, "timeout_seconds": 0.1},
        r"base_url .* gives no answer \(timed out\)",
    ),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_named_before_anything_but_a_probe_was_sent(answers: Path, mistake: str) -> None:
    server, changes, message = MISTAKES[mistake]
    with serving(server), pytest.raises(EndpointError, match=message) as refusal:
        asked(questions(3), server.url, answers, api_key=lambda: KEY, **changes)
    assert "annotation.endpoint." in str(refusal.value)
    assert {request.question for request in server.requests} == {PROBE_TEXT}


def test_an_endpoint_that_nobody_serves_is_named_with_its_remedy(answers: Path) -> None:
    address = closed_port().url
    with pytest.raises(EndpointError, match=r"gives no answer \(no connection\); start the server"):
        asked(questions(3), address, answers, attempts=2)


@pytest.mark.parametrize("server", [FakeEndpoint(key="another"), FakeEndpoint(FAILURES, key=KEY)])
def test_the_key_is_sent_and_is_in_no_log_message_or_file(
    answers: Path, server: FakeEndpoint, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
    said = ""
    with serving(server):
        try:
            asked(questions(30), server.url, answers, api_key=lambda: KEY)
        except EndpointError as error:
            said = "".join(traceback.format_exception(error))
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert caplog.records
    assert KEY not in caplog.text + said + answers.read_text() + repr(endpoint_at("http://a/v1", api_key=lambda: KEY))


class Held:
    """The delay of a server that answers 25 questions and then nobody until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self._asked = itertools.count()

    def __call__(self, _: str) -> float:
        if next(self._asked) < 25:
            return 0.0
        self.released.wait(60)
        return 0.05


def run_in_a_process(server: FakeEndpoint, answers: Path, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.alignment.asking", server.url, str(answers), str(number)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)


def wait_for_answers(answers: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while not answers.exists() or len(answers.read_text().splitlines()) < number:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("honors", [True, False])
def test_a_killed_run_goes_on_and_pays_for_nothing_that_it_had_received(answers: Path, honors: bool) -> None:
    texts, held = questions(60), Held()
    with serving(FakeEndpoint(FAILURES, honors_idempotency=honors, delay=held)) as server:
        with run_in_a_process(server, answers, 60) as process:
            wait_for_answers(answers, 15)
            process.kill()
        held.released.set()
        kept = {line["key"] for line in saved(answers)}
        before = len(server.questions)
        result = asked(texts, server.url, answers)
        key = endpoint_at(server.url).key
    assert result.texts == expected(texts)
    assert 14 <= result.reused < 60
    assert [text for text in server.questions[before:] if key(text) in kept] == []
    if honors:
        assert {server.computed[text] for text in texts} == {1}


@pytest.mark.slow
def test_an_interrupted_run_waits_for_what_is_under_way_and_saves_it(answers: Path) -> None:
    texts, held = questions(60), Held()
    with serving(FakeEndpoint(honors_idempotency=False, delay=held)) as server:
        with run_in_a_process(server, answers, 60) as process:
            wait_for_answers(answers, 25)
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            held.released.set()
        assert process.returncode not in (0, None)
        assert len(server.questions) < 60
        assert asked(texts, server.url, answers).texts == expected(texts)
    assert {server.computed[text] for text in texts} == {1}
