"""A tiny Llama with an adapter, and rows for it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from dp_assets.dpsgd import clipping
from dp_assets.dpsgd.packing import TokenRow

PAD = 2  # the tiny tokenizer's <|im_end|>; texts contain it on purpose


def lora_model(folder: Path, **config: Any) -> PeftModel:
    """The model in evaluation mode, its adapter away from the start where B is zero and A gets no gradient."""
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    options = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(base, LoraConfig(**(options | config)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model.eval()


ROWS = (
    TokenRow((1, 7), (11, 12, 13, PAD)),
    TokenRow((1,), (21, PAD, 0, 22, 23, 24, 25, 26, 27, PAD)),
    TokenRow((1, 7, 8), (31,)),
    TokenRow((1, 7), (41, 42, 43, 44, 45, 46, PAD)),
    TokenRow((1, 9), (51, 52)),
    TokenRow((1, 7), (61, 61, 61, 61, 61, PAD)),
)
ONE_ROW_EACH = ("a", "b", "c", "d", "e", "f")
SHARED = ("a", "b", "a", "c", "a", "b")


def round_by_position(patch: pytest.MonkeyPatch, slack: float) -> None:
    """Let each row's gradient grow by `slack` of itself with its place, as a kernel would that rounds by position."""
    add_rows = clipping._add_rows

    def rounded(gradients: Any, *args: Any) -> Any:
        places = torch.arange(len(next(iter(gradients.values()))), dtype=torch.float64)[:, None, None]
        return add_rows({name: gradient * (1 + slack * places) for name, gradient in gradients.items()}, *args)

    patch.setattr(clipping, "_add_rows", rounded)
