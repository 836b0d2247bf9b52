"""Annotation: a response for every synthetic instruction.

The annotator may be a model, a service or a team; here it is a function from texts to texts. It sees released rows
only. This is the purpose of the whole graph: the instructions that people wrote are never shown to an annotator (the
paper's abstract).
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

COLUMNS = ("synthetic_id", "instruction", "response", "annotator", "bin_id")


@dataclass(frozen=True)
class Annotation:
    """`rows` are the annotated instructions; `unanswered` is the number dropped because their answer is empty."""

    rows: pl.DataFrame
    unanswered: int


def annotate(filtered: pl.DataFrame, answer: Callable[[list[str]], list[str]], *, annotator: str) -> Annotation:
    """Answer every instruction of `filtered` (columns `synthetic_id`, `text`, `bin_id`).

    - `answer` receives all texts at once and returns one answer each, in order. `annotator` names who answered.
    - White space around an answer is removed.
    - The rows have the columns `COLUMNS`.

    Raises:
      ValueError: the number of answers differs from the number of instructions.
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
