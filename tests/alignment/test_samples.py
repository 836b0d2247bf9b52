"""Answers of a policy that are drawn once, kept as they arrive, and drawn on after a stop."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dp_assets.alignment.answers_store import AnswersBusy, AnswersStore
from dp_assets.alignment.samples import KeptSamples, answers_to_compare
from dp_assets.artifacts import adapter_digest

IDENTITY = {"policy": "a", "temperature": 1.0}
PROMPTS = [f"question {'x' * number}" for number in range(7)]
TEXTS = PROMPTS + PROMPTS


class Policy:
    """Answers that tell under which seed and at which place of a batch they were drawn; stops after `batches`."""

    def __init__(self, batches: int = 100) -> None:
        self.drawn: Counter[str] = Counter()
        self._batches = batches

    def __call__(self, texts: list[str], seed: int) -> list[str]:
        if not self._batches:
            raise KeyboardInterrupt
        self._batches -= 1
        self.drawn.update(texts)
        return [f" {text} {seed} {place}\n" for place, text in enumerate(texts)]


def sampled(path: Path, policy: Policy, *, texts: list[str] = TEXTS, **changes: Any) -> list[str]:
    identity, seed = changes.get("identity", IDENTITY), changes.get("seed", 5)
    with AnswersStore.opened(path) as store:
        return KeptSamples(store, policy, identity=identity, batch_size=4, seed=seed).answers(texts)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return tmp_path / "samples.jsonl"


def test_each_text_gets_its_own_answer_and_a_text_that_occurs_twice_two(samples: Path) -> None:
    answers = sampled(samples, Policy())
    assert all(answer.startswith(text) for text, answer in zip(TEXTS, answers, strict=True))
    assert len(set(answers)) == len(TEXTS)
    assert answers == [answer.strip() for answer in answers]


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped_and_draws_nothing_twice(
    tmp_path: Path, samples: Path, batches: int
) -> None:
    stopped, rest = Policy(batches), Policy()
    with pytest.raises(KeyboardInterrupt):
        sampled(samples, stopped)
    assert sampled(samples, rest) == sampled(tmp_path / "at once.jsonl", Policy())
    assert stopped.drawn + rest.drawn == Counter(TEXTS)
    assert sum(stopped.drawn.values()) == 4 * batches


def test_answers_that_are_there_are_not_drawn_again_even_by_another_list_or_process(samples: Path) -> None:
    first = sampled(samples, Policy(), texts=PROMPTS[:3] * 2)
    policy = Policy()
    assert sampled(samples, policy)[:3] == first[:3]
    assert policy.drawn == Counter(TEXTS) - Counter(PROMPTS[:3] * 2)
    assert sampled(samples, Policy(0))[:3] == first[:3]


@pytest.mark.parametrize(
    "change", [{"identity": {**IDENTITY, "policy": "b"}}, {"identity": {**IDENTITY, "temperature": 0.5}}, {"seed": 6}]
)
def test_another_policy_or_another_way_to_sample_draws_afresh(samples: Path, change: dict[str, Any]) -> None:
    sampled(samples, Policy())
    policy = Policy()
    sampled(samples, policy, **change)
    assert policy.drawn == Counter(TEXTS)


def test_an_empty_answer_is_an_answer(samples: Path) -> None:
    calls: list[list[str]] = []

    def silent(texts: list[str], seed: int) -> list[str]:
        calls.append(texts)
        return [" "] * len(texts)

    with AnswersStore.opened(samples) as store:
        kept = KeptSamples(store, silent, identity=IDENTITY, batch_size=8, seed=0)
        assert kept.missing(["why?"]) == 1
        assert kept.answers(["why?"]) == kept.answers(["why?"]) == [""]
        assert kept.missing(["why?", "why?"]) == 1
    assert calls == [["why?"]]


def test_a_policy_that_skips_a_text_is_refused_and_nothing_is_kept(samples: Path) -> None:
    with AnswersStore.opened(samples) as store:
        kept = KeptSamples(store, lambda texts, seed: texts[1:], identity=IDENTITY, batch_size=8, seed=0)
        with pytest.raises(ValueError, match="sample gave 7 texts for 8"):
            kept.answers(TEXTS)
        assert kept.missing(TEXTS) == len(TEXTS)


def test_one_process_at_a_time_samples(samples: Path) -> None:
    with AnswersStore.opened(samples), pytest.raises(AnswersBusy):
        sampled(samples, Policy())


def test_progress_counts_kept_answers_too(samples: Path) -> None:
    with AnswersStore.opened(samples) as store:
        kept = KeptSamples(store, Policy(), identity=IDENTITY, batch_size=4, seed=0)
        for _ in range(2):
            steps: list[int] = []
            kept.answers(TEXTS, steps.append)
            assert sum(steps) == len(TEXTS)


def test_an_adapter_is_told_by_its_weights_names_and_configuration() -> None:
    weights = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    config = {"r": 2, "target_modules": ["q_proj"]}
    others = [
        ({**weights, "a": np.zeros((3, 2), np.float32)}, config),
        ({**weights, "b": np.array([1, 2], np.float32)}, config),
        ({"a": weights["a"], "c": weights["b"]}, config),
        (weights, {**config, "r": 4}),
    ]
    digest = adapter_digest(weights, config)
    assert digest == adapter_digest(dict(reversed(weights.items())), config)
    assert len({digest, *(adapter_digest(*other) for other in others)}) == 1 + len(others)


def test_answers_that_cannot_be_compared_are_told_from_the_others() -> None:
    annotated = pl.DataFrame({"synthetic_id": ["b", "a", "c"], "instruction": ["how?", "why?", "who?"]})
    answers = {"how?": ["x", "x "], "why?": ["y", " "], "who?": ["1", "2"]}

    def sample(texts: list[str]) -> list[str]:
        return [answers[text].pop(0) for text in texts]

    made = answers_to_compare(annotated, sample=sample, num_pairs=3, seed=0)
    assert dict(made.select("prompt", "unfit").iter_rows()) == {"how?": "same", "why?": "empty", "who?": None}
