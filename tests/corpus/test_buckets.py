"""Preparation bucket by bucket gives what preparation at once gives, and the same fingerprints."""

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.corpus.buckets import bucket_of_unit, prepare_in_buckets
from dp_assets.corpus.cohorts import cohort_expr
from dp_assets.corpus.fingerprint import fingerprint
from dp_assets.corpus.prepare import Preparation, drop_erased, prepare
from dp_assets.corpus.redaction import Redaction
from dp_assets.corpus.schemas import REAL_INSTRUCTIONS, SOURCE_ROWS
from dp_assets.corpus.settings import CohortSettings
from dp_assets.privacy.units import PrivacyUnit, keyed_hash
from tests.corpus.test_prepare import Row, corpus

KEY = b"key"


def at_once(rows: pl.LazyFrame, unit: PrivacyUnit, **changes: Any) -> pl.LazyFrame:
    settings = {"max_rows_per_unit": 2, "min_words": 2, "max_words": 6, "max_characters": 40, "languages": None}
    cohort_of = cohort_expr(CohortSettings(kind="user_bucket", num_buckets=3), unit=unit)
    settings |= {"train_fraction": 0.5, "redaction": Redaction(kinds=("email",)), "cohort_of": cohort_of}
    return prepare(rows, Preparation(unit=unit, key=KEY, **(settings | changes)))


def source_of(rows: list[Row]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema=SOURCE_ROWS, orient="row")


def colliding(seed: int) -> list[Row]:
    """Rows of many users in several spellings, with duplicates inside and across users, and rows of nobody."""
    draw = random.Random(seed)
    respelled = [
        (name, None if user is None else draw.choice([user, f" {user} ", "7", "7.0", "007"]), text, language, time)
        for name, user, text, language, time in corpus(seed)
    ]
    many = [(None, f"user {draw.randrange(40)}", f"text {draw.randrange(9)}", "en", None) for _ in range(300)]
    return [*corpus(seed), *respelled, *many]


@pytest.mark.parametrize("num_buckets", [1, 2, 7, 64])
@pytest.mark.parametrize("unit", list(PrivacyUnit))
@pytest.mark.parametrize("seed", range(3))
def test_buckets_give_the_rows_of_preparation_at_once_whatever_their_number(
    tmp_path: Path, seed: int, unit: PrivacyUnit, num_buckets: int
) -> None:
    source = source_of(colliding(seed))
    expected = at_once(source, unit).collect()
    found = prepare_in_buckets(
        source, lambda rows: at_once(rows, unit), unit=unit, key=KEY, folder=tmp_path, num_buckets=num_buckets
    )
    assert found.rows.collect().equals(expected)
    assert found.fingerprint == fingerprint(expected.lazy(), key=KEY)
    assert found.texts == fingerprint(source.select("text"), key=KEY)


def test_rows_that_come_in_many_batches_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(colliding(0))
    expected = at_once(source, PrivacyUnit.USER).collect()
    monkeypatch.setattr("dp_assets.corpus.buckets.ROWS_IN_A_BATCH", 13)
    found = prepare_in_buckets(
        source, lambda rows: at_once(rows, PrivacyUnit.USER), unit=PrivacyUnit.USER, key=KEY, folder=tmp_path
    )
    assert len(list(tmp_path.glob("buckets/*/*.parquet"))) > 300
    assert found.rows.collect().equals(expected)


def test_erased_units_are_left_out_of_every_bucket(tmp_path: Path) -> None:
    source = source_of(colliding(1))
    whole = at_once(source, PrivacyUnit.USER).collect()
    erased = frozenset(keyed_hash(KEY, "erased", unit) for unit in whole["unit_id"].unique().sort().gather_every(2))

    def without_erased(rows: pl.LazyFrame) -> pl.LazyFrame:
        return drop_erased(at_once(rows, PrivacyUnit.USER), erased=erased, key=KEY)

    found = prepare_in_buckets(source, without_erased, unit=PrivacyUnit.USER, key=KEY, folder=tmp_path)
    assert found.rows.collect().equals(without_erased(source).collect())
    assert 0 < found.rows.collect().height < whole.height


def test_no_rows_give_an_empty_table_with_its_columns(tmp_path: Path) -> None:
    source = source_of([])
    found = prepare_in_buckets(
        source, lambda rows: at_once(rows, PrivacyUnit.USER), unit=PrivacyUnit.USER, key=KEY, folder=tmp_path
    )
    assert found.rows.collect().schema == REAL_INSTRUCTIONS
    assert found.fingerprint == fingerprint(pl.LazyFrame(schema=REAL_INSTRUCTIONS), key=KEY)


def test_a_cohort_counts_as_filled_by_its_training_rows_alone(tmp_path: Path) -> None:
    source = source_of(colliding(0))

    def cohorts(train_fraction: float) -> frozenset[str]:
        def prepare_rows(rows: pl.LazyFrame) -> pl.LazyFrame:
            return at_once(rows, PrivacyUnit.USER, train_fraction=train_fraction)

        folder = tmp_path / str(train_fraction)
        folder.mkdir()
        return prepare_in_buckets(source, prepare_rows, unit=PrivacyUnit.USER, key=KEY, folder=folder).cohorts

    assert cohorts(1.0) == {"bucket-0", "bucket-1", "bucket-2"}
    assert cohorts(0.0) == frozenset()


@pytest.mark.parametrize("num_buckets", [1, 3, 64])
def test_buckets_are_in_the_order_of_unit_ids_and_of_about_equal_size(num_buckets: int) -> None:
    ids = [f"{kind}:{keyed_hash(KEY, str(n))}" for kind in ("user", "instruction") for n in range(64 * 100)]
    extremes = [f"{kind}:{digit * 32}" for kind in ("user", "instruction") for digit in "0f"]
    placed = pl.DataFrame({"unit_id": sorted(ids + extremes)}).with_columns(bucket=bucket_of_unit(num_buckets))
    assert placed["bucket"].is_sorted()
    assert placed["bucket"].min() == 0
    assert placed["bucket"].max() == 2 * num_buckets - 1
    sizes = placed.group_by("bucket").len()["len"]
    mean = len(placed) / (2 * num_buckets)
    assert all(abs(size - mean) < 6 * mean**0.5 for size in sizes)  # six standard deviations of a Poisson count
