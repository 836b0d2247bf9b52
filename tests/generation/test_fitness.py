"""What a model cannot do is named with its setting, and a sound model passes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from dp_assets.generation.fitness import (
    UnfitModel,
    explained,
    require_causal,
    require_layers,
    require_length,
    require_vocabulary,
)

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
OF_FEW_POSITIONS = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16, "vocab_size": 64}


def model_of(family: str, **sizes: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).eval()


@pytest.fixture
def model(tiny_model_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder).eval()


def test_a_sound_model_passes_every_check(model: Any, tiny_model_folder: Path) -> None:
    require_layers(model, ["q_proj", "mlp.down_proj"], setting="sft.target_modules")
    require_vocabulary(model, AutoTokenizer.from_pretrained(tiny_model_folder))
    require_length(model, 64, setting="sft.max_tokens")
    require_causal(model)


def test_a_layer_counts_by_its_whole_name_and_the_linear_ones_are_listed(model: Any) -> None:
    for missing in ("proj", "embed_tokens", "c_attn"):
        with pytest.raises(UnfitModel, match=rf"sft\.target_modules names {missing}, .*choose from .*q_proj"):
            require_layers(model, ["q_proj", missing], setting="sft.target_modules")


def test_tokens_without_a_vector_are_refused(model: Any, tiny_model_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    tokenizer.add_tokens(["<another>"])
    with pytest.raises(UnfitModel, match="has vectors for"):
        require_vocabulary(model, tokenizer)


def test_a_text_longer_than_the_positions_is_refused_before_the_model_is_run() -> None:
    model = model_of("gpt2", **OF_FEW_POSITIONS)
    require_length(model, 16, setting="sft.max_tokens")
    model.forward = model.base_model.forward = None
    with pytest.raises(UnfitModel, match=r"sft\.max_tokens makes a text of up to 17 tokens, .*has 16 positions"):
        require_length(model, 17, setting="sft.max_tokens")


def test_an_encoder_and_a_model_of_infinite_numbers_cannot_write_texts(model: Any) -> None:
    with pytest.raises(UnfitModel, match="looks at the tokens behind a token"):
        require_causal(model_of("bert", vocab_size=64, **SIZES))
    model.get_input_embeddings().weight.data.fill_(float("inf"))
    with pytest.raises(UnfitModel, match="not finite"):
        require_causal(model)


def test_an_error_is_explained_in_one_line_only_where_it_may_be() -> None:
    with pytest.raises(UnfitModel, match=r"^stage: first line$"), explained("stage"):
        raise ValueError("first line\nsecond line")
    with pytest.raises(KeyError), explained("stage"):
        raise KeyError("a bug")
    with pytest.raises(UnfitModel, match=r"^stage: RuntimeError: no kernel$"), explained("stage", or_any_error=True):
        raise RuntimeError("no kernel")
