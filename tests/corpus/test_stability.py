"""The probe of a preparation tells one that treats units apart from one that does not, whatever the settings."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from dp_assets.corpus.cohorts import cohort_expr
from dp_assets.corpus.prepare import Preparation, prepare
from dp_assets.corpus.redaction import PATTERN_KINDS, SECRET, Redaction
from dp_assets.corpus.settings import CohortSettings
from dp_assets.corpus.stability import (
    ACROSS_UNITS,
    Prepare,
    UnstablePreparation,
    moment_in,
    probe_rows,
    require_alone,
    require_stable,
    verdict_on_preparation,
)
from dp_assets.privacy.units import PrivacyUnit

USER, INSTRUCTION = PrivacyUnit.USER, PrivacyUnit.INSTRUCTION
NOW = datetime(2026, 11, 1, tzinfo=UTC)
ROWS = probe_rows(num_words=12, num_rows_of_busiest=5, language=None, created_at=NOW)


def preparation(unit: PrivacyUnit, **changes: Any) -> Preparation:
    settings: dict[str, Any] = {
        "unit": unit,
        "key": b"key",
        "max_rows_per_unit": 2,
        "min_words": 2,
        "max_words": 100,
        "max_characters": 1000,
        "languages": None,
        "cohort_of": cohort_expr(CohortSettings(), unit=unit),
        "train_fraction": 0.5,
    }
    return Preparation(**(settings | changes))


def prepare_rows(unit: PrivacyUnit, **changes: Any) -> Prepare:
    return lambda rows: prepare(rows, preparation(unit, **changes))


def without_duplicates(prepared: Prepare) -> Prepare:
    """Duplicates are removed across units, the first one stays."""
    return lambda rows: prepared(rows).unique("text", keep="first", maintain_order=True)


def without_near_duplicates(prepared: Prepare) -> Prepare:
    """As the paper's released code does: a text that shares its first ten words with an earlier one goes."""
    start = pl.col("text").str.extract(r"^((?:\S+ ){9}\S+)")
    return lambda rows: prepared(rows).unique(start, keep="first", maintain_order=True)


def sharing_one_unit(prepared: Prepare) -> Prepare:
    return lambda rows: prepared(rows).with_columns(unit_id=pl.lit("everybody"))


def split_by_rank(prepared: Prepare) -> Prepare:
    """The split depends on the place among all rows."""
    return lambda rows: prepared(rows).with_columns(split=pl.int_range(pl.len()).cast(pl.String))


@pytest.mark.parametrize("unit", [USER, INSTRUCTION])
def test_the_real_preparation_treats_units_apart(unit: PrivacyUnit) -> None:
    every_step = {"detect_language": True, "redaction": Redaction((SECRET, *PATTERN_KINDS))}
    for steps in ({}, every_step):
        prepared = prepare_rows(unit, **steps)
        assert verdict_on_preparation(prepared, rows=ROWS, unit=unit, max_rows_per_unit=2) == f"{unit}-wise"


@pytest.mark.parametrize("unit", [USER, INSTRUCTION])
@pytest.mark.parametrize("defect", [without_duplicates, without_near_duplicates, sharing_one_unit, split_by_rank])
def test_a_preparation_that_looks_at_other_units_is_told(
    unit: PrivacyUnit, defect: Callable[[Prepare], Prepare]
) -> None:
    assert verdict_on_preparation(defect(prepare_rows(unit)), rows=ROWS, unit=unit, max_rows_per_unit=2) == ACROSS_UNITS


def test_a_preparation_beyond_the_contribution_bound_is_told() -> None:
    three_each = prepare_rows(USER, max_rows_per_unit=3)
    assert verdict_on_preparation(three_each, rows=ROWS, unit=USER, max_rows_per_unit=2) == ACROSS_UNITS


def test_rows_prepared_for_the_instruction_are_not_prepared_for_the_user() -> None:
    assert verdict_on_preparation(prepare_rows(INSTRUCTION), rows=ROWS, unit=USER, max_rows_per_unit=2) == ACROSS_UNITS
    assert verdict_on_preparation(prepare_rows(USER), rows=ROWS, unit=INSTRUCTION, max_rows_per_unit=2) == ACROSS_UNITS


@pytest.mark.parametrize(
    ("bounds", "cohort"),
    [
        ({}, "all"),
        ({"max_words": 1}, "all"),
        ({"min_words": 30, "max_words": 40}, "bucket-1"),
        ({"max_characters": 3}, "2031"),
        ({"languages": ("fr", "de")}, "2024-Q3"),
        ({"max_rows_per_unit": 60}, "2024-02"),
    ],
)
def test_the_probe_fits_the_settings(bounds: dict[str, Any], cohort: str) -> None:
    kinds = {"all": "all", "bucket-1": "user_bucket", "2031": "year", "2024-Q3": "quarter", "2024-02": "month"}
    cohort_of = cohort_expr(
        CohortSettings(kind=kinds[cohort], num_buckets=3, first=cohort, last=cohort),  # type: ignore[arg-type]
        unit=INSTRUCTION,
    )

    usual = {"min_words": 1, "max_words": 60, "max_characters": 400, "cohort_of": cohort_of}
    steps = preparation(INSTRUCTION, **(usual | bounds))

    def prepared(rows: pl.LazyFrame) -> pl.LazyFrame:
        return prepare(rows, steps)

    assert require_stable(prepared, prepared, steps, cohort=cohort) == "instruction-wise"


def test_settings_that_no_row_fits_are_refused() -> None:
    with pytest.raises(UnstablePreparation, match="drops every row"):
        require_stable(
            *[lambda rows: prepare_rows(USER)(rows).filter(pl.lit(False))] * 2, preparation(USER), cohort="all"
        )


def test_a_moment_lies_in_its_cohort() -> None:
    assert moment_in("2024") == datetime(2024, 1, 1, tzinfo=UTC)
    assert moment_in("2024-Q3") == datetime(2024, 7, 1, tzinfo=UTC)
    assert moment_in("2024-12") == datetime(2024, 12, 1, tzinfo=UTC)


def test_vectors_that_depend_on_their_companions_are_refused() -> None:
    def lengths(texts: object) -> npt.NDArray[np.float32]:
        return np.array([[len(text)] for text in texts], dtype=np.float32)  # type: ignore[attr-defined]

    require_alone(lengths, longest=64)
    with pytest.raises(UnstablePreparation, match="computed separately"):
        require_alone(lambda texts: lengths(texts) - lengths(texts).mean(), longest=64)
