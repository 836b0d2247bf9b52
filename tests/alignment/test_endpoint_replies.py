"""Replies of servers that differ in what they leave out."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from dp_assets.alignment.answers_store import Outcome, Usage
from dp_assets.alignment.endpoint_replies import read_completion, retry_after


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
    ],
)
def test_what_is_of_no_use_is_named_and_its_text_is_not_kept(message: Any, reason: str, outcome: Outcome) -> None:
    assert read_completion(body(message, finish_reason=reason)) == (outcome, "", None)


@pytest.mark.parametrize(
    "garbled",
    [
        "",
        "<html>busy</html>",
        "null",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": null}',
        '{"choices": [1]}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{"message": {"content": {"a": 1}}}]}',
        '{"choices": [{"message": {"content": "\\ud800"}}]}',
        body({"content": "because."})[:-5],
    ],
)
def test_whatever_is_no_chat_completion_is_malformed_and_no_error(garbled: str) -> None:
    assert read_completion(garbled) == (Outcome.MALFORMED, "", None)


@pytest.mark.parametrize("usage", [None, 3, {}, {"prompt_tokens": 3}, {"prompt_tokens": -1, "completion_tokens": 1}])
def test_usage_in_another_form_counts_as_not_reported(usage: Any) -> None:
    assert read_completion(body({"content": "a"}, usage=usage)) == (Outcome.ANSWERED, "a", None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "soon"}, None),
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
