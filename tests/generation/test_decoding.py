"""Decoding with slots gives each text what `generate` would give it, whoever else is being written."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM, TopPLogitsWarper

from dp_assets.generation import decoding
from dp_assets.generation.decoding import Decoding, choose_tokens, decode, keeps_columns
from dp_assets.progress import silent

ERROR_RATE = 1e-6  # how often a statistical test here fails on correct code
END = 2
PROMPTS = [tuple(range(10, 10 + length)) for length in (1, 7, 3, 3, 12, 1, 5, 9, 2, 30)]


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Any:
    """Ends texts after some tokens."""
    return with_random_head(tiny_model_folder, end_bias=5.0)


@pytest.fixture(scope="module")
def endless_model(tiny_model_folder: Path) -> Any:
    return with_random_head(tiny_model_folder, end_bias=-100.0)


def with_random_head(folder: Path, *, end_bias: float) -> Any:
    """The tiny model with an output layer of its own: with tied embeddings it would only repeat its last token."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    model.lm_head = torch.nn.Linear(32, model.config.vocab_size)
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.2)
        model.lm_head.bias.zero_()
        model.lm_head.bias[END] = end_bias
    return model


def drawn(model: Any, prompts: Any, *, batch_size: int, **changes: Any) -> list[list[int]]:
    settings = {"max_new_tokens": 20, "temperature": 1.0, "top_p": 0.9, "stop_ids": frozenset([END]), "seed": 3}
    return decode(model, prompts, Decoding(**settings | changes), batch_size=batch_size, first_number=0, advance=silent)


def generated(model: Any, prompt: Any, *, number: int = 1, **settings: Any) -> list[list[int]]:
    """New ids by `generate`, up to the end token."""
    ids = torch.tensor([prompt] * number)
    output = model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=END, pad_token_id=END, **settings)
    texts = output[:, len(prompt) :].tolist()
    return [text[: text.index(END) + 1] if END in text else text for text in texts]


def chosen(logits: torch.Tensor, *, draws: int, temperature: float, top_p: float) -> npt.NDArray[np.int64]:
    """How often each token is chosen in independent draws from one row of logits."""
    uniform = np.random.default_rng(5).random
    tokens = choose_tokens(logits.repeat(draws, 1), temperature=temperature, top_p=top_p, uniforms=[uniform] * draws)
    return np.bincount(tokens, minlength=logits.shape[-1])


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("max_new_tokens", [1, 20, 100])
def test_greedy_texts_are_those_of_generate(endless_model: Any, batch_size: int, max_new_tokens: int) -> None:
    """With other companions, in slots used before, and beyond the columns that there are at first."""
    model = endless_model
    settings = {"max_new_tokens": max_new_tokens}
    expected = [generated(model, prompt, do_sample=False, **settings)[0] for prompt in PROMPTS]
    assert drawn(model, PROMPTS, batch_size=batch_size, temperature=0.0, **settings) == expected


@pytest.mark.parametrize("which", ["model", "endless_model"])
def test_a_text_does_not_depend_on_the_batch_size_or_the_others(which: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(which)
    together = drawn(model, PROMPTS * 6, batch_size=60)
    assert drawn(model, PROMPTS * 6, batch_size=4) == together
    assert drawn(model, (PROMPTS * 6)[:5], batch_size=2) == together[:5]
    assert len({tuple(text) for text in together}) > 30


def test_equal_prompts_get_different_texts_and_another_seed_gives_others(model: Any) -> None:
    texts = drawn(model, [PROMPTS[1]] * 40, batch_size=8)
    assert len({tuple(text) for text in texts}) > 10
    assert drawn(model, [PROMPTS[1]] * 40, batch_size=8, seed=4) != texts


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.8), (0.7, 0.95), (1.5, 0.05), (1.0, 1.0)])
def test_tokens_are_distributed_as_the_sorted_nucleus(temperature: float, top_p: float) -> None:
    """Half of the logits are tied with another, as those of a bfloat16 model often are."""
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)) * 2
    logits[0, 1::4] = logits[0, ::4]
    kept = TopPLogitsWarper(top_p)(torch.zeros(1, 1), logits / temperature)
    expected = torch.softmax(kept, dim=-1)[0].double().numpy()
    draws = 20_000
    counts = chosen(logits, draws=draws, temperature=temperature, top_p=top_p)
    inside = expected > 0
    assert counts[~inside].sum() == 0
    if inside.sum() > 1:
        expected_counts = expected[inside] / expected[inside].sum() * draws
        assert stats.chisquare(counts[inside], expected_counts).pvalue > ERROR_RATE


