"""Single random edits of a JSON value or of the bytes that spell it, as a forger or a broken disk may make them."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

NAMES = ("", "guarantee.cohort_epsilon", "epsilon", "guarantee", "digest", "note", "\u0435psilon", "cohort_epsilon ")
SNIPPETS = (
    b'"": 0.05,',
    b"NaN",
    b"Infinity",
    b"1e999",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\x00",
    b" ",
    b"\n",
    b"0.05,",
    b"//",
    b'"',
)
LIKE = {"e": "\u0435", "a": "\u0430", "8": "\uff18", "-": "\u2010", "0": "O", "1": "l"}
Place = tuple[Any, Any]  # a container and a key or index in it


def places(value: Any) -> list[Place]:
    """Every place of a JSON value that holds another."""
    found: list[Place] = []
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found += [(value, key), *places(value[key])]
    return found


def edited(value: Any, chance: random.Random) -> Any:
    """A copy with one change in it."""
    changed = copy.deepcopy(value)
    container, key = chance.choice(places(changed))
    chance.choice(OPERATIONS)(container, key, chance)
    return changed


def edited_text(content: bytes, chance: random.Random) -> bytes:
    """The bytes with one change in them."""
    at = chance.randrange(len(content) + 1)
    lines = content.splitlines(keepends=True)
    line = chance.randrange(len(lines))
    match chance.randrange(7):
        case 0:
            return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
        case 1:
            return content[:at] + content[at + 1 :]
        case 2:
            return content[:at] + chance.choice(SNIPPETS) + content[at:]
        case 3:  # The same name again, with another value.
            again = lines[line].replace(b"7", b"0").replace(b"true", b"false")
            return b"".join([*lines[:line], again, *lines[line:]])
        case 4:
            return b"".join([*lines[:line], *lines[line + 1 :]])
        case 5:
            return chance.choice(SNIPPETS) + content
        case _:
            return content + chance.choice(SNIPPETS)


def _another_value(container: Any, key: Any, chance: random.Random) -> None:
    match container[key]:
        case bool() as value:
            container[key] = chance.choice([not value, int(value), None, str(value).lower()])
        case int() | float() as value:
            container[key] = _another_number(value, chance)
        case str() as value:
            container[key] = _another_text(value, chance)
        case value:
            container[key] = chance.choice([None, 0.05, [], {}, [value], {"value": value}])


def _another_number(value: float, chance: random.Random) -> Any:
    size = 10 ** chance.uniform(-6, 0) * chance.choice([-1, 1])
    other_kind = float(value) if isinstance(value, int) else int(value)
    return chance.choice(
        [value * (1 + size), value * (1 + size), value + 1, -value, -0.0, 0, 1e308, other_kind, str(value), None, True]
    )


def _another_text(value: str, chance: random.Random) -> Any:
    at = chance.randrange(len(value) + 1)
    like = "".join(LIKE.get(letter, letter) for letter in value[at:])
    letter = chance.choice("0123456789abcdef .\u200b\u202e<*|")
    return chance.choice(
        [value[:at] + letter + value[at + 1 :], value[:at] + like, value + " ", value.upper(), "", 8, None]
    )


def _without(container: Any, key: Any, _: random.Random) -> None:
    del container[key]


def _with_another(container: Any, key: Any, chance: random.Random) -> None:
    if isinstance(container, dict):
        container[chance.choice([*NAMES, f"{key}.x", f" {key}"])] = chance.choice([0.05, container[key], None])
    else:
        container.insert(key, copy.deepcopy(container[key]))


def _elsewhere(container: Any, key: Any, chance: random.Random) -> None:
    """Under another name, or in another place of a list."""
    value = container.pop(key)
    if isinstance(container, dict):
        container[chance.choice([*NAMES, f"{key}s", key.upper()])] = value
    else:
        container.insert(chance.randrange(len(container) + 1), value)


OPERATIONS: tuple[Callable[[Any, Any, random.Random], None], ...] = (
    _another_value,
    _another_value,
    _another_value,
    _without,
    _with_another,
    _elsewhere,
)


def spelled(document: Any) -> bytes:
    """A document as the pipeline writes it."""
    return json.dumps(document, indent=2).encode()
