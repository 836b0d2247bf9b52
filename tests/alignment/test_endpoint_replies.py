"""Replies of servers that differ in what they leave out."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from dp_assets.alignment.answers_store import Outcome, Usage
from dp_assets.alignment.endpoint_replies import NoCompletion, read_completion, retry_after


def body(message: Any, *, finish_reason: str | None = "stop", **rest: Any) -> str:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish_reason}], **rest})


@pytest.mark.parametrize("reason", ["stop", "eos", None])
def test_an_answer_loses_the_white_space_around_it(reason: str | None) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    read = read_completion(body({"content": " because.\n"}, finish_reason=reason, usage=usage))
    assert read == (Outcome.ANSWERED, "because.", Usage(3, 2))


@pytest.mark.parametrize(
    ("message", "reason", "outcome"),
    [
        ({"content": "beca"}, "length", Outcome.TRUNCATED),
        ({"content": " \n"}, "stop", Outcome.EMPTY),
        ({"content": None, "tool_calls": []}, "tool_calls", Outcome.EMPTY),
        ({"content": "Sorry", "refusal": "no"}, "stop", Outcome.REFUSED),
        ({"content": "beca"}, "content_filter", Outcome.REFUSED),
        ({"content": "beca"}, "SAFETY", Outcome.REFUSED),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, "stop", Outcome.REFUSED),
        ({"content": None, "reasoning_content": "hm"}, "stop", Outcome.EMPTY),
        ({"content": "", "reasoning": "hm"}, "length", Outcome.TRUNCATED),
        ({"content": [{"type": "image_url", "image_url": {}}]}, "stop", Outcome.EMPTY),
        (None, "content_filter", Outcome.REFUSED),
        (None, "length", Outcome.TRUNCATED),
        (None, "stop", Outcome.EMPTY),
    ],
)
def test_what_is_of_no_use_is_named_and_its_text_is_not_kept(message: Any, reason: str, outcome: Outcome) -> None:
    assert read_completion(body(message, finish_reason=reason)) == (outcome, "", None)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": " be"}, {"type": "text", "text": "cause. "}], "because."),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "so"}], "so"),
        ([{"type": "output_text", "text": "so", "annotations": []}], "so"),
        ([{"text": "so"}], "so"),
        (["be", "cause."], "because."),
    ],
)
def test_content_in_parts_is_the_text_of_its_parts(content: Any, text: str) -> None:
    assert read_completion(body({"content": content})) == (Outcome.ANSWERED, text, None)


@pytest.mark.parametrize(
    "message",
    [
        {"content": {"a": 1}},
        {"content": 7},
        {"content": "\ud800"},
        {"content": [{"type": "text", "text": None}]},
        {"content": [7]},
        {"content": [{"type": "text"}]},
        [1],
    ],
)
def test_a_completion_in_another_form_is_malformed_and_its_tokens_count(message: Any) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    assert read_completion(body(message, usage=usage)) == (Outcome.MALFORMED, "", Usage(3, 2))


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("", None),
        ("<html>busy</html>", None),
        ("null", None),
        ("[]", None),
        ("{}", None),
        ("[" * 100_000, None),
        ('{"choices": []}', None),
        ('{"choices": null}', None),
        ('{"choices": [1]}', None),
        ('{"detail": "Not authenticated"}', None),
        ('data: {"choices": [{"delta": {"content": "a"}}]}', None),
        (body({"content": "because."})[:-5], None),
        ('{"error": "overloaded"}', 500),
        ('{"error": {"message": "busy"}}', 500),
        ('{"error": {"code": 429}}', 429),
        ('{"error": {"code": "502"}}', 502),
        ('{"error": {"code": "rate_limited", "status": 429}}', 429),
        ('{"error": {"code": -1}, "choices": null}', 500),
        ('{"error": {"code": "insufficient_quota"}}', 402),
        ('{"choices": [{"error": {"code": 503}, "message": {"content": "bec"}}]}', 503),
        (body({"content": "bec"}, error={"code": 408}), 408),
        (body({"content": "bec"}, finish_reason="error"), 500),
        (body({"content": "bec"}, finish_reason="insufficient_system_resource"), 500),
        (body({"content": "bec"}, finish_reason="abort"), 500),
    ],
)
def test_what_holds_no_completion_is_as_good_as_no_reply(reply: str, status: int | None) -> None:
    with pytest.raises(NoCompletion) as raised:
        read_completion(reply)
    assert raised.value.status == status


@pytest.mark.parametrize("usage", [None, 3, {}, {"prompt_tokens": 3}, {"prompt_tokens": -1, "completion_tokens": 1}])
def test_usage_in_another_form_counts_as_not_reported(usage: Any) -> None:
    assert read_completion(body({"content": "a"}, usage=usage)) == (Outcome.ANSWERED, "a", None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00"}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_a_server_asks_to_be_left_alone_in_seconds_or_milliseconds(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds


def test_a_server_asks_to_be_left_alone_until_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (retry_after({"retry-after": later}) or 0) <= 100