def test_the_test_of_distributions_notices_a_nucleus_that_is_too_large() -> None:
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)) * 2
    kept = TopPLogitsWarper(0.8)(torch.zeros(1, 1), logits)
    counts = chosen(logits, draws=20_000, temperature=1.0, top_p=0.85)
    assert counts[(kept == -torch.inf)[0].numpy()].sum() > 0


def test_sampled_texts_are_distributed_as_those_of_generate(model: Any) -> None:
    """Lengths, and first and last tokens, of texts from refilled slots: contingency tables of both ways."""
    number, settings = 3_000, {"max_new_tokens": 12, "temperature": 0.9, "top_p": 0.8}
    ours = drawn(model, [PROMPTS[1]] * number, batch_size=128, **settings)
    torch.manual_seed(0)
    theirs = generated(model, PROMPTS[1], number=number, do_sample=True, top_k=0, **settings)
    for look in (len, lambda text: text[0], lambda text: text[-2:][0], lambda text: tuple(text[:2])):
        assert same_distribution([look(text) for text in ours], [look(text) for text in theirs]) > ERROR_RATE
    changed = drawn(model, [PROMPTS[1]] * number, batch_size=128, **settings | {"temperature": 1.2})
    assert same_distribution(list(map(len, changed)), list(map(len, theirs))) < ERROR_RATE


def same_distribution(first: list[Any], second: list[Any]) -> float:
    """The p-value of a chi-square test; values seen less than 20 times are counted as one."""
    seen = [*first, *second]
    common = [value for value in dict.fromkeys(seen) if seen.count(value) >= 20]
    counts = [[values.count(value) for value in common] for values in (first, second)]
    table = np.array([[*row, len(first) - sum(row)] for row in counts])
    return float(stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue)


def test_short_texts_do_not_wait_for_long_ones(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few slots are ever empty before the last texts, so steps are about tokens over slots."""
    steps: list[int] = []
    step = decoding._Slots.step
    monkeypatch.setattr(decoding._Slots, "step", lambda self: steps.append(self.size) or step(self))
    texts = drawn(model, [PROMPTS[1]] * 200, batch_size=10, max_new_tokens=60)
    lengths = [len(text) for text in texts]
    in_batches = sum(max(lengths[start : start + 10]) for start in range(0, 200, 10)) * 10
    assert max(lengths) > 3 * np.mean(lengths)
    assert sum(lengths) <= sum(steps) < 1.25 * sum(lengths) < in_batches


def test_memory_does_not_grow_with_the_number_of_texts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    capacities: list[int] = []
    move = decoding._Columns._move

    def watched(self: Any, slots: Any) -> None:
        move(self, slots)
        capacities.append(self.capacity)

    monkeypatch.setattr(decoding._Columns, "_move", watched)
    drawn(model, [PROMPTS[1]] * 400, batch_size=4)
    assert len(capacities) > 3
    assert max(capacities) <= 2 * (len(PROMPTS[1]) + 20) + decoding.SPARE_COLUMNS


def test_no_texts_take_no_steps(model: Any) -> None:
    assert drawn(model, [], batch_size=4) == []


def test_a_model_with_another_state_than_keys_and_values_is_told_apart(model: Any) -> None:
    recurrent = MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, state_size=2))
    assert keeps_columns(model)
    assert not keeps_columns(recurrent)
