"""What the replies of an OpenAI-compatible server say, read without trust in their form.

Servers differ in what they leave out, and proxies answer in their place, so whatever is no chat completion is MALFORMED
and never an error.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from dp_assets.alignment.answers_store import Outcome, Usage


def read_completion(body: str) -> tuple[Outcome, str, Usage | None]:
    """What a response's body is, its text without white space around if it is of use, and the tokens it reports."""
    try:
        content = json.loads(body)
        (choice, *_) = content["choices"]
        return *_outcome(choice), _usage(content.get("usage"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Outcome.MALFORMED, "", None


def _outcome(choice: Mapping[str, Any]) -> tuple[Outcome, str]:
    """What a choice of a chat completion is. One of another form raises what Python raises on it."""
    message, finished = choice["message"], choice.get("finish_reason")
    if message.get("refusal") or finished == "content_filter":
        return Outcome.REFUSED, ""
    if finished == "length":
        return Outcome.TRUNCATED, ""
    text = (message.get("content") or "").strip()
    text.encode()  # raises on half of a surrogate pair, which is legal in JSON and in no table
    return (Outcome.ANSWERED, text) if text else (Outcome.EMPTY, "")


def _usage(reported: Any) -> Usage | None:
    if not isinstance(reported, dict):
        return None
    tokens = [reported.get(name) for name in ("prompt_tokens", "completion_tokens")]
    counts = [number for number in tokens if isinstance(number, int) and number >= 0]
    return Usage(*counts) if len(counts) == len(tokens) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to be left alone, from `retry-after-ms` or `Retry-After` (seconds or a date)."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
