"""Trial runs: a few tokens of every kind of sampling on public texts, before anything is charged."""

from collections.abc import Sequence
from dataclasses import replace

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
from dp_assets.generation.settings import SamplingParameters, SamplingSettings
from dp_assets.generation.steering import sample_steered
from dp_assets.progress import silent

FEW_TOKENS = 2


def try_sampling(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: SamplingSettings) -> None:
    """Sample two instructions of two tokens, and one that is steered by an earlier text and an opening.

    Raises:
      UnfitModel: the model or its tokenizer cannot be used in this way.
    """
    require_vocabulary(model, tokenizer)
    prompt = settings.prompt
    require_prompts(tokenizer, [prompt, "empty" if prompt == "empty" else "user_turn"])
    require_causal(model)
    prompt_ids = generator_prompt_ids(tokenizer, prompt=prompt)
    require_length(model, len(prompt_ids) + settings.max_new_tokens, setting="sampling.max_new_tokens")
    few = replace(settings.parameters, max_new_tokens=FEW_TOKENS)
    with explained("sampling: no text can be drawn from language_model", or_any_error=True):
        sample_instructions(
            model, tokenizer, prompt_ids=prompt_ids, num_samples=2, sampling=few, batch_size=2, advance=silent
        )
        steerings = [(PUBLIC_TEXTS[:1], "Why is")]
        sample_steered(model, tokenizer, prompt=prompt, steerings=steerings, sampling=few, batch_size=2, advance=silent)


def try_answering(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sampling: SamplingParameters,
    *,
    longest_instruction: int,
    texts: Sequence[str] = PUBLIC_TEXTS,
) -> None:
    """Sample two tokens of an answer to each of the public `texts`.

    Args:
      model: the annotator's language model.
      tokenizer: its tokenizer.
      sampling: as in the run, except for the number of tokens.
      longest_instruction: the most tokens of an instruction.
      texts: public instructions.

    Raises:
      UnfitModel: the model or its tokenizer cannot be used in this way.
    """
    require_vocabulary(model, tokenizer)
    require_prompts(tokenizer)
    around = len(answer_prompt_ids(tokenizer, ""))
    require_length(model, around + longest_instruction + sampling.max_new_tokens, setting="annotation.max_new_tokens")
    few = replace(sampling, max_new_tokens=FEW_TOKENS)
    with explained("annotation: language_model cannot answer", or_any_error=True):
        generate_answers(model, tokenizer, instructions=list(texts), sampling=few, batch_size=2, advance=silent)
