"""Parsing of the replies of an OpenAI-compatible server, without trust in their form.

Servers omit different fields, and proxies may answer instead of a server. A reply is either a completion, which was
computed and is paid for even if its answer is useless, or no completion (`NoCompletion`), which is treated as no reply.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from dp_assets.alignment.answers_store import Outcome, Usage

# Values of `finish_reason` besides `stop` and its synonyms. Services put their own words into OpenAI's field.
CUT_OFF = frozenset(["length", "max_tokens", "model_length"])
FILTERED = frozenset(["content_filter", "safety", "recitation", "prohibited_content", "blocklist", "sensitive"])
BROKEN_OFF = frozenset(["error", "network_error", "insufficient_system_resource", "abort", "aborted"])
NO_CREDIT = frozenset(["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"])
STATUS_OF_NO_CREDIT, UNNAMED = 402, 500


class NoCompletion(Exception):
    """A reply with HTTP 200 that holds no completion: an error inside it, a proxy's page, or half a reply.

    `status` is the HTTP status that an error inside it stands for, or None without an error.
    """

    def __init__(self, status: int | None = None) -> None:
        super().__init__("no chat completion")
        self.status = status


def read_completion(body: str) -> tuple[Outcome, str, Usage | None]:
    """Return the outcome of a completion, its text, and the usage that it reports.

    - The text is stripped of white space around it. It is empty unless the outcome is ANSWERED.
    - The usage is None if the server reports none.

    Raises:
      NoCompletion: the body is no completion.
    """
    try:
        content = json.loads(body.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        raise NoCompletion from None
    if not isinstance(content, dict):
        raise NoCompletion
    choices = content.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    error = content.get("error") or (choice.get("error") if isinstance(choice, dict) else None)
    if error or not isinstance(choice, dict):
        raise NoCompletion(_status_of(error) if error else None)
    if _finished(choice) in BROKEN_OFF:
        raise NoCompletion(UNNAMED)
    try:
        return *_outcome(choice), _usage(content.get("usage"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Outcome.MALFORMED, "", _usage(content.get("usage"))


def _finished(choice: Mapping[str, Any]) -> str:
    return str(choice.get("finish_reason")).lower()


def _status_of(error: Any) -> int:
    """Return the HTTP status that an error inside a reply stands for."""
    fields = error if isinstance(error, dict) else {}
    names = [str(fields.get(name)) for name in ("code", "status", "status_code", "type")]
    if NO_CREDIT.intersection(names):
        return STATUS_OF_NO_CREDIT
    statuses = [int(name) for name in names if name.isascii() and name.isdigit() and 400 <= int(name) < 600]
    return statuses[0] if statuses else UNNAMED


def _outcome(choice: Mapping[str, Any]) -> tuple[Outcome, str]:
    """Return outcome and text of a choice of a chat completion. A choice of another form raises Python's own error."""
    message, finished = choice.get("message") or {}, _finished(choice)
    text, refusal = _text_and_refusal(message.get("content"))
    if refusal or message.get("refusal") or finished in FILTERED:
        return Outcome.REFUSED, ""
    if finished in CUT_OFF:
        return Outcome.TRUNCATED, ""
    text.encode()  # raises on half of a surrogate pair, which is legal in JSON but in no table
    return (Outcome.ANSWERED, text) if text else (Outcome.EMPTY, "")


def _text_and_refusal(content: Any) -> tuple[str, bool]:
    """Return the text of a message and whether it holds a refusal. Parts that are no text (thoughts) are left out."""
    if content is None or isinstance(content, str):
        return (content or "").strip(), False
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in _listed(content)]
    texts = [part["text"] for part in parts if part.get("type") in ("text", "output_text") or "type" not in part]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    return "".join(texts).strip(), any(part.get("type") == "refusal" for part in parts)


def _listed(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError
    return content


def _usage(reported: Any) -> Usage | None:
    if not isinstance(reported, dict):
        return None
    tokens = [reported.get(name) for name in ("prompt_tokens", "completion_tokens")]
    counts = [number for number in tokens if type(number) is int and number >= 0]
    return Usage(*counts) if len(counts) == len(tokens) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, from `retry-after-ms` or `Retry-After` (seconds or a date).

    Returns None if it does not say.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
