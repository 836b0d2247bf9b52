"""Adapters leave and return without changing what the model computes, and without touching torch's global generator."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dp_assets.artifacts import Adapter
from dp_assets.generation.adapters import adapter_from_model, attach_adapter, new_adapter_model

IDS = torch.tensor([[1, 10, 20, 30, 40]])
LORA = {"rank": 2, "alpha": 4, "target_modules": ("q_proj", "v_proj")}


def base_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def scorer(folder: Path) -> Any:
    torch.manual_seed(3)  # The score head is not in the folder, so it is drawn.
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def with_changed_adapter(model: Any) -> Any:
    """Put values on every trainable tensor, as training would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def trained(folder: Path, **changes: Any) -> Any:
    return with_changed_adapter(
        new_adapter_model(base_model(folder), **(LORA | {"layers": None, "seed": 1} | changes))
    ).eval()


def taken(model: Any) -> Adapter:
    return replace(adapter_from_model(model, base_model="org/tiny", record={"steps": 3}), charge_ids=("charge-1",))


def test_a_new_adapter_changes_nothing_and_is_all_that_trains(tiny_model_folder: Path) -> None:
    plain = base_model(tiny_model_folder)
    before = logits(plain)
    model = new_adapter_model(plain, **LORA, layers=None, seed=0)
    assert torch.equal(logits(model), before)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 2 * 2 * 2  # two layers, two modules, two factors
    assert all("lora_" in name for name in trainable)


def test_adapter_weights_are_float32_on_a_bfloat16_base(tiny_model_folder: Path) -> None:
    model = new_adapter_model(base_model(tiny_model_folder, torch.bfloat16), **LORA, layers=None, seed=0)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_layers_restricts_the_adapter_to_those_blocks(tiny_model_folder: Path) -> None:
    model = new_adapter_model(base_model(tiny_model_folder), **LORA, layers=[1], seed=0)
    assert all(".layers.1." in name for name, parameter in model.named_parameters() if parameter.requires_grad)
    with pytest.raises(ValueError, match="layers names a block outside"):
        new_adapter_model(base_model(tiny_model_folder), **LORA, layers=[2], seed=0)


def test_the_seed_decides_the_initialization_and_leaves_the_global_generator_alone(tiny_model_folder: Path) -> None:
    plain = [base_model(tiny_model_folder) for _ in range(3)]
    torch.manual_seed(11)
    state = torch.get_rng_state()
    models = [
        new_adapter_model(model, **LORA, layers=None, seed=seed) for model, seed in zip(plain, (5, 5, 6), strict=True)
    ]
    attach_adapter(base_model(tiny_model_folder), taken(models[0]))
    assert torch.equal(torch.get_rng_state(), state)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    same, again, other = (taken(model).weights[name] for model in models)
    assert np.array_equal(same, again)
    assert not np.array_equal(same, other)


def test_a_taken_adapter_says_where_it_comes_from_and_is_serializable(tiny_model_folder: Path) -> None:
    adapter = taken(trained(tiny_model_folder))
    assert json.loads(json.dumps(adapter.config)) == adapter.config
    assert adapter.config["base_model_name_or_path"] == adapter.base_model == "org/tiny"
    assert str(tiny_model_folder) not in json.dumps(adapter.config)
    assert adapter.charge_ids == ("charge-1",)
    assert all(array.dtype == np.float32 for array in adapter.weights.values())


def test_a_taken_adapter_shares_no_memory_with_the_model(tiny_model_folder: Path) -> None:
    model = trained(tiny_model_folder)
    adapter = taken(model)
    copies = {name: array.copy() for name, array in adapter.weights.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(np.array_equal(adapter.weights[name], copies[name]) for name in copies)


def test_an_attached_adapter_gives_the_trained_logits_and_is_frozen(tiny_model_folder: Path) -> None:
    model = trained(tiny_model_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        attached = attach_adapter(base_model(tiny_model_folder), taken(model))
    assert torch.equal(logits(attached), logits(model))
    assert not torch.allclose(logits(attached), logits(base_model(tiny_model_folder)))
    assert not any(parameter.requires_grad for parameter in attached.parameters())


def test_a_trainable_attached_adapter_trains_its_factors_only(tiny_model_folder: Path) -> None:
    attached = attach_adapter(base_model(tiny_model_folder), taken(trained(tiny_model_folder)), trainable=True)
    trainable = [name for name, parameter in attached.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)


def test_an_adapter_of_chosen_layers_returns_to_those_layers(tiny_model_folder: Path) -> None:
    model = trained(tiny_model_folder, layers=[0])
    assert torch.equal(logits(attach_adapter(base_model(tiny_model_folder), taken(model))), logits(model))


def test_a_merged_adapter_leaves_a_plain_model_that_takes_another_one(tiny_model_folder: Path) -> None:
    model = trained(tiny_model_folder)
    merged = attach_adapter(base_model(tiny_model_folder), taken(model)).merge_and_unload()
    assert not isinstance(merged, PeftModel)
    assert torch.allclose(logits(merged), logits(model), atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = new_adapter_model(merged, **LORA, layers=None, seed=2)
    assert torch.equal(logits(again), logits(merged))


def test_a_reward_model_returns_with_its_score_head(tiny_model_folder: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS", modules_to_save=["score"])
    model = with_changed_adapter(get_peft_model(scorer(tiny_model_folder), config)).eval()
    adapter = taken(model)
    assert "base_model.model.score.weight" in adapter.weights
    attached = attach_adapter(
        AutoModelForSequenceClassification.from_pretrained(tiny_model_folder, num_labels=1), adapter
    )
    assert torch.equal(logits(attached.eval()), logits(model))
    assert not any(parameter.requires_grad for parameter in attached.parameters())


def test_tensors_that_do_not_fit_are_refused(tiny_model_folder: Path) -> None:
    adapter = taken(trained(tiny_model_folder))
    partial = dict(list(adapter.weights.items())[1:])
    with pytest.raises(ValueError, match=r"adapter\.weights do not fit"):
        attach_adapter(
            base_model(tiny_model_folder), Adapter(weights=partial, config=adapter.config, base_model="org/tiny")
        )
