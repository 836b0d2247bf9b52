"""Converts stored values to ids, instructions and times. Each value is converted by itself, the same for every reader.

    stored value -> (`stored_text`, by its form) -> text -> (by the column it is mapped to) -> id, instruction, time

A value that is present never becomes null because its form is not understood. `stored_text` handles every form or
raises. An instruction that cannot be read becomes `UNREADABLE`; a time that cannot be read becomes null beside its
text, so that `columns.py` can tell it from a missing one. Either way its row can be dropped and counted.
"""

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import singledispatch
from typing import Any
from uuid import UUID

# Noncharacters of Unicode, which no text should hold. They mark the text of a value that was not text.
UNREADABLE = "\ufdd0"
STRUCTURED = "\ufdd1"

ROLE_KEYS = ("role", "from", "sender")
CONTENT_KEYS = ("content", "value", "text", "parts")
CONVERSATION_KEYS = ("messages", "conversations", "conversation")
ROLES_OF_A_USER = ("user", "human", "prompter")
TYPES_OF_TEXT = (None, "text", "input_text")

NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,6})?|[+-]?\.[0-9]+(?:[eE][+-]?[0-9]{1,6})?")
FLOAT = re.compile(r"[+-]?(?:[0-9](?:\.[0-9]+)?[eE]\+?[0-9]{2,3}|[0-9]{16,}\.[0-9]*)")
"""How tools write floats from 1e16 on: with an exponent, or as 16 or more digits and a point."""
WITHIN = re.compile(rf"(?<![\w.+-]){FLOAT.pattern}(?![\w.+-])")
FIRST_INEXACT = 2**53
"""From here on, two whole numbers may be the same 64-bit float."""
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The years for which numbers are read as times since the epoch. The ranges of the four units are disjoint, and no
# compact date such as 20260111 lies in one.
FIRST_SECOND, LAST_SECOND = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1990, 2100))
UNITS_IN_A_SECOND = (1, 10**3, 10**6, 10**9)
ISO_8601 = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})(?:[ T]([0-9:.,]+))?\s*(Z|UTC|GMT|[+-][0-9:]+)?")


@singledispatch
def stored_text(value: object) -> str | None:
    """Return a value as text.

    - A missing value (NaN too) becomes None.
    - Text that is not UTF-8 begins with `UNREADABLE`, objects and lists with `STRUCTURED`.

    Raises:
      TypeError: values of this type have no known text. A text that changed from row to row would split a user in two.
    """
    raise TypeError(f"values of type {type(value).__name__} cannot be read")


@stored_text.register
def _(value: None) -> None:
    return None


