"""Two answers of the policy to each prompt, to be compared by a judge or by people.

Answers are stored as they are sampled. So an interrupted run samples only the rest, and a judge and people, or people
twice, compare the same answers. They have their own `AnswersStore`, under a hash of what decides them: the policy, the
sampling parameters, the prompt, and the index of the answer among those to the same prompt. The store holds released
text only.
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
    """A function that samples answers to texts from a public seed."""

    def __call__(self, texts: list[str], seed: int) -> list[str]:
        """Return one answer to each text, in order."""


class KeptSamples:
    """Answers that are sampled once and stored.

    - `identity` is what decides an answer besides its text: policy and sampling parameters.
    - `draw` receives at most `batch_size` texts at a time, of similar length, and a seed: `seed` plus the batch index.
    - A change of `batch_size` changes the answers that are not sampled yet.
    """

    def __init__(
        self, store: AnswersStore, draw: Draw, *, identity: Mapping[str, Any], batch_size: int, seed: int
    ) -> None:
        self._store, self._draw, self._identity = store, draw, {**identity, "seed": seed}
        self._batch_size, self._seed = batch_size, seed

    def missing(self, texts: Sequence[str]) -> int:
        """Return the number of answers that are not sampled yet."""
        return sum(not self._has(key) for key in self._keys(texts))

    def answers(self, texts: Sequence[str], advance: Callable[[int], None] = lambda _: None) -> list[str]:
        """Return an answer to each text, in order, possibly empty. A text that occurs twice gets two answers.

        `advance` is called with the number of answers of each batch, sampled or stored before.

        Raises:
          OSError: an answer could not be saved.
          ValueError: `draw` returned another number of answers than it received texts.
        """
        keys = self._keys(texts)
        # Batches are formed from the whole list, not from the missing answers, so that a continued run samples the same
        # answers as an uninterrupted one.
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
    """Sample two answers to each of at most `num_pairs` instructions, chosen by `seed` whatever the order of the rows.

    `sample` answers all instructions at once. Each occurs twice, for two answers that should differ.

    Returns:
      Columns `synthetic_id`, `prompt`, `first`, `second` without white space around the answers, and `unfit`: why they
      cannot be compared, "empty" or "same", or null.

    Raises:
      ValueError: `sample` returned another number of texts than it received.
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
    """Return the answers of `answer` to texts. It is not called if there are no texts.

    Raises:
      ValueError: it returned another number of answers than it received texts; `name` is its name in the message.
    """
    answers = answer(texts) if texts else []
    if len(answers) != len(texts):
        raise ValueError(f"{name} gave {len(answers)} texts for {len(texts)}; it must give one each, in order")
    return answers


def _kept(key: str, answer: str) -> Answer:
    """Return an answer in the form of the store. Its usage is zero, because local sampling is not billed."""
    text = answer.strip()
    return Answer(key, Outcome.ANSWERED if text else Outcome.EMPTY, text, Usage())
