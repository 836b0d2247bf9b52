"""One spelling for each user id, so that the same user is one privacy unit whatever wrote the file.

Merging two ids costs rows; taking one user for two would break the guarantee. So ids are merged where a tool may have
respelt them: white space and invisible characters around them, Unicode composition, numbers (`7`, `7.0`, `007`, `7e0`),
the forms of UUIDs, the letter case of booleans, bytes in hexadecimal (`\\x616e6e61`), and JSON (quotes around a string;
of objects the order of keys, missing values and white space). A blank id or an object without a value names nobody,
like a missing one: CSV cannot tell them apart, and its row is a unit of its own.

Words that tools write for a missing value (`nan`, `None`, `NULL`) are ids like any other, because people have such
names: their rows count as those of one user, which costs rows where nobody was meant and splits nobody.

A file that names no user in any row is refused (`require_users`): a wrong column, or a form of ids that nobody reads,
would make every row a unit of its own without a word.

Left out: ids that differ in letter case or in a prefix, where no rule is safe to guess. Clean those at the source.
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
    """A part of a source has rows, and none of them names a user. Whether that is so depends on the rows."""


def require_users(parts: Mapping[str, pl.LazyFrame]) -> None:
    """Require that each part of a source that has rows names a user in one of them.

    Raises:
      NobodyNamed: one has rows and names nobody. The message names the part, so it stays in the private zone.
    """
    for name, rows in parts.items():
        if names_nobody(rows):
            raise NobodyNamed(
                f"{name}: no row that could be read names a user, so that each row would be a unit of its own under"
                " corpus.unit = 'user'. Correct source.columns or the file, take it out of the source, or register"
                " another corpus with corpus.unit = 'instruction'"
            )


def names_nobody(rows: pl.LazyFrame) -> bool:
    """Whether there are rows, and none of them names a user."""
    named = canonical_user_ids(rows.select("user_id")).drop_nulls("user_id")
    return _is_empty(named) and not _is_empty(rows)


def _is_empty(rows: pl.LazyFrame) -> bool:
    return rows.head(1).collect(engine="streaming").is_empty()


def canonical_user_ids(rows: pl.LazyFrame) -> pl.LazyFrame:
    """`user_id` in its one spelling, null where it is blank. Every id is respelt by itself."""
    return rows.with_columns(canonical_id(pl.col("user_id")))


def canonical_id(ids: pl.Expr) -> pl.Expr:
    """Ids in their one spelling, null where they are blank."""
    written = ids.str.normalize("NFC")
    stripped = written.str.replace_all(AROUND, "")
    # An id of nothing but control characters, or of characters newer than the tables here, still names somebody.
    named = pl.when(stripped != "").then(stripped).when(written.str.contains(NOT_BLANK)).then(written)
    return named.map_batches(_all_respelt, return_dtype=pl.String(), is_elementwise=True)


def _all_respelt(user_ids: pl.Series) -> pl.Series:
    respelt = [None if user_id is None else _respelt(user_id) for user_id in user_ids]
    return pl.Series(user_ids.name, respelt, dtype=pl.String)


def _respelt(user_id: str) -> str | None:
    """JSON by what it holds, null if that is nothing; a number by its value; anything else as it is."""
    if user_id[:1] not in ("{", "[", '"'):
        return _scalar(user_id)
    try:
        value = _held(json.loads(user_id, parse_int=str, parse_float=str, parse_constant=lambda _: None))
        respelt = value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)
        (respelt or "").encode()
    except (ValueError, RecursionError):
        return _scalar(user_id)
    return respelt


def _scalar(user_id: str) -> str | None:
    """A number to the last digit, bytes in hexadecimal as what they hold, a UUID, or any other text."""
    if NUMBER.fullmatch(user_id):
        value = Decimal(user_id).normalize(Context(prec=len(user_id), Emax=10**9, Emin=-(10**9)))
        return str(value) if value else "0"
    if found := UUID_TEXT.fullmatch(user_id):
        return str(UUID(found[1]))
    if found := BYTES_TEXT.fullmatch(user_id):
        text = (stored_text(bytes.fromhex(found[1])) or "").strip()
        return text.removeprefix(UNREADABLE) if text.startswith(UNREADABLE) else _respelt(text)
    return user_id.lower() if user_id.lower() in BOOLEANS else user_id or None


def _held(value: object) -> object:
    """JSON without missing and blank values, its scalars as ids are spelt; null if nothing is left."""
    if isinstance(value, Mapping):
        return {key: held for key in value if (held := _held(value[key])) is not None} or None
    if isinstance(value, list):
        parts = [_held(part) for part in value]
        return parts if any(part is not None for part in parts) else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _scalar(unicodedata.normalize("NFC", value).strip())
    return None
