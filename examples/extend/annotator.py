"""An annotator: answers from a list of questions that somebody has answered already."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from dp_assets.stages.annotation import Answerer

SIMILAR_ENOUGH = 0.6


def faq_answerer(name: str, answers: Mapping[str, str]) -> Answerer:
    """Answers with the answer to the most similar question of `answers`, or not at all if none is similar enough.

    Args:
      name: the public name of the list, which stands beside each answer.
      answers: the answer to each question.
    """
    figures: dict[str, Any] = {}

    def answer(texts: list[str]) -> list[str]:
        """One answer to each text, in order; an empty one drops its instruction."""
        similar = [get_close_matches(text, answers, n=1, cutoff=SIMILAR_ENOUGH) for text in texts]
        figures["faq/unanswered"] = similar.count([])
        return [answers[questions[0]] if questions else "" for questions in similar]

    return Answerer(name, answer, figures)
