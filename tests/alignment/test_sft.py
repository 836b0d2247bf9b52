import random
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from dp_assets.alignment.settings import AdapterTraining
from dp_assets.alignment.sft import train_sft
from dp_assets.generation.prompts import answer_prompt_ids
from dp_assets.progress import silent

PAIRS = pl.DataFrame(
    {
        "instruction": ["how do i bake bread?", "why is the sky blue?", "tell me a story."],
        "response": ["with water and a lot of heat", "because of light", "a cat"],
    }
)


def train(model: Any, tokenizer: Any, pairs: pl.DataFrame = PAIRS, advance: Any = silent, **changed: Any) -> Any:
    settings: dict[str, Any] = {
        "rank": 4,
        "alpha": 8.0,
        "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"],
        "learning_rate": 2e-2,
        "epochs": 1,
        "batch_size": 3,
        "max_tokens": 128,
        "seed": 0,
    }
    return train_sft(model, tokenizer, pairs, AdapterTraining(**(settings | changed)), advance=advance)


def first_batch(model: Any) -> dict[str, torch.Tensor]:
    """What the model sees first, recorded while it trains."""
    seen: dict[str, torch.Tensor] = {}

    def record(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        seen.update({name: value for name, value in inputs.items() if name not in seen and torch.is_tensor(value)})

    model.register_forward_pre_hook(record, with_kwargs=True)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_falls_on_a_set_that_can_be_memorised(load_model: Callable[..., Any], tokenizer: Any, dtype: torch.dtype):
    model, curve = train(load_model(dtype), tokenizer, epochs=40)
    assert [entry["step"] for entry in curve] == list(range(1, 41))
    assert curve[-1]["loss"] < 0.6 * curve[0]["loss"]
    assert curve[-1]["token_accuracy"] > curve[0]["token_accuracy"]
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}


def test_prompt_and_padding_have_no_loss_and_the_end_token_has(load_model: Callable[..., Any], tokenizer: Any):
    model = load_model()
    seen = first_batch(model)
    train(model, tokenizer)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rows = list(zip(seen["input_ids"].tolist(), seen["labels"].tolist(), seen["attention_mask"].tolist(), strict=True))
    assert len(rows) == PAIRS.height
    prompts = {tuple(answer_prompt_ids(tokenizer, text)) for text in PAIRS["instruction"]}
    for ids, labels, mask in rows:
        length = sum(mask)
        prompt = next(prompt for prompt in prompts if tuple(ids[: len(prompt)]) == prompt)
        assert labels[: len(prompt)] == [-100] * len(prompt)
        assert labels[len(prompt) : length] == ids[len(prompt) : length]
        assert labels[length - 1] == tokenizer.eos_token_id
        assert set(labels[length:]) <= {-100}
    assert any(0 in mask for _, _, mask in rows)


def test_a_cut_response_has_no_end_token_and_a_row_without_response_is_left_out(
    load_model: Callable[..., Any], tokenizer: Any
):
    longest_prompt = max(len(answer_prompt_ids(tokenizer, text)) for text in PAIRS["instruction"])
    pairs = pl.concat([PAIRS, pl.DataFrame({"instruction": ["why? " * 40], "response": ["light"]})])
    model = load_model()
    seen = first_batch(model)
    train(model, tokenizer, pairs, batch_size=4, max_tokens=longest_prompt + 1)
    assert seen["input_ids"].shape[0] == PAIRS.height
    longest_row = seen["labels"][:, longest_prompt]
    assert (longest_row != -100).any()
    assert tokenizer.eos_token_id not in longest_row


def test_nothing_to_train_on_is_refused(load_model: Callable[..., Any], tokenizer: Any):
    with pytest.raises(ValueError, match="raise max_tokens"):
        train(load_model(), tokenizer, max_tokens=3)


def test_the_same_seed_gives_the_same_adapter(load_model: Callable[..., Any], tokenizer: Any):
    def weights(seed: int) -> torch.Tensor:
        model, _ = train(load_model(), tokenizer, batch_size=1, seed=seed)
        return torch.cat([parameter.flatten() for parameter in model.parameters() if parameter.requires_grad])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_training_prints_nothing_writes_nothing_and_leaves_generators_and_forward_alone(
    load_model: Callable[..., Any],
    tokenizer: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
):
    monkeypatch.chdir(tmp_path)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    advanced: list[int] = []
    model, _ = train(load_model(), tokenizer, epochs=2, batch_size=2, advance=advanced.append)
    assert advanced == [1, 1, 1, 1]
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert "forward" not in vars(model.get_base_model())
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
