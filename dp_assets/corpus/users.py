"""One spelling for each user id, so that the same user is one privacy unit whatever wrote the file.

Merging two ids costs rows; taking one user for two would break the guarantee. So ids are merged where a tool may have
respelt them: white space and invisible characters around them, Unicode composition, and numbers (`7`, `7.0`, `007`,
`7e0`). A blank id names nobody, like a missing one: CSV cannot tell them apart, and its row is a unit of its own.

Words that tools write for a missing value (`nan`, `None`, `NULL`) are ids like any other, because people have such
names: their rows count as those of one user, which costs rows where nobody was meant and splits nobody.

A file that names no user in any row is refused (`require_users`): a wrong column, or a form of ids that nobody reads,
would make every row a unit of its own without a word.

Left out: ids that differ in letter case or in a prefix, where no rule is safe to guess. Clean those at the source.
"""

import re
from collections.abc import Mapping
from decimal import Context, Decimal

import polars as pl

AROUND = r"^[\s\p{Z}\p{C}]+|[\s\p{Z}\p{C}]+$"
NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,6})?|[+-]?\.[0-9]+(?:[eE][+-]?[0-9]{1,6})?")


class NobodyNamed(ValueError):
    """A part of a source has rows, and none of them names a user. Whether that is so depends on the rows."""


def require_users(parts: Mapping[str, pl.LazyFrame]) -> None:
    """Require that each part of a source that has rows names a user in one of them.

    Raises:
      NobodyNamed: one has rows and names nobody. The message names the part, so it stays in the private zone.
    """
    for name, rows in parts.items():
        named = canonical_user_ids(rows.select("user_id")).drop_nulls("user_id")
        if _is_empty(named) and not _is_empty(rows):
            raise NobodyNamed(
                f"{name}: the column mapped to user_id holds no value in any row, so that each row would be a unit of"
                " its own under corpus.unit = 'user'. Correct source.columns or the file, take it out of the source,"
                " or register another corpus with corpus.unit = 'instruction'"
            )


def _is_empty(rows: pl.LazyFrame) -> bool:
    return rows.head(1).collect(engine="streaming").is_empty()


def canonical_user_ids(rows: pl.LazyFrame) -> pl.LazyFrame:
    """`user_id` in its one spelling, null where it is blank. Every id is respelt by itself."""
    stripped = pl.col("user_id").str.normalize("NFC").str.replace_all(AROUND, "")
    named = pl.when(stripped != "").then(stripped)
    return rows.with_columns(named.map_batches(_numbers_respelt, return_dtype=pl.String(), is_elementwise=True))


def _numbers_respelt(user_ids: pl.Series) -> pl.Series:
    return pl.Series(
        user_ids.name, [None if user_id is None else _respelt(user_id) for user_id in user_ids], dtype=pl.String
    )


def _respelt(user_id: str) -> str:
    """A number by its value, to the last digit; anything else as it is."""
    if NUMBER.fullmatch(user_id) is None:
        return user_id
    value = Decimal(user_id).normalize(Context(prec=len(user_id), Emax=10**9, Emin=-(10**9)))
    return str(value) if value else "0"
