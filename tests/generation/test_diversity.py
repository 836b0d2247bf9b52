"""Distinct n-grams by hand."""

import pytest

from dp_assets.generation.diversity import distinct_n


def test_distinct_n_counts_ngrams_within_texts_only() -> None:
    texts = ["a b a", "A b", "c"]
    assert distinct_n(texts, 1) == pytest.approx(3 / 6)
    assert distinct_n(texts, 2) == pytest.approx(2 / 3)
    assert distinct_n(texts, 4) == 0


def test_texts_without_words_have_no_distinct_ngrams() -> None:
    assert distinct_n(["", "?!"], 1) == distinct_n([], 2) == 0.0
