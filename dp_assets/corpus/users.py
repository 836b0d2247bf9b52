"""One spelling for each user id, so that the same user is one privacy unit whatever wrote the file.

Merging two ids costs rows; taking one user for two would break the guarantee. So ids are merged where a tool may have
respelt them: white space and invisible characters around them, Unicode composition, and numbers (`7`, `7.0`, `007`,
`7e0`). A blank id names nobody, like a missing one: CSV cannot tell them apart, and its row is a unit of its own.

Left out: ids that differ in letter case or in a prefix, where no rule is safe to guess. Clean those at the source.
"""

import re
from decimal import Context, Decimal

import polars as pl

AROUND = r"^[\s\p{Z}\p{C}]+|[\s\p{Z}\p{C}]+$"
NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,6})?|[+-]?\.[0-9]+(?:[eE][+-]?[0-9]{1,6})?")


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
