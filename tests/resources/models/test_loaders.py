"""Models load frozen and quiet, and what is missing is named with its remedy."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from resources.models.loaders import Embedder, LanguageModel, ModelUnavailable


def language_model(folder: Path, cache_root: Path, **fields: Any) -> LanguageModel:
    return LanguageModel(**({"model": str(folder), "device": "cpu", "cache_root": str(cache_root)} | fields))


def test_importing_the_resources_does_not_import_torch() -> None:
    heavy = {"torch", "transformers", "sentence_transformers"}
    script = f"import sys, resources.models; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_model_loads_frozen_and_in_evaluation_mode(tiny_model_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = language_model(tiny_model_folder, tmp_path).load()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert tokenizer.pad_token_id is not None


def test_every_load_gives_a_model_of_its_own(tiny_model_folder: Path, tmp_path: Path) -> None:
    resource = language_model(tiny_model_folder, tmp_path)
    first, second = resource.load()[0], resource.load()[0]
    assert first.lm_head.weight.data_ptr() != second.lm_head.weight.data_ptr()


def test_a_model_with_dropout_loads_without(tiny_model_folder: Path, tmp_path: Path) -> None:
    config = LlamaConfig.from_pretrained(tiny_model_folder, attention_dropout=0.5)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "dropout")
    AutoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(tmp_path / "dropout")
    model, _ = language_model(tmp_path / "dropout", tmp_path).load()
    assert model.config.attention_dropout == 0.0
    assert {layer.self_attn.attention_dropout for layer in model.model.layers} == {0.0}


@pytest.mark.parametrize(("name", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_dtype_field_decides_the_weights(
    tiny_model_folder: Path, tmp_path: Path, name: str, expected: torch.dtype
) -> None:
    model, _ = language_model(tiny_model_folder, tmp_path, dtype=name).load()
    assert {parameter.dtype for parameter in model.parameters()} == {expected}


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx2": True, "avx512_f": True}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16)],
)
def test_auto_takes_bfloat16_only_where_the_processor_multiplies_it(
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capabilities: dict[str, bool],
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    model, _ = language_model(tiny_model_folder, tmp_path).load()
    assert model.dtype == expected


def test_an_unknown_dtype_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype is"):
        language_model(tiny_model_folder, tmp_path, dtype="float16").load()


def test_a_missing_pad_token_becomes_the_end_token(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "no_pad")
    assert language_model(tmp_path / "no_pad", tmp_path).load_tokenizer().pad_token == "<|im_end|>"


def test_an_unloadable_model_is_named_with_its_field(tmp_path: Path) -> None:
    resource = language_model(tmp_path / "nothing here", tmp_path)
    for load in (resource.load, resource.load_tokenizer):
        with pytest.raises(ModelUnavailable, match=r"language_model is .*nothing here.*'packaged'"):
            load()


def test_loading_prints_nothing(tiny_model_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    language_model(tiny_model_folder, tmp_path).load()
    assert capfd.readouterr() == ("", "")


def test_names_are_public_ids(tmp_path: Path) -> None:
    assert LanguageModel(cache_root=str(tmp_path)).public_name == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert LanguageModel(model="org/name", cache_root=str(tmp_path)).public_name == "org/name"
    assert LanguageModel(model="org/name", cache_root=str(tmp_path)).reference == "org/name"
    assert Embedder().public_name == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_configuration_that_is_not_here_is_not_fetched(tmp_path: Path) -> None:
    model = LanguageModel(model="nobody/has-this", cache_root=str(tmp_path))
    with pytest.raises(ModelUnavailable, match="language_model is"):
        model.load_config()
    assert list(tmp_path.iterdir()) == []


def test_an_unloadable_embedder_is_named_with_its_field(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="embedder is"):
        Embedder(model=str(tmp_path / "nothing here"), device="cpu").encode(["a"])


@pytest.mark.slow
def test_the_packaged_embedder_places_paraphrases_close(capfd: pytest.CaptureFixture[str]) -> None:
    embedder = Embedder(device="cpu")
    vectors = embedder.encode(["How do I bake bread?", "What is the way to make a loaf?", "Who won the war?"])
    assert capfd.readouterr().err == ""
    assert vectors.shape == (3, embedder.dimension) == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert embedder.encode([]).shape == (0, 384)


def test_a_vector_encoded_alone_does_not_depend_on_its_companions() -> None:
    embedder = Embedder()
    texts = ["a short text", "a much longer text that pads the others in a batch " * 6, "another short one"]
    together = embedder.encode_alone(texts)
    assert np.array_equal(together[0], embedder.encode_alone(texts[:1])[0])
    assert np.allclose(together, embedder.encode(texts), atol=1e-5)
    assert embedder.encode_alone([]).shape == (0, embedder.dimension)
