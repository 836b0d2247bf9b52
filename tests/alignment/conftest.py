"""The tiny Llama of the shared fixtures, loaded anew for each training, since a training changes its model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture
def tokenizer(tiny_model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_folder)


@pytest.fixture
def load_model(tiny_model_folder: Path) -> Callable[..., Any]:
    def load(dtype: torch.dtype = torch.float32) -> Any:
        model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=dtype).requires_grad_(False).eval()
        # Freshly drawn embeddings are so small that no adapter can move the tied output far from uniform.
        model.get_input_embeddings().weight.data *= 10
        return model

    return load
