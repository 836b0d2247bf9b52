"""Cohorts: a fixed public list of disjoint sets of units, each with its own privacy budget.

The list is fixed before any row is read, and each row outside it is dropped independently. Every unit is in at most one
cohort: a bucket is a function of the unit's id, and time cohorts are refused for the unit `user`, because one user may
span several.
"""

import re
from collections.abc import Callable

import polars as pl

from dp_assets.corpus.settings import CohortSettings
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.units import PrivacyUnit

# For each kind of time cohort: the pattern of a name, the periods in a year, and the name of a period (from 1).
TIME_NAMES: dict[str, tuple[str, int, Callable[[int, int], str]]] = {
    "month": (r"(\d{4})-(0[1-9]|1[0-2])", 12, lambda year, month: f"{year:04d}-{month:02d}"),
    "quarter": (r"(\d{4})-Q([1-4])", 4, lambda year, quarter: f"{year:04d}-Q{quarter}"),
    "year": (r"(\d{4})()", 1, lambda year, _: f"{year:04d}"),
}


class CohortError(PublicError, ValueError):
    """A cohort setting is missing, malformed, or does not fit the privacy unit."""


def cohort_names(settings: CohortSettings) -> tuple[str, ...]:
    """Return the fixed list: `all`, or `bucket-0` to `bucket-<num_buckets - 1>`, or each month, quarter or year.

    Names of periods are `2026-01`, `2026-Q1` and `2026`. `first` and `last` have this form and are both included.

    Raises:
      CohortError: a setting that the kind needs is missing or malformed.
    """
    kind, num_buckets = settings.kind, settings.num_buckets
    if kind == "all":
        return ("all",)
    if kind == "user_bucket":
        if num_buckets is None or num_buckets < 1:
            raise CohortError(
                "cohorts.num_buckets must be at least 1 for cohorts.kind = 'user_bucket'; set it, such as to 4"
            )
        return tuple(f"bucket-{bucket}" for bucket in range(num_buckets))
    _, periods, name = TIME_NAMES[kind]
    start, end = _ordinal(kind, settings.first, "first"), _ordinal(kind, settings.last, "last")
    if end < start:
        raise CohortError("cohorts.first must not lie after cohorts.last; swap them")
    return tuple(name(ordinal // periods, ordinal % periods + 1) for ordinal in range(start, end + 1))


def cohort_expr(settings: CohortSettings, *, unit: PrivacyUnit) -> pl.Expr:
    """Return each row's cohort from `unit_id` and `created_at` (UTC); null for a row outside the fixed list.

    Raises:
      CohortError: time cohorts with the unit `user`, or settings that `cohort_names` refuses.
    """
    names = cohort_names(settings)
    kind, num_buckets = settings.kind, settings.num_buckets
    if kind == "all":
        return pl.lit("all")
    if num_buckets is not None and kind == "user_bucket":
        return pl.concat_str(pl.lit("bucket-"), _unit_hash() % num_buckets)
    if unit == PrivacyUnit.USER:
        raise CohortError(
            f"cohorts.kind = {kind!r} does not go with unit = 'user', because one user spans several;"
            " use 'all' or 'user_bucket', or the unit 'instruction'"
        )
    name = _time_name(kind)
    return pl.when(name.is_in(names)).then(name)


def _ordinal(kind: str, name: str | None, setting: str) -> int:
    """Return the number of periods since year 0."""
    pattern, periods, example = TIME_NAMES[kind]
    match = re.fullmatch(pattern, name or "")
    if match is None:
        raise CohortError(f"cohorts.{setting} must look like {example(2026, 1)!r} for cohorts.kind = {kind!r}")
    return int(match[1]) * periods + int(match[2] or 1) - 1


def _time_name(kind: str) -> pl.Expr:
    time = pl.col("created_at").dt
    year = time.year().cast(pl.String).str.zfill(4)
    if kind == "year":
        return year
    if kind == "month":
        return year + "-" + time.month().cast(pl.String).str.zfill(2)
    return year + "-Q" + time.quarter().cast(pl.String)


def _unit_hash() -> pl.Expr:
    """Return the last 60 bits of the keyed hash at the end of every unit id."""
    return pl.col("unit_id").str.tail(15).str.to_integer(base=16, dtype=pl.Int64)
