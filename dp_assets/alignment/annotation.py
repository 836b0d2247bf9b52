"""Annotation: a response for every synthetic instruction.

The annotator may be a model, a service or a team; here it is a function from texts to texts. It sees released rows
only, which is what the whole graph is for: the instructions that people wrote are never shown to anyone (the paper's
abstract).
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

COLUMNS = ("synthetic_id", "instruction", "response", "annotator", "bin_id")


@dataclass(frozen=True)
class Annotation:
    """Annotated instructions as `rows`, and how many were dropped because their answer is empty as `unanswered`."""

    rows: pl.DataFrame
    unanswered: int


def annotate(filtered: pl.DataFrame, answer: Callable[[list[str]], list[str]], *, annotator: str) -> Annotation:
    """Answer every instruction of `filtered` (columns `synthetic_id`, `text`, `bin_id`).

    `answer` gets all texts at once, in order, and gives one answer each; `annotator` names who answered. Answers lose
    the white space around them. The rows have the columns `COLUMNS`.

    Raises:
      ValueError: `answer` gave another number of answers than it got instructions.
    """
    answers = answer(filtered["text"].to_list())
    if len(answers) != filtered.height:
        raise ValueError(
            f"the annotator gave {len(answers)} answers to {filtered.height} instructions;"
            " it must give one each, in order, and an empty text where it has none"
        )
    answered = (
        filtered.rename({"text": "instruction"})
        .with_columns(pl.Series("response", answers, dtype=pl.String).str.strip_chars(), annotator=pl.lit(annotator))
        .filter(pl.col("response") != "")
        .select(COLUMNS)
    )
    return Annotation(rows=answered, unanswered=filtered.height - answered.height)
