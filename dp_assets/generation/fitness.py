"""Checks that a public language model and its tokenizer can do what the settings require.

Each check inspects the model, or runs it on fixed public tokens. The checks run before anything is charged, so a model
that a later stage could not use costs no privacy. On a GPU, a token or position that the model does not have ends the
process. So tokens and positions are compared with the sizes of the model's tables before it is run.
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

LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.float64: 1e-3}  # relative; above any difference due to rounding
LARGEST_COARSE_DIFFERENCE = 0.1
POSITIONS = ("position", "pos_emb", "wpe")
"""Parts of the names of tables that hold one vector a position."""
PUBLIC_TEXTS = ("How do I bake bread at home?", "Why is the sky blue in the morning?")
"""The texts on which models are tested before anything is charged."""
ENCODED_SO_OFTEN = 20
WHOLE_TEXT = sys.maxsize
LEAST_VOCABULARY = 26
"""The probe's fixed token ids (`sensitivity_probe.py`) are smaller than this."""


class UnfitModel(PublicError, ValueError):
    """The language model does not fit the settings. The message names settings and layers only."""


def require_layers(model: nn.Module, target_modules: Sequence[str], *, setting: str) -> None:
    """Check that each target module is a linear layer of the model. PEFT itself ignores names that match none.

    Raises:
      UnfitModel: a target module matches no linear layer.
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
    """Check that the tokenizer has an end token and can render these prompts; if none is given, that of an answer.

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
    """Check that the model has an embedding for each token of the tokenizer.

    Raises:
      UnfitModel: it has fewer, for example because tokens were added to the tokenizer only.
    """
    known = model.get_input_embeddings().num_embeddings
    if known < max(len(tokenizer), LEAST_VOCABULARY):
        raise UnfitModel(
            f"language_model has vectors for {known} tokens, and its tokenizer knows {len(tokenizer)}; choose a model"
            f" with the tokenizer that it was made with, and at least {LEAST_VOCABULARY} tokens"
        )


def require_same_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """Check that a public text gives the same tokens each time; otherwise nobody could tell which rows were trained on.

    Raises:
      UnfitModel: the tokens vary, for example under BPE dropout.
    """
    tokens = {tuple(encode_instruction(tokenizer, text, max_tokens=WHOLE_TEXT)) for _ in range(ENCODED_SO_OFTEN)}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    states_dropout = bool(getattr(getattr(backend, "model", None), "dropout", None))  # a small one shows too seldom
    if states_dropout or len(tokens) > 1:
        raise UnfitModel(
            "language_model has a tokenizer that cuts the same text now one way and now another, as under BPE dropout;"
            " set `dropout` to null in the tokenizer.json of a local copy, or choose another model"
        )


def require_length(model: PreTrainedModel, longest: int, *, setting: str) -> None:
    """Check that the model can run a text of `longest` tokens.

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
    """Check that the model is causal: its outputs at a token must not depend on later tokens.

    Raises:
      UnfitModel: the outputs depend on later tokens, or are not finite.
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
    """Return the last hidden states of the model's body, shape [rows, tokens, features], for rows of equal length."""
    ids = torch.tensor(rows, device=next(model.parameters()).device)
    states: Tensor = model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)[0]
    return states


@contextmanager
def explained(what: str, *, or_any_error: bool = False) -> Iterator[None]:
    """Turn a ValueError, or any error if `or_any_error`, into an `UnfitModel`. Use it for code with public inputs only.

    Raises:
      UnfitModel: with a message of one line: `what`, then the error's first line.
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
    """Return the first line of an error's message, after the error's type unless it is a ValueError."""
    lines = str(error).strip().splitlines()
    kind = "" if isinstance(error, ValueError) and lines else type(error).__name__
    return ": ".join(filter(None, [kind, *lines[:1]]))