@stored_text.register
def _(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return UNREADABLE + value.encode(errors="backslashreplace").decode()
    return value


@stored_text.register(bytes)
@stored_text.register(bytearray)
@stored_text.register(memoryview)
def _(value: bytes | bytearray | memoryview) -> str:
    r"""Return bytes as the text they encode, without zero padding; else 16 bytes as a UUID, others as `\x` and hex."""
    stored = bytes(value)
    try:
        text = stored.decode().rstrip("\0")
        is_text = not stored or (text != "" and CONTROL.search(text) is None)
    except UnicodeDecodeError:
        is_text = False
    return text if is_text else UNREADABLE + (str(UUID(bytes=stored)) if len(stored) == 16 else f"\\x{stored.hex()}")


@stored_text.register(int)
@stored_text.register(UUID)
@stored_text.register(timedelta)
@stored_text.register(ipaddress.IPv4Address)
@stored_text.register(ipaddress.IPv6Address)
@stored_text.register(ipaddress.IPv4Network)
@stored_text.register(ipaddress.IPv6Network)
def _(value: object) -> str:
    return str(value)


@stored_text.register
def _(value: bool) -> str:
    return str(value).lower()


@stored_text.register
def _(value: float) -> str | None:
    """Return whole numbers without a fraction, because a tool that meets one missing id may turn user 1 into user 1.0.

    From `FIRST_INEXACT` on they keep the form of a float, so that `is_inexact` recognizes them.
    """
    if value != value:
        return None
    return str(int(value)) if value.is_integer() and abs(value) < FIRST_INEXACT else str(value)


@stored_text.register
def _(value: Decimal) -> str | None:
    if value.is_nan():
        return None
    is_whole = value.is_finite() and value == value.to_integral_value()
    return format(value.to_integral_value(), "f") if is_whole else str(value)


@stored_text.register(date)
@stored_text.register(time)
def _(value: date | time) -> str:
    in_utc = value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value
    return in_utc.isoformat()


@stored_text.register(Mapping)
@stored_text.register(list)
@stored_text.register(tuple)
def _(value: Mapping[Any, Any] | Sequence[Any]) -> str:
    return STRUCTURED + json.dumps(value, default=stored_text)


def is_inexact(text: str) -> bool:
    """Return whether an id is or contains a float of at least `FIRST_INEXACT`, which may stand for several numbers."""
    written = text.removeprefix(STRUCTURED).strip()
    if written[:1] in ("{", "[", '"'):
        floats = WITHIN.findall(written)
    else:
        floats = [written] if FLOAT.fullmatch(written) else []
    return any(abs(Decimal(number)) >= FIRST_INEXACT for number in floats)


def instruction_of(text: str) -> str | None:
    """Return the text itself, or the first user turn of chat messages.

    - None if the messages hold no user turn; `UNREADABLE` for what is neither a text nor messages.
    - Messages may be stored as such or written as JSON, alone or under one of `CONVERSATION_KEYS`.
    - Only a text that begins with a bracket or brace is parsed.
    """
    if text.startswith(UNREADABLE):
        return UNREADABLE
    is_structured = text.startswith(STRUCTURED)
    written = text.removeprefix(STRUCTURED)
    messages = _messages(written) if written.lstrip()[:1] in ("[", "{") else None
    if messages is None or (not messages and not is_structured):
        return UNREADABLE if is_structured else text
    return first_user_turn_of(messages)


def first_user_turn_of(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the first user turn: the texts of its parts, without pictures and files."""
    for message in messages:
        if str(_first(message, ROLE_KEYS)).lower() in ROLES_OF_A_USER:
            said = "\n".join(_words(_first(message, CONTENT_KEYS)))
            return UNREADABLE if (stored_text(said) or "").startswith(UNREADABLE) else said or None
    return None


def time_of(text: str) -> datetime | None:
    """Return the time in UTC that a text names, None if it names none. A text without an offset is taken as UTC.

    - ISO 8601 as databases and data tools write it: `2026-01-11 09:00:07.123+00`, `2026-01-11T09:00Z`, `... UTC`,
      `20260111`.
    - Seconds, milliseconds, microseconds or nanoseconds since 1970, for the years 1990 to 2099.
    """
    stripped = text.strip()
    if NUMBER.fullmatch(stripped) and (since_epoch := _since_epoch(Decimal(stripped))) is not None:
        return EPOCH + since_epoch
    match = ISO_8601.fullmatch(stripped.upper())
    if match is None:
        return None
    day, clock, zone = match.groups()
    try:
        named = datetime.fromisoformat(f"{day}T{clock}" if clock else day)
        shift = datetime.fromisoformat(f"1970-01-01T00:00{zone}").utcoffset() if zone and zone[0] in "+-" else None
        return named.replace(tzinfo=UTC) - (shift or timedelta())
    except (ValueError, OverflowError):
        return None


def _since_epoch(number: Decimal) -> timedelta | None:
    for units in UNITS_IN_A_SECOND:
        if FIRST_SECOND * units <= number < LAST_SECOND * units:
            return timedelta(microseconds=int(number * 10**6 / units))
    return None


def _messages(written: str) -> Sequence[Mapping[str, Any]] | None:
    """Return the messages that a JSON text holds, None if it holds anything else."""
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, Mapping):
        value = [value] if _is_message(value) else _first(value, CONVERSATION_KEYS)
    return value if isinstance(value, list) and all(map(_is_message, value)) else None


def _is_message(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    has_content = any(key in value for key in CONTENT_KEYS)
    return has_content and isinstance(_first(value, ROLE_KEYS), str)


def _first(form: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((form[key] for key in keys if form.get(key) is not None), None)


def _words(content: object) -> list[str]:
    if isinstance(content, list):
        return [words for part in content for words in _words(part)]
    if isinstance(content, Mapping):
        return _words(_first(content, CONTENT_KEYS)) if content.get("type") in TYPES_OF_TEXT else []
    return [] if content is None else [str(content)]
