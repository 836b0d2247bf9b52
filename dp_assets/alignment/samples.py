"""Two answers of the policy to each prompt, for a judge or for people to compare.

Answers are kept as they arrive, so that a stopped run samples only the rest, and so that judge and people, or the same
people twice, compare the same answers. They lie in an `AnswersStore` of their own under a hash of what decided them:
the policy, how it is sampled, the prompt, and the how-manieth answer to it this is. Only released text comes here.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import polars as pl

from dp_assets.alignment.answers_store import Answer, AnswersStore, Outcome, Usage

EMPTY, SAME = "empty", "same"


class Draw(Protocol):
    """Answers to texts, drawn under a public seed."""

    def __call__(self, texts: list[str], seed: int) -> list[str]:
        """One answer to each text, in order."""


class KeptSamples:
    """Answers that are drawn once and kept in a store.

    `identity` says what decides an answer besides its text: policy and sampling. `draw` gets at most `batch_size` texts
    at a time and a seed counted up from `seed`; texts of like length share a batch. Whoever changes `batch_size` gets
    other answers to what is not drawn yet.
    """

    def __init__(
        self, store: AnswersStore, draw: Draw, *, identity: Mapping[str, Any], batch_size: int, seed: int
    ) -> None:
        self._store, self._draw, self._identity = store, draw, {**identity, "seed": seed}
        self._batch_size, self._seed = batch_size, seed

    def missing(self, texts: Sequence[str]) -> int:
        """How many answers are still to be drawn."""
        return sum(not self._has(key) for key in self._keys(texts))

    def answers(self, texts: Sequence[str], advance: Callable[[int], None] = lambda _: None) -> list[str]:
        """An answer to each text, in order, possibly empty; a text that occurs twice gets two answers.

        `advance` is called with the number of answers of each batch, drawn or kept.

        Raises:
          OSError: an answer could not be saved.
          ValueError: `draw` gave another number of answers than it got texts.
        """
        keys = self._keys(texts)
        # Batches are cut from the whole list, not from what is missing, so that a run which goes on draws as it would
        # have done without the stop.
        order = sorted(range(len(texts)), key=lambda number: (len(texts[number]), number))
        for batch, start in enumerate(range(0, len(order), self._batch_size)):
            numbers = order[start : start + self._batch_size]
            wanted = [number for number in numbers if not self._has(keys[number])]
            draw = partial(self._draw, seed=self._seed + batch)
            drawn = one_each("sample", draw, [texts[number] for number in wanted])
            for number, answer in zip(wanted, drawn, strict=True):
                self._store.add(_kept(keys[number], answer))
            advance(len(numbers))
        return [self._store.text(key) for key in keys]

    def _has(self, key: str) -> bool:
        return self._store.last_outcome(key) is not None

    def _keys(self, texts: Sequence[str]) -> list[str]:
        seen: Counter[str] = Counter()
        keys = []
        for text in texts:
            content = {"instruction": text, "number": seen[text], **self._identity}
            keys.append(hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest())
            seen[text] += 1
        return keys


def answers_to_compare(
    annotated: pl.DataFrame, *, sample: Callable[[list[str]], list[str]], num_pairs: int, seed: int
) -> pl.DataFrame:
    """Two answers to each of at most `num_pairs` instructions, drawn by `seed` whatever the order of the rows.

    `sample` answers all its instructions at once, each twice with another outcome where it can.

    Returns:
      Columns `synthetic_id`, `prompt`, `first`, `second` without white space around the answers, and `unfit`: why they
      cannot be compared, "empty" or "same", or null.

    Raises:
      ValueError: `sample` gave another number of texts than it got.
    """
    in_order = annotated.sort("synthetic_id")
    rows = in_order[np.random.default_rng(seed).permutation(in_order.height)[:num_pairs]]
    prompts = rows["instruction"].to_list()
    answers = one_each("sample", sample, prompts + prompts)
    first, second = pl.col("first"), pl.col("second")
    return (
        rows.select("synthetic_id", prompt="instruction")
        .with_columns(
            pl.Series("first", answers[: len(prompts)], dtype=pl.String).str.strip_chars(),
            pl.Series("second", answers[len(prompts) :], dtype=pl.String).str.strip_chars(),
        )
        .with_columns(
            unfit=pl.when((first == "") | (second == "")).then(pl.lit(EMPTY)).when(first == second).then(pl.lit(SAME))
        )
    )


def one_each(name: str, answer: Callable[[list[str]], list[str]], texts: list[str]) -> list[str]:
    """What `answer` gives for texts; it is not called for none.

    Raises:
      ValueError: it gave another number of answers than it got texts; `name` says whose.
    """
    answers = answer(texts) if texts else []
    if len(answers) != len(texts):
        raise ValueError(f"{name} gave {len(answers)} texts for {len(texts)}; it must give one each, in order")
    return answers


def _kept(key: str, answer: str) -> Answer:
    """An answer as the store knows it; sampling here costs no tokens that anybody bills."""
    text = answer.strip()
    return Answer(key, Outcome.ANSWERED if text else Outcome.EMPTY, text, Usage())
