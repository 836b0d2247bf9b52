"""Sampling a pool: our continuous batching against that of transformers and `generate`, each at its best batch size.

    python -m benchmarks.sampling [--samples 256] [--top-p 0.95] [--dtype auto] [--models FOLDER] [--memory]

The generator is the packaged model with a LoRA adapter that was fitted to the texts for a few steps without privacy, so
that its samples end where such texts end; it is kept in the folder of `--models`. All sides get the same plain model
with the adapter folded in, the same prompt and the same sampling settings, and draw the same number of samples. What is
compared is finished samples a second: those that ended by themselves and were not cut.

    slots        `generation/decoding.py`
    continuous   `generate_batch` of transformers: paged attention, at most as many texts at once as the batch size
    generate     whole batches; the prompt of 3 tokens is computed once a batch
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from peft import PeftModel
from transformers import ContinuousBatchingConfig, GenerationConfig

from benchmarks.harness import interleave, options, peak_memory, python, ratio, store, summaries, texts
from dp_assets.generation.adapters import new_adapter_model
from dp_assets.generation.decoding import Decoding
from dp_assets.generation.prompts import encode_instruction, generator_prompt_ids
from dp_assets.generation.sampling import _decoded_samples, _generate, _stop_ids, sample_instructions
from dp_assets.generation.settings import SamplingParameters
from dp_assets.progress import silent
from resources.models.loaders import LanguageModel

ROWS_A_STEP, MAX_TOKENS, LEARNING_RATE = 16, 40, 2e-3
TEMPERATURE = 1.0
PAGE_SIZE = 64  # tokens; a text takes one page or few
PASSED_ON = ("fit_steps", "max_new_tokens", "top_p")

Side = Callable[..., pl.DataFrame]


def fitted_generator(given: argparse.Namespace) -> tuple[Any, Any]:
    """The model with its adapter folded in, and its tokenizer; the adapter is fitted at the first call."""
    language_model = LanguageModel(dtype=given.dtype, cache_root=str(given.models))
    folder = given.models / f"sampling-generator-{given.data.stem if given.data else 'chitchat'}-{given.fit_steps}"
    if not folder.exists():
        fit(language_model, texts(given.data, limit=ROWS_A_STEP * given.fit_steps)).save_pretrained(folder)
    model, tokenizer = language_model.load()
    return PeftModel.from_pretrained(model, folder).merge_and_unload(), tokenizer


def fit(language_model: LanguageModel, rows: list[str]) -> Any:
    base, tokenizer = language_model.load(dtype="float32")
    targets = ["q_proj", "v_proj"]
    model = new_adapter_model(base, rank=8, alpha=16, target_modules=targets, layers=None, seed=0)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], LEARNING_RATE)
    prompt = generator_prompt_ids(tokenizer, prompt="user_turn")
    for start in range(0, len(rows), ROWS_A_STEP):
        batch = [encode_instruction(tokenizer, row, max_tokens=MAX_TOKENS) for row in rows[start : start + ROWS_A_STEP]]
        width = max(map(len, batch))
        ids = torch.tensor([[*prompt, *row, *[0] * (width - len(row))] for row in batch]).to(base.device)
        labels = torch.tensor([[-100] * len(prompt) + row + [-100] * (width - len(row)) for row in batch])
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels.to(base.device)).loss.backward()
        optimizer.step()
    return model


def sides(model: Any, tokenizer: Any, given: argparse.Namespace) -> dict[str, Side]:
    """Functions of a batch size, a number of samples and a seed."""
    prompt_ids = generator_prompt_ids(tokenizer, prompt="user_turn")

    def slots(batch_size: int, number: int, seed: int) -> pl.DataFrame:
        return sample_instructions(
            model,
            tokenizer,
            prompt_ids=prompt_ids,
            num_samples=number,
            sampling=SamplingParameters(given.max_new_tokens, TEMPERATURE, given.top_p, seed),
            batch_size=batch_size,
            advance=silent,
        )

    def generate(batch_size: int, number: int, seed: int) -> pl.DataFrame:
        stop_ids = frozenset(_stop_ids(tokenizer))
        decoding = Decoding(given.max_new_tokens, TEMPERATURE, given.top_p, stop_ids=stop_ids, seed=seed)
        prompts = [prompt_ids] * number
        drawn = _generate(model, prompts, decoding, batch_size=batch_size, first_number=0, advance=silent)
        return _decoded_samples(tokenizer, drawn)

    def continuous(batch_size: int, number: int, seed: int) -> pl.DataFrame:
        stop_ids = _stop_ids(tokenizer)
        config = GenerationConfig(
            max_new_tokens=given.max_new_tokens,
            do_sample=True,
            temperature=TEMPERATURE,
            top_p=given.top_p,
            top_k=0,
            repetition_penalty=1.0,
            eos_token_id=stop_ids,
            pad_token_id=stop_ids[0],
        )
        pages = math.ceil((len(prompt_ids) + given.max_new_tokens) / PAGE_SIZE)
        batching = ContinuousBatchingConfig(
            page_size=PAGE_SIZE,
            num_blocks=batch_size * pages,
            max_requests_per_batch=batch_size,
            max_batch_tokens=batch_size * (1 + len(prompt_ids)),
            seed=seed,
        )
        drawn = model.generate_batch([prompt_ids] * number, config, batching)
        assert len(drawn) == number
        return _decoded_samples(tokenizer, [each.generated_tokens for each in drawn.values()])

    return {"slots": slots, "continuous": continuous, "generate": generate}


def best_batch_size(side: Side, given: argparse.Namespace) -> tuple[int, dict[int, float]]:
    """The batch size of most samples a second, and the speeds of all that are tried."""
    samples, speeds = given.sweep_samples, dict[int, float]()
    for batch_size in given.batch_sizes:
        started = time.perf_counter()
        side(batch_size, max(samples, batch_size), 0)
        speeds[batch_size] = max(samples, batch_size) / (time.perf_counter() - started)
    return max(speeds, key=lambda size: speeds[size]), speeds


def compare(given: argparse.Namespace) -> dict[str, Any]:
    model, tokenizer = fitted_generator(given)
    compared = sides(model, tokenizer, given)
    drawn: dict[str, list[pl.DataFrame]] = {name: [] for name in compared}
    best = {name: best_batch_size(side, given) for name, side in compared.items()}

    def draw(name: str) -> None:
        drawn[name].append(compared[name](best[name][0], given.samples, len(drawn[name])))

    seconds = interleave({name: partial(draw, name) for name in compared}, repeats=given.repeats, warmups=0)
    finished = {name: [int(frame["finished"].sum()) for frame in frames] for name, frames in drawn.items()}
    seconds_each = {
        name: [spent / number for spent, number in zip(seconds[name], finished[name], strict=True)] for name in compared
    }
    tokens = {name: pl.concat(frames)["num_tokens"] for name, frames in drawn.items()}
    return {
        "dtype": str(model.dtype),
        "best_batch_size": {name: size for name, (size, _) in best.items()},
        "samples_per_second_by_batch_size": {name: speeds for name, (_, speeds) in best.items()},
        "seconds": summaries(seconds),
        "finished_share": {name: sum(finished[name]) / (given.samples * given.repeats) for name in compared},
        "tokens_a_sample": {name: {"mean": each.mean(), "median": each.median()} for name, each in tokens.items()},
        "finished_samples_per_second": {name: 1 / summaries(seconds_each)[name].median for name in compared},
        "slots_over_generate": ratio(seconds_each["generate"], seconds_each["slots"]),
        "slots_over_continuous": ratio(seconds_each["continuous"], seconds_each["slots"]),
    }


def peaks(given: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a fresh process for each side, and for slots with four times as many samples."""
    found = {}
    for side, factor in (("generate", 1), ("continuous", 1), ("slots", 1), ("slots", 4)):
        number = given.samples * factor
        arguments = [f"--side={side}", f"--samples={number}", f"--models={given.models}", f"--dtype={given.dtype}"]
        arguments += [f"--{name.replace('_', '-')}={getattr(given, name)}" for name in PASSED_ON]
        arguments += [f"--data={given.data}"] if given.data else []
        found[f"{side} {number}"] = peak_memory(python("-m", "benchmarks.sampling", *arguments)).bytes
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--samples", type=int, default=256, help="samples of each side in each round")
    parser.add_argument("--sweep-samples", type=int, default=128, help="samples for each batch size that is tried")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 128, 256], help="that are tried")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument(
        "--top-p", type=float, default=0.95, help="1 draws from the whole vocabulary, without a nucleus"
    )
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--fit-steps", type=int, default=20, help="steps of fitting the generator to the texts")
    parser.add_argument("--models", type=Path, default=Path("data/models"), help="where converted models are kept")
    parser.add_argument(
        "--side", choices=["slots", "continuous", "generate"], help="draw with this side only and store nothing"
    )
    parser.add_argument("--memory", action="store_true", help="measure the peak memory of fresh processes too")
    given = parser.parse_args()
    if given.side:
        sides(*fitted_generator(given), given)[given.side](128, given.samples, 0)
        return
    results = compare(given)
    store("sampling", results | ({"peak_bytes": peaks(given)} if given.memory else {}), given)


if __name__ == "__main__":
    main()
