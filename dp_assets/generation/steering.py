"""Steered samples: texts that the generator writes after examples of a kind, or from given first words.

To sample texts similar to released ones, these are put into the prompt in one of two ways. Both work with any causal
model, without training for it.

    earlier turns   the examples stand before the open user turn, each ended as the generator ends its own texts
    opening         the first words of an example stand in the open user turn; they are part of the sampled text

Only released texts may be used here, and the generator is released, so this is post-processing.
"""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.generation.prompts import encode_instruction, generator_prompt_ids
from dp_assets.generation.sampling import Engine, answer_texts, sample_continuations
from dp_assets.generation.settings import GeneratorPrompt, SamplingParameters
from dp_assets.progress import Advance
from dp_assets.vocabulary import Steering


def sample_steered(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompt: GeneratorPrompt,
    steerings: Sequence[Steering],
    sampling: SamplingParameters,
    batch_size: int,
    advance: Advance,
) -> list[str]:
    """Sample one text for each steering, in their order: its opening and the continuation. A text may be empty.

    Args:
      model: the released generator.
      tokenizer: its tokenizer.
      prompt: the kind of public prompt.
      steerings: earlier texts and the opening of each sample.
      sampling: a text has at most `max_new_tokens` tokens with its opening, like every text of the pool.
      batch_size: see `sample_continuations`.
      advance: called with the number of texts that ended.
    """
    longest = sampling.max_new_tokens
    openings = [opening_ids(tokenizer, opening, max_tokens=longest) for _, opening in steerings]
    contexts = [context_ids(tokenizer, earlier, prompt=prompt, max_tokens=longest) for earlier, _ in steerings]
    prompts = [context + opening for context, opening in zip(contexts, openings, strict=True)]
    continuations = sample_continuations(
        model, tokenizer, prompts=prompts, sampling=sampling, batch_size=batch_size, advance=advance
    )
    whole = [(opening + new)[:longest] for opening, new in zip(openings, continuations, strict=True)]
    return answer_texts(tokenizer, whole)


def context_ids(
    tokenizer: PreTrainedTokenizerBase, earlier: Sequence[str], *, prompt: GeneratorPrompt, max_tokens: int
) -> list[int]:
    """Return the token ids of each earlier text as a finished user turn, followed by an open user turn.

    Each text is cut to `max_tokens`. A system message occurs once, at the beginning. The white space that some
    templates print between turns is left out.
    """
    first = generator_prompt_ids(tokenizer, prompt=prompt)
    again = generator_prompt_ids(tokenizer, prompt="empty" if prompt == "empty" else "user_turn")
    ids = list(first)
    for text in earlier:
        ids += [*encode_instruction(tokenizer, text, max_tokens=max_tokens), *again]
    return ids


def opening_ids(tokenizer: PreTrainedTokenizerBase, opening: str, *, max_tokens: int) -> list[int]:
    """Return the token ids of the beginning of a text, cut so that at least one of `max_tokens` is left to generate."""
    return encode_instruction(tokenizer, opening, max_tokens=max_tokens)[:-1] if opening else []
