"""One tiny draw of every kind on public text, before anything is charged that samples would be drawn from later."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.generation.fitness import (
    PUBLIC_TEXTS,
    explained,
    require_causal,
    require_length,
    require_prompts,
    require_vocabulary,
)
from dp_assets.generation.prompts import answer_prompt_ids, generator_prompt_ids
from dp_assets.generation.sampling import generate_answers, sample_instructions
from dp_assets.generation.settings import GeneratorPrompt
from dp_assets.generation.steering import sample_steered
from dp_assets.progress import silent

FEW_TOKENS = 2


def try_sampling(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompt: GeneratorPrompt,
    num_samples: int,
    max_new_tokens: int,
    **sampling: Any,
) -> None:
    """Draw two instructions of two tokens, and one that is steered by an earlier text and an opening.

    Raises:
      UnfitModel: the model or its tokenizer cannot be used so.
    """
    require_vocabulary(model, tokenizer)
    require_prompts(tokenizer, [prompt, "empty" if prompt == "empty" else "user_turn"])
    require_causal(model)
    prompt_ids = generator_prompt_ids(tokenizer, prompt=prompt)
    require_length(model, len(prompt_ids) + max_new_tokens, setting="sampling.max_new_tokens")
    few = sampling | {"max_new_tokens": FEW_TOKENS, "batch_size": 2, "advance": silent}
    with explained("sampling: no text can be drawn from language_model", or_any_error=True):
        sample_instructions(model, tokenizer, prompt_ids=prompt_ids, num_samples=2, **few)
        steerings = [(PUBLIC_TEXTS[:1], "Why is")]
        sample_steered(model, tokenizer, prompt=prompt, steerings=steerings, **few)


def try_answering(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    longest_instruction: int,
    max_new_tokens: int,
    texts: Sequence[str] = PUBLIC_TEXTS,
    **sampling: Any,
) -> None:
    """Draw two tokens of an answer to each of some public texts.

    Raises:
      UnfitModel: the model or its tokenizer cannot be used so.
    """
    require_vocabulary(model, tokenizer)
    require_prompts(tokenizer)
    around = len(answer_prompt_ids(tokenizer, ""))
    require_length(model, around + longest_instruction + max_new_tokens, setting="annotation.max_new_tokens")
    few = sampling | {"max_new_tokens": FEW_TOKENS, "batch_size": 2, "advance": silent}
    with explained("annotation: language_model cannot answer", or_any_error=True):
        generate_answers(model, tokenizer, instructions=list(texts), **few)
