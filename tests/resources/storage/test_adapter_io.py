"""An adapter folder is a plain PEFT folder that also says what it descends from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dp_assets.artifacts import Adapter
from dp_assets.generation.adapters import adapter_from_model, attach_adapter
from resources.storage.adapter_io import CONFIG_FILE, PROVENANCE_FILE, WEIGHTS_FILE, load_adapter, save_adapter

IDS = torch.tensor([[1, 10, 20, 30, 40]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def trained(base: Any, config: LoraConfig) -> Any:
    model = get_peft_model(base, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return model


def causal_base(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def scoring_base(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)


CASES = [
    pytest.param(causal_base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"), id="causal"),
    pytest.param(
        scoring_base,
        LoraConfig(r=2, target_modules=["v_proj"], task_type="SEQ_CLS", modules_to_save=["score"]),
        id="reward",
    ),
]


@pytest.mark.parametrize(("base", "config"), CASES)
def test_peft_itself_opens_the_folder_and_computes_the_same(
    tiny_model_folder: Path, tmp_path: Path, base: Any, config: LoraConfig
) -> None:
    model = trained(base(tiny_model_folder), config)
    save_adapter(adapter_from_model(model, base_model="org/tiny", record={}), tmp_path)
    opened = PeftModel.from_pretrained(base(tiny_model_folder), tmp_path)
    assert torch.equal(logits(opened), logits(model))


@pytest.mark.parametrize(("base", "config"), CASES)
def test_a_loaded_adapter_is_the_saved_one_and_attaches(
    tiny_model_folder: Path, tmp_path: Path, base: Any, config: LoraConfig
) -> None:
    model = trained(base(tiny_model_folder), config)
    saved = replace(
        adapter_from_model(model, base_model="org/tiny", record={"curve": [1.5, 1.25]}), charge_ids=("b", "a")
    )
    save_adapter(saved, tmp_path / "adapter")
    loaded = load_adapter(tmp_path / "adapter")
    assert (loaded.config, loaded.base_model, loaded.charge_ids, loaded.record) == (
        saved.config,
        saved.base_model,
        saved.charge_ids,
        saved.record,
    )
    assert loaded.weights.keys() == saved.weights.keys()
    assert all(np.array_equal(loaded.weights[name], saved.weights[name]) for name in saved.weights)
    assert torch.equal(logits(attach_adapter(base(tiny_model_folder), loaded)), logits(model))


@pytest.mark.parametrize("missing", [CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE])
def test_a_folder_without_one_of_its_files_is_refused(tmp_path: Path, missing: str) -> None:
    weights = {"base_model.model.x.lora_A.weight": np.ones((2, 3), dtype=np.float32)}
    save_adapter(Adapter(weights=weights, config={}, base_model="org/tiny"), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        load_adapter(tmp_path)


def test_transposed_weights_are_stored_by_value(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_adapter(Adapter(weights={"w": array}, config={}, base_model="org/tiny"), tmp_path)
    assert np.array_equal(load_adapter(tmp_path).weights["w"], array)
