"""Reads JSON from untrusted authors: a text has exactly one meaning, or it is refused."""

import json
import math
from typing import Any, NoReturn

from dp_assets.privacy.errors import PublicError

MOST_BYTES = 16 * 2**20
MOST_LETTERS = 2_000
"""The longest message about a file, so that its author cannot flood the reader."""


class StatementError(PublicError, ValueError):
    """A statement cannot be made or read, or its content does not follow from its own facts."""


def strict_json(content: bytes, *, most_bytes: int = MOST_BYTES) -> Any:
    """Return the JSON value of a file.

    Refused are names that occur twice in an object, NaN and infinity, numbers too large for a float, lone surrogates, a
    byte-order mark, anything but UTF-8, text after the value, nesting too deep to read safely, and files of more than
    `most_bytes`.

    Raises:
      StatementError: the content is refused, or not JSON.
    """
    if len(content) > most_bytes:
        raise StatementError(f"the file has more than {most_bytes} bytes, which no statement has")
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_repetition,
            parse_constant=_refused_constant,
            parse_float=_finite,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on a lone surrogate
        return value
    except StatementError:
        raise
    except (ValueError, RecursionError):
        raise StatementError("the file is not JSON in UTF-8, or is nested too deeply") from None


def canonical(value: Any) -> str:
    """Return the canonical form of a JSON value, used for digests and comparisons.

    It distinguishes 1 from 1.0 and from true, and 0.0 from -0.0.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise StatementError(
            f"the name {repeated[:100]!r} occurs twice in one object, so readers may see different values"
        )
    return value


def _refused_constant(name: str) -> NoReturn:
    raise StatementError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise StatementError(f"the number {text[:20]} is too large")
    return value
