"""The example of an annotator: it answers what it knows, and the stage takes its answers."""

import polars as pl

from dp_assets.alignment.annotation import annotate
from examples.extend.annotator import faq_answerer

ANSWERS = {"how do i bake bread at home?": "Flour, water, salt.", "why is the sky blue?": "Blue light scatters most."}
FILTERED = pl.DataFrame(
    {
        "synthetic_id": ["a", "b", "c"],
        "text": ["why is the sky so blue?", "tell me a story", "how do i bake bread?"],
        "bin_id": [0, 1, 0],
    }
)


def test_a_similar_question_gets_the_answer_of_the_list() -> None:
    answerer = faq_answerer("faq-2026", ANSWERS)
    annotation = annotate(FILTERED, answerer.answer, annotator=answerer.name)
    answered = dict(annotation.rows.select("synthetic_id", "response").iter_rows())
    assert answered == {"a": "Blue light scatters most.", "c": "Flour, water, salt."}
    assert set(annotation.rows["annotator"]) == {"faq-2026"}


def test_what_is_not_similar_to_any_question_is_dropped_and_counted() -> None:
    answerer = faq_answerer("faq-2026", ANSWERS)
    assert annotate(FILTERED, answerer.answer, annotator=answerer.name).unanswered == 1
    assert answerer.figures == {"faq/unanswered": 1}
