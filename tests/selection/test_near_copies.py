import pytest

from dp_assets.selection.near_copies import hash_of_words, is_near_copy, runs_of, words_of

TEXT = "How do I bake a loaf of good bread at home?"


@pytest.mark.parametrize(
    "other",
    [
        "how do i bake a loaf of good bread at home",
        "Please tell me: how do I bake a loaf of good bread?",
        "How do I bake a loaf of bread at home?",
        "bake a loaf of good bread",
        "How do I",
    ],
)
def test_texts_that_share_most_of_their_wording_are_near_copies(other: str) -> None:
    assert is_near_copy(runs_of(TEXT), [runs_of("something else entirely, is it?"), runs_of(other)])
    assert is_near_copy(runs_of(other), [runs_of(TEXT)])


@pytest.mark.parametrize(
    "other",
    [
        "How do I bake cookies for my two children?",
        "At home, good bread of a loaf bake I do how?",
        "bread",
        "",
        "???",
    ],
)
def test_texts_that_start_alike_or_share_single_words_are_none(other: str) -> None:
    assert not is_near_copy(runs_of(TEXT), [runs_of(other)])


def test_short_texts_are_compared_as_wholes() -> None:
    assert is_near_copy(runs_of("good morning"), [runs_of("Good morning!")])
    assert not is_near_copy(runs_of("good morning"), [runs_of("good evening"), runs_of("good")])
    assert not is_near_copy(runs_of("!?"), [runs_of("..."), runs_of("")])


def test_words_ignore_case_and_punctuation_but_not_order() -> None:
    assert words_of("Hello, World") == words_of("hello world!") != words_of("world hello")
    assert hash_of_words("Hello, World") == hash_of_words("hello world!") != hash_of_words("world hello")
    assert words_of(" :-) ") == (":-)",)


def test_nothing_is_a_near_copy_of_no_text() -> None:
    assert not is_near_copy(runs_of(TEXT), [])
