"""Sampling from a released model: instructions after the public prompt, and answers to instructions.

All of it is post-processing of a release, so it uses public seeds and costs no privacy. Every special token ends a
text, not only the end token, because a person's text never contains a control token.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import polars as pl
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.generation.decoding import Decoding, decode, keeps_columns
from dp_assets.generation.prompts import answer_prompt_ids, end_of_instruction_id
from dp_assets.generation.seeding import public_seed
from dp_assets.generation.settings import SamplingParameters
from dp_assets.progress import Advance

SAMPLES = pl.Schema({"text": pl.String, "num_tokens": pl.Int64, "finished": pl.Boolean})


@runtime_checkable
class Engine(Protocol):
    """A model outside transformers, with its own sampling."""

    def continue_texts(
        self,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        *,
        batch_size: int,
        first_number: int,
        advance: Callable[[int], None],
    ) -> list[list[int]]:
        """Return what `decode` returns for a model of transformers."""
        ...


def sample_continuations(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingParameters,
    batch_size: int,
    advance: Advance,
    first_number: int = 0,
) -> list[list[int]]:
    """Return the new token ids after each prompt, in the order of the prompts.

    If a stop token ended a text, it is the last of its ids.

    Args:
      model: the released model.
      tokenizer: its tokenizer.
      prompts: token ids, at least one each.
      sampling: at temperature 0, `top_p` and `seed` have no effect. The random numbers of a text follow from `seed` and
        the text's number.
      batch_size: affects nothing but rounding, with continuous batching.
      advance: called with the number of texts that ended.
      first_number: the number of the first text.
    """
    decoding = Decoding(
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop_ids=frozenset(_stop_ids(tokenizer)),
        seed=sampling.seed,
    )
    return _drawing(model)(prompts, decoding, batch_size=batch_size, first_number=first_number, advance=advance)


def _drawing(model: PreTrainedModel | Engine) -> Callable[..., list[list[int]]]:
    if isinstance(model, Engine):
        return model.continue_texts
    return partial(decode if keeps_columns(model) else _generate, model)


def sample_instructions(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompt_ids: Sequence[int],
    num_samples: int,
    sampling: SamplingParameters,
    batch_size: int,
    advance: Advance,
    first_number: int = 0,
) -> pl.DataFrame:
    """Sample `num_samples` continuations of `prompt_ids`. For the other parameters see `sample_continuations`.

    Returns one row for each sample with a non-empty text, so possibly fewer than `num_samples`: `text` without
    surrounding white space, `num_tokens` before the stop token, and `finished`, which is true if the sample ended with
    the end token.
    """
    drawn = sample_continuations(
        model,
        tokenizer,
        prompts=[prompt_ids] * num_samples,
        sampling=sampling,
        batch_size=batch_size,
        advance=advance,
        first_number=first_number,
    )
    return _decoded_samples(tokenizer, drawn).filter(pl.col("text") != "")


def deduplicate(samples: pl.DataFrame) -> pl.DataFrame:
    """Return `samples` without rows whose text occurred before, in the same order."""
    return samples.unique(subset="text", keep="first", maintain_order=True)


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    instructions: Sequence[str],
    sampling: SamplingParameters,
    batch_size: int,
    advance: Advance,
) -> list[str]:
    """Return one answer to each instruction, in the order of the instructions. An answer may be empty.

    For the parameters see `sample_continuations`.
    """
    answers = generate_answer_ids(
        model, tokenizer, instructions=instructions, sampling=sampling, batch_size=batch_size, advance=advance
    )
    return answer_texts(tokenizer, answers)


def generate_answer_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    instructions: Sequence[str],
    sampling: SamplingParameters,
    batch_size: int,
    advance: Advance,
) -> list[list[int]]:
    """Return the answers of `generate_answers` as token ids, each with the stop token that ended it, if any did.

    For the parameters see `sample_continuations`.
    """
    prompts = [answer_prompt_ids(tokenizer, instruction) for instruction in instructions]
    return sample_continuations(
        model, tokenizer, prompts=prompts, sampling=sampling, batch_size=batch_size, advance=advance
    )


def answer_texts(tokenizer: PreTrainedTokenizerBase, answers: Sequence[Sequence[int]]) -> list[str]:
    """Return sampled token ids as texts: up to the stop token of each, without surrounding white space."""
    stop_ids = frozenset(_stop_ids(tokenizer))
    kept = [_until_stop(ids, stop_ids) for ids in answers]
    return [text.strip() for text in tokenizer.batch_decode(kept, clean_up_tokenization_spaces=False)]


def _stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return sorted({end_of_instruction_id(tokenizer), *tokenizer.all_special_ids})


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


# Static batches with `generate` of transformers, for models whose layers do not all keep their own keys and values.
# Gemma 3n and Gemma 4 are such models: their last layers share the keys and values of earlier ones.


def _generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    batch_size: int,
    first_number: int,
    advance: Callable[[int], None],
) -> list[list[int]]:
    """Return what `decode` returns, in static batches: a batch runs until its longest text ends.

    Random numbers are shared by a batch, so texts depend on the batch size.
    """
    texts: list[list[int]] = [[] for _ in prompts]
    for number, batch in enumerate(_batches_by_length(prompts, batch_size)):
        with public_seed(hash((decoding.seed, first_number, number)) % 2**63):
            drawn = _generated_batch(model, [prompts[index] for index in batch], decoding)
        for index, ids in zip(batch, drawn, strict=True):
            texts[index] = ids[: len(_until_stop(ids, decoding.stop_ids)) + 1]
        advance(len(batch))
    return texts


def _generated_batch(model: PreTrainedModel, prompts: Sequence[Sequence[int]], decoding: Decoding) -> list[list[int]]:
    """Return the new token ids for each prompt, with arbitrary ones after the end of a text that ended early.

    Every argument that a model's own generation settings could change is given explicitly.
    """
    width, pad = max(map(len, prompts)), min(decoding.stop_ids)
    padded = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    sampled = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    output = model.generate(
        input_ids=torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=sorted(decoding.stop_ids),
        pad_token_id=pad,
        repetition_penalty=1.0,
        use_cache=True,
        **(sampled if decoding.temperature else {"do_sample": False}),
    )
    new_ids: list[list[int]] = output[:, width:].tolist()
    return new_ids


def _batches_by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Yield batches of prompt indices, shortest prompts first: prompts of similar length need little padding."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
