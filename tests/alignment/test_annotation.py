import polars as pl
import pytest

from dp_assets.alignment.annotation import annotate

FILTERED = pl.DataFrame(
    {
        "synthetic_id": ["pool-1", "pool-2", "top_up-1"],
        "text": ["how?", "why?", "where?"],
        "bin_id": [4, 0, 4],
        "origin": ["pool", "pool", "top_up"],
    }
)


def test_every_instruction_gets_its_own_answer_and_keeps_its_bin():
    annotation = annotate(FILTERED, lambda texts: [text.upper() for text in texts], annotator="tiny")
    assert annotation.rows.rows() == [
        ("pool-1", "how?", "HOW?", "tiny", 4),
        ("pool-2", "why?", "WHY?", "tiny", 0),
        ("top_up-1", "where?", "WHERE?", "tiny", 4),
    ]
    assert annotation.rows.columns == ["synthetic_id", "instruction", "response", "annotator", "bin_id"]
    assert annotation.unanswered == 0


def test_empty_and_blank_answers_are_dropped_and_counted():
    annotation = annotate(FILTERED, lambda _: ["", " because \n", " \t"], annotator="tiny")
    assert annotation.rows.select("synthetic_id", "response").rows() == [("pool-2", "because")]
    assert annotation.unanswered == 2


def test_an_annotator_that_skips_an_instruction_is_refused_without_showing_texts():
    with pytest.raises(ValueError, match="2 answers to 3 instructions") as refusal:
        annotate(FILTERED, lambda texts: texts[:2], annotator="tiny")
    assert "how?" not in str(refusal.value)


def test_no_instructions_give_no_rows():
    annotation = annotate(FILTERED.clear(), lambda texts: list(texts), annotator="tiny")
    assert annotation.rows.is_empty()
    assert annotation.unanswered == 0
