"""Whether a public language model and its tokenizer can do what the settings ask of them.

Each check looks at the model itself, or runs it on fixed public tokens. They are made before anything is charged, so a
model that a later stage could not use costs nothing. On a GPU a token or position that the model does not have ends the
process, so these are compared with its tables before it is run.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from dp_assets.generation.prompts import (
    answer_prompt_ids,
    encode_instruction,
    end_of_instruction_id,
    generator_prompt_ids,
)
from dp_assets.generation.settings import GeneratorPrompt
from dp_assets.privacy.errors import PublicError

LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.float64: 1e-3}  # relative; what rounding may leave
LARGEST_COARSE_DIFFERENCE = 0.1
POSITIONS = ("position", "pos_emb", "wpe")
"""Parts of the names of tables that hold one vector a position."""
PUBLIC_TEXTS = ("How do I bake bread at home?", "Why is the sky blue in the morning?")
"""What models are tried on before anything is charged."""
ENCODED_SO_OFTEN = 20
WHOLE_TEXT = sys.maxsize
LEAST_VOCABULARY = 26
"""The probe's fixed token ids (`sensitivity_probe.py`) are smaller than this."""


class UnfitModel(PublicError, ValueError):
    """The language model does not go with the settings. Says names of settings and layers only."""


def require_layers(model: nn.Module, target_modules: Sequence[str], *, setting: str) -> None:
    """Each target module must be a linear layer of the model; PEFT itself passes over those that are missing.

    Raises:
      UnfitModel: one is not.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    missing = [target for target in target_modules if not any(f".{layer}".endswith(f".{target}") for layer in layers)]
    if missing:
        known = sorted({layer.rsplit(".", 1)[-1] for layer in layers})
        raise UnfitModel(
            f"{setting} names {', '.join(missing)}, which is no linear layer of the language model;"
            f" choose from {', '.join(known)}"
        )


def require_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[GeneratorPrompt] = ()) -> None:
    """There must be an end token and these public prompts of the generator, or, if none is named, that of an answer.

    Raises:
      UnfitModel: the tokenizer has no end token, or its chat template cannot be used.
    """
    with explained("language_model cannot be asked for texts"):
        end_of_instruction_id(tokenizer)
        for prompt in prompts:
            generator_prompt_ids(tokenizer, prompt=prompt)
        if not prompts:
            answer_prompt_ids(tokenizer, "How are you?")


def require_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """The model must have a vector for each token that the tokenizer knows.

    Raises:
      UnfitModel: it has fewer, as after tokens were added to the tokenizer alone.
    """
    known = model.get_input_embeddings().num_embeddings
    if known < max(len(tokenizer), LEAST_VOCABULARY):
        raise UnfitModel(
            f"language_model has vectors for {known} tokens, and its tokenizer knows {len(tokenizer)}; choose a model"
            f" with the tokenizer that it was made with, and at least {LEAST_VOCABULARY} tokens"
        )


def require_same_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """A public text must become the same tokens each time, or nobody could tell which rows were trained on.

    Raises:
      UnfitModel: it does not, as under BPE dropout.
    """
    tokens = {tuple(encode_instruction(tokenizer, text, max_tokens=WHOLE_TEXT)) for _ in range(ENCODED_SO_OFTEN)}
    if len(tokens) > 1:
        raise UnfitModel(
            "language_model has a tokenizer that cuts the same text now one way and now another, as under BPE dropout;"
            " set `dropout` to null in the tokenizer.json of a local copy, or choose another model"
        )


def require_length(model: PreTrainedModel, longest: int, *, setting: str) -> None:
    """The model must take a text of `longest` tokens.

    Raises:
      UnfitModel: it has fewer positions, or fails on such a text.
    """
    counted = [
        module.num_embeddings
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Embedding) and any(part in name.lower() for part in POSITIONS)
    ]
    if counted and min(counted) < longest:
        raise UnfitModel(
            f"{setting} makes a text of up to {longest} tokens, and language_model has {min(counted)} positions;"
            " allow fewer tokens"
        )
    with explained(f"{setting}: language_model does not take a text of {longest} tokens", or_any_error=True):
        hidden_states(model, [[5] * longest])


def require_causal(model: PreTrainedModel) -> None:
    """What stands behind a token must not change the model's outputs at it: only such a model writes texts.

    Raises:
      UnfitModel: it does, or the outputs are not finite.
    """
    with explained("language_model cannot be run on public tokens", or_any_error=True):
        first, second = hidden_states(model, [[5, 6, 7, 8, 9], [5, 6, 7, 10, 11]]).float()[:, :3]
    if not (first.isfinite().all() and second.isfinite().all()):
        raise UnfitModel("language_model gives numbers that are not finite; set dtype to float32, or choose another")
    largest = LARGEST_DIFFERENCE.get(model.dtype, LARGEST_COARSE_DIFFERENCE)
    if (first - second).norm() > largest * first.norm():
        raise UnfitModel(
            "language_model looks at the tokens behind a token, as encoders do, so it cannot write texts; choose a"
            " causal language model"
        )


@torch.no_grad()  # type: ignore[untyped-decorator]
def hidden_states(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """The last hidden states of the model's body, shape [rows, tokens, features], for rows of equal length."""
    ids = torch.tensor(rows, device=next(model.parameters()).device)
    states: Tensor = model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)[0]
    return states


@contextmanager
def explained(what: str, *, or_any_error: bool = False) -> Iterator[None]:
    """Turn a ValueError, or any error, of code that saw public inputs only into an `UnfitModel`.

    Raises:
      UnfitModel: with `what` before what the error says, in one line.
    """
    try:
        yield
    except UnfitModel:
        raise
    except Exception as error:
        if not (or_any_error or isinstance(error, ValueError)):
            raise
        raise UnfitModel(f"{what}: {said_by(error)}") from None


def said_by(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    kind = "" if isinstance(error, ValueError) and lines else type(error).__name__
    return ": ".join(filter(None, [kind, *lines[:1]]))
