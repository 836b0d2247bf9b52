"""Vectors of hashed n-grams: of length one, alike for like spelling, and the same everywhere."""

import numpy as np
import pytest

from resources.models.loaders import Embedder


@pytest.mark.parametrize("count", [0, 1, 1030])
def test_hashed_vectors_have_length_one_and_progress_adds_up(count: int) -> None:
    counts: list[int] = []
    vectors = Embedder(model="hashing").encode([f"text {n}" for n in range(count)], advance=counts.append)
    assert vectors.shape == (count, Embedder(model="hashing").dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert sum(counts) == count


def test_hashed_vectors_of_like_spelling_are_closer_and_even_no_text_has_one() -> None:
    near, same, far, nothing = Embedder(model="hashing").encode(
        ["how do i bake bread?", "how do i bake a bread?", "guitar lessons near me", ""]
    )
    assert near @ same > near @ far
    assert np.isclose(np.linalg.norm(nothing), 1.0)


def test_hashed_vectors_are_the_same_in_every_process() -> None:
    vector = Embedder(model="hashing").encode(["hello"])[0]
    assert np.flatnonzero(vector).tolist() == [0, 3, 11, 15, 18, 19, 25, 31, 34, 37, 45, 47, 52, 62]
