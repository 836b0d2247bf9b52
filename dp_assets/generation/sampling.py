"""Sampling from a released model: instructions after the public prompt, answers to instructions.

All of it is post-processing of a release, so it takes public seeds and costs no privacy. Every special token ends a
text, not only the end token: a control token never belongs to what a person wrote, and what follows one is no longer
that text.

Left out: continuous batching. A batch runs until its longest text ends or is cut.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import polars as pl
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.generation.prompts import answer_prompt_ids, end_of_instruction_id
from dp_assets.generation.seeding import public_seed

SAMPLES = pl.Schema({"text": pl.String, "num_tokens": pl.Int64, "finished": pl.Boolean})


def sample_instructions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompt_ids: Sequence[int],
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    batch_size: int,
    seed: int,
    advance: Callable[[int], None],
) -> pl.DataFrame:
    """Draw `num_samples` continuations of `prompt_ids`, at most `max_new_tokens` tokens each.

    Returns one row a sample with a non-empty text, so possibly fewer than were drawn: `text` without surrounding
    white space, `num_tokens` before the end token, `finished` if the sample ended with the end token and was not cut.
    `advance` is called with the number drawn after each batch.
    """
    settings = _settings(tokenizer, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    prefix = _prefix_cache(model, prompt_ids)
    frames = [SAMPLES.to_frame()]
    with public_seed(seed):
        for start in range(0, num_samples, batch_size):
            size = min(batch_size, num_samples - start)
            drawn = _continuations(model, [prompt_ids] * size, settings, cache=_repeated(prefix, size))
            frames.append(_decoded_samples(tokenizer, drawn))
            advance(size)
    return pl.concat(frames).filter(pl.col("text") != "")


def deduplicate(samples: pl.DataFrame) -> pl.DataFrame:
    """`samples` without rows whose text occurred before; the order stays."""
    return samples.unique(subset="text", keep="first", maintain_order=True)


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    instructions: Sequence[str],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    batch_size: int,
    seed: int,
    advance: Callable[[int], None],
) -> list[str]:
    """One answer to each instruction, in their order, at most `max_new_tokens` tokens each; an answer may be empty.

    Temperature 0 takes the likeliest token each time, and then `top_p` and `seed` have no effect. Instructions of
    like length share a batch, so a change of `batch_size` or of the list changes sampled answers. `advance` is called
    with the size of each batch.
    """
    answers = generate_answer_ids(
        model,
        tokenizer,
        instructions=instructions,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        batch_size=batch_size,
        seed=seed,
        advance=advance,
    )
    return answer_texts(tokenizer, answers)


def generate_answer_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    instructions: Sequence[str],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    batch_size: int,
    seed: int,
    advance: Callable[[int], None],
) -> list[list[int]]:
    """The answers of `generate_answers` as token ids; the token that ended an answer is its last one, if any did."""
    return sample_continuations(
        model,
        tokenizer,
        prompts=[answer_prompt_ids(tokenizer, instruction) for instruction in instructions],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        batch_size=batch_size,
        seed=seed,
        advance=advance,
    )


def sample_continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    batch_size: int,
    seed: int,
    advance: Callable[[int], None],
) -> list[list[int]]:
    """New token ids after each prompt, in order; the token that ended a text is its last one, if any did.

    The arguments are those of `generate_answers`; `prompts` are token ids, at least one each.
    """
    settings = _settings(tokenizer, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    stop_ids = frozenset(_stop_ids(tokenizer))
    continuations: list[list[int]] = [[] for _ in prompts]
    with public_seed(seed):
        for batch in _batches_by_length(prompts, batch_size):
            drawn = _continuations(model, [prompts[index] for index in batch], settings)
            for index, ids in zip(batch, drawn, strict=True):
                continuations[index] = ids[: len(_until_stop(ids, stop_ids)) + 1]
            advance(len(batch))
    return continuations


def answer_texts(tokenizer: PreTrainedTokenizerBase, answers: Sequence[Sequence[int]]) -> list[str]:
    """Sampled token ids as texts: up to the token that ended each, without surrounding white space."""
    stop_ids = frozenset(_stop_ids(tokenizer))
    kept = [_until_stop(ids, stop_ids) for ids in answers]
    return [text.strip() for text in tokenizer.batch_decode(kept, clean_up_tokenization_spaces=False)]


def _settings(
    tokenizer: PreTrainedTokenizerBase, *, max_new_tokens: int, temperature: float, top_p: float
) -> dict[str, Any]:
    """Arguments of `generate`. Those that a model's own generation settings might change are all given."""
    choice = (
        {"do_sample": False}
        if temperature == 0
        else {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    )
    return choice | {
        "max_new_tokens": max_new_tokens,
        "eos_token_id": _stop_ids(tokenizer),
        "pad_token_id": end_of_instruction_id(tokenizer),
        "repetition_penalty": 1.0,
        "use_cache": True,
    }


def _stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return sorted({end_of_instruction_id(tokenizer), *tokenizer.all_special_ids})


def _prefix_cache(model: PreTrainedModel, prompt_ids: Sequence[int]) -> DynamicCache | None:
    """Keys and values of all prompt tokens but the last, computed once for all samples; None for a prompt of one token.

    `generate` needs the last token itself to have something to continue from.
    """
    if len(prompt_ids) == 1:
        return None
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.tensor([prompt_ids[:-1]], device=model.device), past_key_values=cache, use_cache=True)
    return cache


def _repeated(cache: DynamicCache | None, size: int) -> DynamicCache | None:
    """A copy of `cache` for `size` rows: `generate` appends to the one that it gets."""
    if cache is None:
        return None
    rows = copy.deepcopy(cache)
    rows.batch_repeat_interleave(size)
    return rows


def _continuations(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: dict[str, Any],
    *,
    cache: DynamicCache | None = None,
) -> list[list[int]]:
    """New token ids for each prompt. Rows that ended early are filled up with the pad token."""
    width = max(map(len, prompts))
    padded = [[settings["pad_token_id"]] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    output = model.generate(
        input_ids=torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        **({} if cache is None else {"cache": cache}),
        **settings,
    )
    new_ids: list[list[int]] = output[:, width:].tolist()
    return new_ids


def _until_stop(ids: Sequence[int], stop_ids: frozenset[int]) -> list[int]:
    length = next((position for position, token in enumerate(ids) if token in stop_ids), len(ids))
    return list(ids[:length])


def _decoded_samples(tokenizer: PreTrainedTokenizerBase, drawn: Sequence[Sequence[int]]) -> pl.DataFrame:
    stop_ids = frozenset(_stop_ids(tokenizer))
    lengths = [len(_until_stop(ids, stop_ids)) for ids in drawn]
    end_id = end_of_instruction_id(tokenizer)
    finished = [length < len(ids) and ids[length] == end_id for ids, length in zip(drawn, lengths, strict=True)]
    columns = {"text": answer_texts(tokenizer, drawn), "num_tokens": lengths, "finished": finished}
    return pl.DataFrame(columns, schema=SAMPLES)


def _batches_by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices of the prompts, shortest first, in batches: prompts of like length need little padding."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
