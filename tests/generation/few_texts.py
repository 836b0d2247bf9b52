"""A tiny model that writes few different texts, and a new adapter of it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dp_assets.artifacts import Adapter
from dp_assets.generation.adapters import adapter_from_model, new_adapter_model


def loading_few_texts(tiny_model_folder: Path) -> Any:
    """What loads the model with its tokenizer: half of its texts end at once or repeat another."""

    def load() -> Any:
        model = AutoModelForCausalLM.from_pretrained(tiny_model_folder).eval()
        model.lm_head = torch.nn.Linear(32, model.config.vocab_size)
        with torch.no_grad():
            model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.2)
            model.lm_head.bias.fill_(-100.0)
            model.lm_head.bias[[2, *range(40, 46)]] = 0.0
        return model, AutoTokenizer.from_pretrained(tiny_model_folder)

    return load


def untrained_adapter(load_model: Any) -> Adapter:
    model = new_adapter_model(load_model()[0], rank=2, alpha=4, target_modules=["q_proj"], layers=None, seed=0)
    return adapter_from_model(model, base_model="tiny", record={})
