"""Steered samples: texts that a generator writes after earlier texts of a kind, or goes on with from an opening.

Whoever wants more texts like some that were released shows them to the generator, in one of two ways that any causal
model follows, trained to it or not. As *earlier turns*, they stand before the open user turn, each ended as the
generator ends its own texts. As an *opening*, the first words of a text stand in the open user turn, and the generator
goes on with them; they belong to the text that comes out.

Only released texts may come here, and the generator is released, so this is post-processing.
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
    """One text for each steering, in order: its opening and what the generator wrote after it; possibly empty.

    A text has at most `max_new_tokens` tokens, its opening included, as every text of the pool. For the other
    parameters see `sample_continuations`.
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
    """Token ids of the public prompt, with each earlier text, cut to `max_tokens`, as a finished user turn before it.

    A system message is said once, at the beginning. The white space that some templates print between two turns is
    left out.
    """
    first = generator_prompt_ids(tokenizer, prompt=prompt)
    again = generator_prompt_ids(tokenizer, prompt="empty" if prompt == "empty" else "user_turn")
    ids = list(first)
    for text in earlier:
        ids += [*encode_instruction(tokenizer, text, max_tokens=max_tokens), *again]
    return ids


def opening_ids(tokenizer: PreTrainedTokenizerBase, opening: str, *, max_tokens: int) -> list[int]:
    """Token ids of the beginning of a text, cut so that at least one of `max_tokens` is left to write."""
    return encode_instruction(tokenizer, opening, max_tokens=max_tokens)[:-1] if opening else []
