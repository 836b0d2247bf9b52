import datetime as dt
from typing import Any

import polars as pl
import pytest

from dp_assets.corpus.cohorts import CohortError, cohort_expr, cohort_names
from dp_assets.corpus.settings import CohortSettings
from dp_assets.privacy.units import PrivacyUnit, keyed_hash

TIMES = [
    dt.datetime(2025, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2026, 6, 30, tzinfo=dt.UTC),
    None,
]


def cohorts(**settings: Any) -> list[str | None]:
    rows = pl.DataFrame({"created_at": TIMES}, schema={"created_at": pl.Datetime("us", "UTC")})
    expression = cohort_expr(CohortSettings(**settings), unit=PrivacyUnit.INSTRUCTION)
    return rows.select(expression.alias("cohort"))["cohort"].to_list()


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"kind": "all"}, ("all",)),
        ({"kind": "user_bucket", "num_buckets": 2}, ("bucket-0", "bucket-1")),
        ({"kind": "month", "first": "2025-11", "last": "2026-02"}, ("2025-11", "2025-12", "2026-01", "2026-02")),
        ({"kind": "quarter", "first": "2025-Q4", "last": "2026-Q1"}, ("2025-Q4", "2026-Q1")),
        ({"kind": "year", "first": "2025", "last": "2026"}, ("2025", "2026")),
        ({"kind": "year", "first": "2026", "last": "2026"}, ("2026",)),
    ],
)
def test_the_fixed_list_follows_from_public_settings(settings: dict[str, Any], names: tuple[str, ...]) -> None:
    assert cohort_names(CohortSettings(**settings)) == names


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "month", "first": "2025-12", "last": "2026-01"}, ["2025-12", "2026-01", None, None]),
        ({"kind": "quarter", "first": "2026-Q1", "last": "2026-Q2"}, [None, "2026-Q1", "2026-Q2", None]),
        ({"kind": "year", "first": "2026", "last": "2027"}, [None, "2026", "2026", None]),
    ],
)
def test_a_row_outside_the_list_or_without_a_time_has_no_cohort(
    settings: dict[str, Any], expected: list[str | None]
) -> None:
    assert cohorts(**settings) == expected


@pytest.mark.parametrize("kind", ["month", "quarter", "year"])
def test_time_cohorts_with_the_unit_user_are_refused(kind: Any) -> None:
    name = {"month": "2026-01", "quarter": "2026-Q1", "year": "2026"}[kind]
    with pytest.raises(CohortError, match="one user spans several"):
        cohort_expr(CohortSettings(kind=kind, first=name, last=name), unit=PrivacyUnit.USER)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "user_bucket"},
        {"kind": "user_bucket", "num_buckets": 0},
        {"kind": "month", "first": "2026-01"},
        {"kind": "month", "first": "2026-13", "last": "2027-01"},
        {"kind": "quarter", "first": "2026-Q5", "last": "2027-Q1"},
        {"kind": "year", "first": "2026-01", "last": "2027"},
        {"kind": "year", "first": "2027", "last": "2026"},
    ],
    ids=str,
)
def test_a_missing_or_malformed_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(CohortError, match=r"cohorts\."):
        cohort_names(CohortSettings.model_construct(**settings))


def test_buckets_part_the_units_evenly_and_name_only_listed_cohorts() -> None:
    ids = [f"user:{keyed_hash(b'key', str(number))}" for number in range(3000)]
    expression = cohort_expr(CohortSettings(kind="user_bucket", num_buckets=3), unit=PrivacyUnit.USER)
    counts = pl.DataFrame({"unit_id": ids}).select(expression.alias("cohort"))["cohort"].value_counts()
    assert set(counts["cohort"]) == set(cohort_names(CohortSettings(kind="user_bucket", num_buckets=3)))
    assert counts["count"].min() > 900  # 1000 expected, standard deviation 26
