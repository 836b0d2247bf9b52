"""A private text is embedded in a shape of its own, so that its vector does not depend on who else is embedded."""

import numpy as np
import pytest

from resources.embedding import TOKENS_IN_FIXED_SHAPE, batches_by_length, batches_of_fixed_shape
from resources.models import Embedder

WORDS = ("red", "car", "sun", "tree", "house", "water", "music", "paper")


def some_texts(number: int) -> list[str]:
    """Public texts of 1 to 40 words, several of each length."""
    drawn = np.random.default_rng(0)
    return [" ".join(drawn.choice(WORDS, size=1 + index % 5 * 9)) for index in range(number)]


@pytest.mark.parametrize("batches", [batches_by_length, batches_of_fixed_shape])
def test_batches_hold_every_text_and_texts_of_one_length_only(batches: object) -> None:
    lengths = np.random.default_rng(0).integers(1, 400, size=300)
    parts = list(batches(lengths))  # type: ignore[operator]
    assert set(np.concatenate(parts)) == set(range(300))
    assert all(len(set(lengths[part])) == 1 for part in parts)
    assert list(batches(lengths[:0])) == []  # type: ignore[operator]


def test_the_shape_of_a_private_batch_follows_from_the_length_alone() -> None:
    drawn = np.random.default_rng(0)
    shapes: dict[int, set[int]] = {}
    for number in (1, 2, 50, 700):
        lengths = drawn.integers(1, 300, size=number)
        for part in batches_of_fixed_shape(lengths):
            shapes.setdefault(int(lengths[part[0]]), set()).add(len(part))
    assert {length: max(1, TOKENS_IN_FIXED_SHAPE // length) for length in shapes} == {
        length: sizes.pop() for length, sizes in shapes.items() if len(sizes) == 1
    }


@pytest.mark.slow
@pytest.mark.packaged
def test_a_private_vector_keeps_its_bits_whoever_else_is_embedded() -> None:
    embedder, texts = Embedder(device="cpu"), some_texts(60)
    vectors = embedder.encode_alone(texts)
    order = np.random.default_rng(1).permutation(60)[:43]
    assert np.array_equal(embedder.encode_alone([texts[index] for index in order]), vectors[order])
    assert np.array_equal(embedder.encode_alone(texts[7:8]), vectors[7:8])


@pytest.mark.slow
@pytest.mark.packaged
def test_vectors_are_those_of_plain_encode() -> None:
    embedder, texts = Embedder(device="cpu"), [*some_texts(40), "", "word " * 400]
    plain = embedder._sentence_model().encode(texts, normalize_embeddings=True)
    for vectors in (embedder.encode(texts), embedder.encode_alone(texts)):
        assert (vectors * plain).sum(axis=1).min() > 0.9999
