"""Tasks of a few texts as they are handed out, and what is taken of people's answers to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from dp_assets.alignment.handoff import Taken, instruction_tasks, pair_tasks, take_responses
from dp_assets.corpus.schemas import FILTERED_INSTRUCTIONS
from tests.alignment.label_studio_exports import Work, write

PARTITION = "all|eps-8"
TEXTS = ["why?\n\nplease", "how is é — \u2028 said?", '<b>bold</b> & "quoted"?', "s3://bucket?", "who?"]
NUMBER = len(TEXTS)
FILTERED = pl.DataFrame(
    {
        "synthetic_id": [f"pool-{row}" for row in range(NUMBER)],
        "text": TEXTS,
        "bin_id": [row % 2 for row in range(NUMBER)],
        "origin": ["pool"] * NUMBER,
    },
    schema=FILTERED_INSTRUCTIONS,
)
ANNOTATED = FILTERED.rename({"text": "instruction"})
COMPARED = ANNOTATED.select(
    "synthetic_id",
    prompt="instruction",
    first=pl.format("first to {}", "synthetic_id"),
    second=pl.format("second to {}", "synthetic_id"),
    unfit=pl.lit(None, pl.String),
)
TASKS, PAIRS = instruction_tasks(FILTERED, partition=PARTITION), pair_tasks(COMPARED, partition=PARTITION)


def answered_by_all(answer: Callable[[int], str]) -> dict[int, list[Work]]:
    return {number: [Work(answer(number))] for number in range(NUMBER)}


def responses(folder: Path, content: Any, **changes: Any) -> Taken:
    path = write(folder / "done.json", content)
    return take_responses(path, FILTERED, **({"partition": PARTITION, "setting": "annotation.path"} | changes))
