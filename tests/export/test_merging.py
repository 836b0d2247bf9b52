"""A merged model computes what its base computes with the adapter, and is stored in the type that was asked for."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dp_assets.export.merging import write_merged
from dp_assets.export.parts import chosen_parts
from dp_assets.generation.adapters import adapter_from_model
from resources.models.loaders import LanguageModel
from resources.storage.adapter_io import save_adapter
from tests.generation.tiny_lora import lora_model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merged_model_computes_what_base_and_adapter_do_and_opens_alone(
    tiny_model_folder: Path, tmp_path: Path, dtype: str
) -> None:
    adapted = lora_model(tiny_model_folder)
    adapter = adapter_from_model(adapted, base_model=str(tiny_model_folder), record={})
    save_adapter(adapter, tmp_path / "adapter")
    (part,) = chosen_parts(["sft"])
    base = LanguageModel(model=str(tiny_model_folder), device="cpu", dtype="float32", cache_root=str(tmp_path))
    write_merged(part, tmp_path / "adapter", tmp_path / "merged", language_model=base, dtype=dtype)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert str(merged.dtype) == f"torch.{dtype}"
    tokens = AutoTokenizer.from_pretrained(tmp_path / "merged")("how do i bake bread?", return_tensors="pt")
    with torch.no_grad():
        expected, found = adapted(**tokens).logits, merged.float()(**tokens).logits
        plain = base.load()[0](**tokens).logits
    tolerance = 1e-5 if dtype == "float32" else 0.02
    assert torch.allclose(found, expected, atol=tolerance)
    assert not torch.allclose(plain, expected, atol=5 * tolerance)
