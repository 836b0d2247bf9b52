"""Equal sets are at the good end of every figure, shifted ones are worse, and nothing is said on any stream."""

import math

import numpy as np
import polars as pl
import pytest

from dp_assets.evaluation.restricted import (
    copy_figures,
    frechet_distance,
    mauve,
    nearest_distances,
    neighbor_figures,
    restricted_figures,
)


def unit_vectors(count: int, *, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 8)) + shift * np.eye(8)[0]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def value(figures: pl.DataFrame, metric: str, subject: str) -> float:
    return float(figures.filter(pl.col("metric") == metric, pl.col("subject") == subject)["value"].item())


@pytest.fixture(scope="module")
def figures() -> pl.DataFrame:
    real = unit_vectors(300)
    sets = {"same": real.copy(), "near": unit_vectors(300, seed=1), "far": unit_vectors(300, shift=3.0, seed=2)}
    return restricted_figures(
        real_vectors=real, synthetic_vectors=sets, centroids=unit_vectors(12, seed=3), mauve_buckets=20, seed=0
    )


def test_the_table_has_one_value_for_each_metric_and_set(figures: pl.DataFrame) -> None:
    assert figures.schema == {"metric": pl.String, "subject": pl.String, "value": pl.Float64}
    assert figures.height == figures.select("metric", "subject").n_unique() == 10 * 3


def test_equal_sets_reach_the_best_value_of_every_figure(figures: pl.DataFrame) -> None:
    assert value(figures, "mauve", "same") == pytest.approx(1, abs=0.01)
    assert value(figures, "frechet_distance", "same") == pytest.approx(0, abs=1e-6)
    assert value(figures, "exact_total_variation", "same") == 0
    assert value(figures, "nearest_real_distance_p50", "same") == 0


def test_a_shifted_set_is_worse_than_another_sample_of_the_same_distribution(figures: pl.DataFrame) -> None:
    assert value(figures, "mauve", "near") > value(figures, "mauve", "far") + 0.2
    for metric in ("frechet_distance", "exact_total_variation"):
        assert 2 * value(figures, metric, "near") < value(figures, metric, "far")


def test_quantiles_of_the_nearest_distance_increase(figures: pl.DataFrame) -> None:
    p01, p10, p50 = (value(figures, f"nearest_real_distance_{name}", "near") for name in ("p01", "p10", "p50"))
    assert 0 < p01 <= p10 <= p50


def test_frechet_distance_of_one_dimensional_shifts_and_scales_is_the_closed_form() -> None:
    first = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    assert frechet_distance(first, first + np.float32(2)) == pytest.approx(12, rel=1e-4)
    # Scaling by 3 gives |2 mean|^2 + tr((3 - 1)^2 C).
    expected = 4 * (np.square(first.mean(axis=0)).sum() + np.trace(np.cov(first, rowvar=False)))
    assert frechet_distance(first, 3 * first) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_is_finite_with_fewer_rows_than_dimensions() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    assert frechet_distance(vectors, vectors) == pytest.approx(0, abs=1e-6)


def test_neighbor_figures_are_those_of_all_pairs_of_rows() -> None:
    real, synthetic = unit_vectors(40, seed=6), unit_vectors(40, shift=0.5, seed=7)
    found = neighbor_figures(real, synthetic, seed=0)

    def radius(row: np.ndarray, of: np.ndarray) -> float:
        return float(np.sort(np.linalg.norm(of - row, axis=1))[5])

    real_balls = np.array([[np.linalg.norm(s - r) <= radius(r, real) for r in real] for s in synthetic])
    synthetic_balls = np.array([[np.linalg.norm(r - s) <= radius(s, synthetic) for s in synthetic] for r in real])
    assert found == pytest.approx(
        {
            "precision": real_balls.any(axis=1).mean(),
            "recall": synthetic_balls.any(axis=1).mean(),
            "density": real_balls.sum() / (5 * 40),
            "coverage": real_balls.any(axis=0).mean(),
        }
    )


def test_a_set_of_one_repeated_real_row_is_precise_but_recalls_and_covers_nothing() -> None:
    real = unit_vectors(200)
    found = neighbor_figures(real, np.repeat(real[:1], 200, axis=0), seed=0)
    assert found["precision"] == 1
    assert found["recall"] < 0.02
    assert found["coverage"] < 0.2


def test_neighbor_figures_compare_equal_numbers_of_rows_and_need_six() -> None:
    real = unit_vectors(300)
    more = neighbor_figures(real, unit_vectors(3000, seed=1), seed=0)
    equal = neighbor_figures(real, unit_vectors(300, seed=1), seed=0)
    assert all(abs(more[name] - equal[name]) < 0.15 for name in more)
    assert all(math.isnan(value) for value in neighbor_figures(real[:5], real, seed=0).values())


def test_nearest_distances_are_those_of_all_pairs() -> None:
    vectors, others = unit_vectors(20, seed=4), unit_vectors(30, seed=5)
    by_hand = np.linalg.norm(vectors[:, None] - others[None], axis=2).min(axis=1)
    np.testing.assert_allclose(nearest_distances(vectors, others), by_hand, rtol=1e-5)
    assert (nearest_distances(others[:4], others) == 0).all()


def test_copies_are_counted_but_for_case_and_white_space() -> None:
    synthetic = {"some": ["why is  the SKY blue?", "why?", "other"], "none": ["other"], "empty": []}
    figures = copy_figures(real_texts=["Why is the sky blue?", "Why?", "Why?"], synthetic_texts=synthetic)
    found = dict(zip(figures["subject"], figures["value"], strict=True))
    assert found == pytest.approx({"some": 2 / 3, "none": 0, "empty": 0})


def test_mauve_says_nothing_even_when_its_quantiser_would_warn_of_few_rows(capfd: pytest.CaptureFixture[str]) -> None:
    mauve(unit_vectors(40), unit_vectors(40, seed=1), num_buckets=20, seed=0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_a_tiny_cohort_fails_nothing_and_leaves_undefined_figures_out(
    rows: int, capfd: pytest.CaptureFixture[str]
) -> None:
    figures = restricted_figures(
        real_vectors=unit_vectors(rows),
        synthetic_vectors={"pool": unit_vectors(30, seed=1), "filtered": unit_vectors(2, seed=2)},
        centroids=unit_vectors(4, seed=3),
        mauve_buckets=4,
        seed=0,
    )
    assert figures.height == 10 * 2
    needed = {"exact_total_variation": 1, "nearest_real_distance_p50": 1, "frechet_distance": 2, "mauve": 2}
    for metric, fewest in needed.items():
        assert math.isnan(value(figures, metric, "pool")) == (rows < fewest)
    assert math.isnan(value(figures, "mauve", "filtered")) == (rows < 2)
    assert capfd.readouterr() == ("", "")


def test_a_real_vector_that_is_not_finite_is_left_out() -> None:
    real, sets = unit_vectors(20), {"pool": unit_vectors(30, seed=1)}
    spoilt = np.concatenate([real, np.full((1, 8), np.nan, np.float32)])
    settings = {"synthetic_vectors": sets, "centroids": unit_vectors(4, seed=3), "mauve_buckets": 4, "seed": 0}
    expected = restricted_figures(real_vectors=real, **settings)
    assert restricted_figures(real_vectors=spoilt, **settings).equals(expected)


def test_errors_name_the_rule_and_no_size() -> None:
    real = unit_vectors(37)
    with pytest.raises(ValueError, match="use fewer buckets") as too_many:
        mauve(real, real, num_buckets=500, seed=0)
    assert not any(character.isdigit() for character in str(too_many.value))
