import faiss
import numpy as np
import numpy.typing as npt
import pytest

from dp_assets.selection import bins
from dp_assets.selection.bins import NO_BIN, TooFewVectors, fit_bins, nearest_bin


def unit_vectors(n: int, *, d: int = 16, seed: int = 0) -> npt.NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(vectors: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    differences = vectors.astype(np.float64)[:, None] - centroids.astype(np.float64)
    return (differences**2).sum(axis=2).argmin(axis=1)


def test_well_parted_groups_get_a_bin_each() -> None:
    corners = np.eye(4, dtype=np.float32)
    vectors = np.repeat(corners, 10, axis=0) + unit_vectors(40, d=4) / 100
    centroids = fit_bins(vectors, num_bins=4, seed=0)
    assert (centroids.shape, centroids.dtype) == ((4, 4), np.float32)
    found = nearest_bin(vectors, centroids).reshape(4, 10)
    assert (found == found[:, :1]).all()
    assert set(found[:, 0]) == {0, 1, 2, 3}


def test_the_public_seed_decides_the_bins() -> None:
    vectors = unit_vectors(200)
    first, again, other = (fit_bins(vectors, num_bins=12, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_number_of_threads_does_not_change_the_bins() -> None:
    vectors, threads = unit_vectors(600, d=64), faiss.omp_get_max_threads()
    try:
        fitted = []
        for count in (1, 2, 3):
            faiss.omp_set_num_threads(count)
            fitted.append(fit_bins(vectors, num_bins=20, seed=0))
    finally:
        faiss.omp_set_num_threads(threads)
    assert all(np.array_equal(fitted[0], each) for each in fitted[1:])


def test_few_vectors_a_bin_are_fitted_without_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    assert len(fit_bins(unit_vectors(30), num_bins=30, seed=0)) == 30
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_fewer_vectors_than_bins_are_refused_with_a_remedy() -> None:
    with pytest.raises(TooFewVectors, match=r"10 bins need .* got 9; sample a larger synthetic pool"):
        fit_bins(unit_vectors(9), num_bins=10, seed=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_bin_is_that_of_brute_force(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bins, "BLOCK_ROWS", 64)
    vectors, centroids = unit_vectors(300, seed=seed), unit_vectors(17, seed=seed + 50) * 3
    found = nearest_bin(vectors, centroids)
    assert found.dtype == np.int64
    assert np.array_equal(found, brute_force(vectors, centroids))


def test_the_lowest_index_wins_a_tie() -> None:
    centroids = np.array([[5, 5], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    vectors = np.array([[1, 0], [0.5, 0.5], [0, 1]], dtype=np.float32)
    assert nearest_bin(vectors, centroids).tolist() == [1, 1, 2]


def test_close_calls_do_not_depend_on_the_vectors_beside_them() -> None:
    """Palindromes are as near to a centroid as to its mirror image, so that rounding alone decides between the two."""
    half = unit_vectors(50, d=193)
    palindromes = np.concatenate([half, half[:, ::-1]], axis=1)
    centroid = palindromes[:1] + unit_vectors(1, d=386, seed=9) / 10
    centroids = np.concatenate([centroid, centroid[:, ::-1], unit_vectors(3, d=386, seed=8) * 9])
    alone = np.concatenate([nearest_bin(row[None], centroids) for row in palindromes])
    assert set(alone) <= {0, 1}
    for size in (1, 2, 3, 7, 64):
        beside = np.concatenate([unit_vectors(size, d=386, seed=size), palindromes])
        assert np.array_equal(nearest_bin(beside, centroids)[size:], alone)


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9])
def test_a_float32_product_never_decides_what_it_cannot_tell_apart(gap: float) -> None:
    """Each centroid comes in twins a small gap apart, so that most calls are close; float64 decides each of them."""
    one = unit_vectors(20, d=64, seed=3).astype(np.float64)
    twins = np.concatenate([one, one + gap * unit_vectors(20, d=64, seed=4)]).astype(np.float32)
    vectors = unit_vectors(500, d=64)
    expected = np.array([bins._squared_distances(np.tile(row, (40, 1)), twins).argmin() for row in vectors])
    assert np.array_equal(nearest_bin(vectors, twins), expected)
    assert np.array_equal(brute_force(vectors, twins), expected)


@pytest.mark.parametrize("length", [1e-30, 1e-18, 1e12, 1e30, 3e38])
def test_vectors_of_any_finite_length_get_the_bin_of_brute_force(length: float) -> None:
    """Among them some whose float32 products overflow or vanish."""
    vectors, centroids = unit_vectors(40) * np.float32(length), unit_vectors(9, seed=1) * np.float32(min(length, 1e19))
    centroids[3:] /= np.float32(3)
    expected = [bins._squared_distances(np.tile(row, (9, 1)), centroids).argmin() for row in vectors]
    assert nearest_bin(vectors, centroids).tolist() == expected


def test_the_rounding_bound_holds_what_a_product_in_float32_gets_wrong() -> None:
    """Half of it is an error of one score; a bound a hundred times too large would leave too much to float64."""
    vectors, centroids = unit_vectors(2000, d=384), unit_vectors(50, d=384, seed=1)
    half_norms = (centroids.astype(np.float64) ** 2).sum(axis=1) / 2
    error = np.abs((vectors @ centroids.T) - vectors.astype(np.float64) @ centroids.T.astype(np.float64))
    bound = bins._rounding_bound(vectors, half_norms)
    assert (2 * error.max(axis=1) < bound).all()
    assert bound.max() < 2e-4


def test_a_vector_that_is_not_finite_has_no_bin_and_disturbs_no_other() -> None:
    vectors, centroids = unit_vectors(6), unit_vectors(3, seed=1)
    spoilt = vectors.copy()
    spoilt[1, 0], spoilt[4, 3] = np.nan, np.inf
    expected = nearest_bin(vectors, centroids)
    expected[[1, 4]] = NO_BIN
    assert np.array_equal(nearest_bin(spoilt, centroids), expected)


def test_no_vectors_give_no_bins() -> None:
    assert nearest_bin(np.empty((0, 4), dtype=np.float32), unit_vectors(2, d=4)).shape == (0,)
