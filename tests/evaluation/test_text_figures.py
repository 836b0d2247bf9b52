"""Figures by hand on a few texts, and examples on both sides of every pattern."""

import numpy as np
import polars as pl
import pytest

from dp_assets.evaluation.text_figures import (
    PERSONAL_DATA_PATTERNS,
    diversity_figures,
    duplicate_share,
    form_figures,
    language_shares,
    normalize,
    similarity_figures,
)


def test_duplicates_are_found_across_case_and_white_space_and_the_first_is_none() -> None:
    assert duplicate_share(["Hi there", " hi \n there ", "hi there!", "HI THERE"]) == pytest.approx(0.5)
    assert normalize(pl.Series(["  A \t b\n"])).to_list() == ["a b"]


def test_lengths_are_counted_in_words() -> None:
    figures = form_figures(["one", "it's a state-of-the-art day", "one two three", "", "one two"])
    assert (figures["words_p50"], figures["words_p10"]) == (2, pytest.approx(0.4))


@pytest.mark.parametrize(
    ("text", "alike"),
    [
        ("Write a poem about the sea.", True),
        ('"Explain gravity', True),
        ("the capital of France?", True),
        ("Is it so", True),
        ("I had a lovely day.", False),
        ("Writer of poems", False),
        ("", False),
    ],
)
def test_what_looks_like_an_instruction(text: str, alike: bool) -> None:
    assert form_figures([text])["instruction_like_share"] == alike


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("email", "mail jo.doe+x@mail.example.co.uk now", True),
        ("email", "meet me @ home", False),
        ("phone", "call +44 20 7946 0958", True),
        ("phone", "(212) 555-0199", True),
        ("phone", "it costs 1,000,000 or 25.50", False),
        ("ipv4", "ping 192.168.0.1", True),
        ("ipv4", "at 999.1.1.1 or version 1.2.3", False),
        ("url", "see https://example.org/a?b=1", True),
        ("url", "see example", False),
    ],
)
def test_what_looks_like_personal_data(kind: str, text: str, found: bool) -> None:
    figures = form_figures([text])
    assert figures[f"{kind}_share"] == found
    assert figures["personal_data_like_share"] == found


def test_a_text_with_several_kinds_of_personal_data_counts_once() -> None:
    texts = ["a@b.org https://b.org", "nothing"]
    assert form_figures(texts)["personal_data_like_share"] == 0.5


def test_all_figures_are_plain_floats_in_range() -> None:
    texts = ["What is this?", "Tell me."]
    figures = diversity_figures(texts) | form_figures(texts)
    assert all(type(value) is float for value in figures.values())
    shares = [value for name, value in figures.items() if not name.startswith("words")]
    assert all(0 <= share <= 1 for share in shares)
    assert {f"{kind}_share" for kind in PERSONAL_DATA_PATTERNS} <= set(figures)


def test_similarity_is_that_of_all_pairs_and_near_duplicates_are_those_of_another_row() -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    vectors[1] = vectors[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (vectors @ vectors.T)[~np.eye(12, dtype=bool)].reshape(12, 11)
    figures = similarity_figures(vectors)
    assert figures["self_similarity"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert figures["near_duplicate_share"] == pytest.approx((cosines.max(axis=1) >= 0.95).mean())
    assert similarity_figures(vectors[:1]) == {"self_similarity": 0.0, "near_duplicate_share": 0.0}


def test_languages_are_named_by_their_share_and_the_rest_together() -> None:
    pytest.importorskip("py3langid")
    french = "Quelle est la capitale de la France et pourquoi faut-il la visiter?"
    german = "Bitte schreibe mir ein kurzes Gedicht über den Herbst in den Bergen."
    english = "Please write me a short poem about the autumn in the mountains."
    shares = language_shares([english] * 6 + [german] * 3 + [french], most=2)
    assert shares == pytest.approx({"en": 0.6, "de": 0.3, "other": 0.1})


def test_no_text_has_no_figures() -> None:
    for figures in (diversity_figures, form_figures):
        with pytest.raises(ValueError, match="texts is empty"):
            figures([])
