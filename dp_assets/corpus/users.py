r"""Canonical user ids, so that one user is one privacy unit whichever tool wrote the file.

Merging two users costs rows. Splitting one user in two would break the user-level guarantee. So two spellings are
merged wherever a tool may have rewritten the id:

- white space and invisible characters around it, and Unicode composition
- numbers (`7`, `7.0`, `007`, `7e0`)
- the forms of UUIDs, and the letter case of booleans
- bytes in hexadecimal (`\x616e6e61`)
- JSON: quotes around a string; in objects the order of keys, missing values and white space

A blank id, or an object without a value, counts as missing, because CSV cannot tell these apart. Its row is a unit of
its own.

Words that tools write for a missing value (`nan`, `None`, `NULL`) are ids like any other, because people have such
names. Their rows count as those of one user, which may cost rows and splits nobody.

A file that names no user in any row is refused (`require_users`). The cause is a wrong column or a form of ids that is
not read, and it would silently make every row a unit of its own.

Left out: ids that differ in letter case or in a prefix, where no rule is safe. Clean those at the source.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from decimal import Context, Decimal
from uuid import UUID

import polars as pl

from dp_assets.corpus.values import NUMBER, UNREADABLE, stored_text

AROUND = r"^[\s\p{Z}\p{C}]+|[\s\p{Z}\p{C}]+$"
NOT_BLANK = r"[^\s\p{Z}\p{Cf}]"
UUID_TEXT = re.compile(r"(?:urn:uuid:)?[{(]?([0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12})[)}]?", re.IGNORECASE)
BYTES_TEXT = re.compile(r"\\x((?:[0-9a-f]{2})+)", re.IGNORECASE)
BOOLEANS = ("true", "false")


class NobodyNamed(ValueError):
    """A part of a source has rows, and none of them names a user. This depends on private rows."""


def require_users(parts: Mapping[str, pl.LazyFrame]) -> None:
    """Require that each part of a source that has rows names a user in at least one row.

    Raises:
      NobodyNamed: a part has rows and names no user. The message names the part, so it stays in the private zone.
    """
    for name, rows in parts.items():
        if names_nobody(rows):
            raise NobodyNamed(
                f"{name}: no readable row names a user, so each row would be a unit of its own under"
                " corpus.unit = 'user'. Correct source.columns or the file, take it out of the source, or register"
                " another corpus with corpus.unit = 'instruction'"
            )


def names_nobody(rows: pl.LazyFrame) -> bool:
    """Return whether there are rows and none of them names a user."""
    named = canonical_user_ids(rows.select("user_id")).drop_nulls("user_id")
    return _is_empty(named) and not _is_empty(rows)


def _is_empty(rows: pl.LazyFrame) -> bool:
    return rows.head(1).collect(engine="streaming").is_empty()


def canonical_user_ids(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows with a canonical `user_id`, null where it is blank. No id depends on another one."""
    return rows.with_columns(canonical_id(pl.col("user_id")))


def canonical_id(ids: pl.Expr) -> pl.Expr:
    """Return the ids in canonical form, null where they are blank."""
    written = ids.str.normalize("NFC")
    stripped = written.str.replace_all(AROUND, "")
    # An id of control characters only, or of characters newer than the Unicode tables here, still names a user.
    named = pl.when(stripped != "").then(stripped).when(written.str.contains(NOT_BLANK)).then(written)
    return named.map_batches(_all_respelled, return_dtype=pl.String(), is_elementwise=True)


def _all_respelled(user_ids: pl.Series) -> pl.Series:
    respelled = [None if user_id is None else _respelled(user_id) for user_id in user_ids]
    return pl.Series(user_ids.name, respelled, dtype=pl.String)


def _respelled(user_id: str) -> str | None:
    """Return the canonical form of one id: JSON by its content (null if empty), else see `_scalar`."""
    if user_id[:1] not in ("{", "[", '"'):
        return _scalar(user_id)
    try:
        value = _without_missing(json.loads(user_id, parse_int=str, parse_float=str, parse_constant=lambda _: None))
        respelled = value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)
        (respelled or "").encode()
    except (ValueError, RecursionError):
        return _scalar(user_id)
    return respelled


def _scalar(user_id: str) -> str | None:
    """Return the canonical form of an id that is not JSON.

    Numbers keep every digit, hexadecimal bytes become the text they encode, UUIDs get their standard form, and any
    other text stays as it is.
    """
    if NUMBER.fullmatch(user_id):
        value = Decimal(user_id).normalize(Context(prec=len(user_id), Emax=10**9, Emin=-(10**9)))
        return str(value) if value else "0"
    if match := UUID_TEXT.fullmatch(user_id):
        return str(UUID(match[1]))
    if match := BYTES_TEXT.fullmatch(user_id):
        text = (stored_text(bytes.fromhex(match[1])) or "").strip()
        return text.removeprefix(UNREADABLE) if text.startswith(UNREADABLE) else _respelled(text)
    return user_id.lower() if user_id.lower() in BOOLEANS else user_id or None


def _without_missing(value: object) -> object:
    """Return a JSON value without missing and blank parts, its scalars in canonical form; None if nothing is left."""
    if isinstance(value, Mapping):
        return {key: part_value for key in value if (part_value := _without_missing(value[key])) is not None} or None
    if isinstance(value, list):
        parts = [_without_missing(part) for part in value]
        return parts if any(part is not None for part in parts) else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _scalar(unicodedata.normalize("NFC", value).strip())
    return None
