"""Times private LoRA training against TRL, Opacus and the same loop without privacy, on the same rows.

    python -m benchmarks.dpsgd [--data PATH] [--rows 64] [--tokens-per-micro-batch 512] [--dtype float32]
                               [--part speed|overhead|bookkeeping|memory|precision]

A round is one pass over `--rows` texts. Sides, each with an adapter of rank 8 on all attention projections of the
packaged model and its own optimizer:

  private         one step of this project: sample, clipped sum, secure noise, Adam, checkpoint on disk, progress
  private_user    the same, with two rows a unit that are clipped together
  plain           the same micro-batches and passes with ordinary gradients: no clip, no noise, no checkpoint
  plain_peft      the same, with PEFT's own LoRA layers in place of this project's
  trl             one epoch of TRL's SFTTrainer at its defaults, but for gradient checkpointing, which is off
  trl_autocast    in bfloat16 only: TRL's default, a float32 base under autocast
  opacus          in float32 only: Opacus with hooks, its Poisson loader and memory manager, batches of 8

Speeds are real tokens a second: padding does not count. Peak memory is that of a fresh process with one side in it.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn.utils.rnn import pad_sequence

from benchmarks.harness import (
    interleave,
    interleave_pieces,
    options,
    peak_memory,
    python,
    ratio,
    store,
    summaries,
    texts,
)
from dp_assets.dpsgd import clipping, training
from dp_assets.dpsgd.checkpoints import Checkpoints
from dp_assets.dpsgd.clipping import (
    Clipping,
    ClippingEvidence,
    GradientEngine,
    Gradients,
    adapter_parameters,
    clipped_sum,
    micro_batches,
)
from dp_assets.dpsgd.lora_gradients import low_rank_layers, tapped
from dp_assets.dpsgd.monitor import RunMonitor
from dp_assets.dpsgd.packing import IGNORED, TokenRow, attending_within_rows
from dp_assets.dpsgd.private_rows import UnitRows
from dp_assets.dpsgd.sensitivity_probe import ProbeResult, probe_sensitivity
from dp_assets.generation.adapters import new_adapter_model
from dp_assets.generation.prompts import encode_instruction, generator_prompt_ids
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.privacy.sampling_and_noise import GaussianNoise, PoissonSampler
from dp_assets.progress import progress
from resources.models.loaders import LanguageModel

RANK, ALPHA = 8, 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
LEARNING_RATE = 1e-3
MAX_TOKENS = 64
PHYSICAL_BATCH = 8  # TRL's default, and what Opacus holds in memory at once
L2_CLIP_NORM = 0.5
NOISE_MULTIPLIER = 0.5
PRIVATE = ("private", "private_user", "plain", "plain_peft")
OTHERS = {"float32": ("trl", "opacus"), "bfloat16": ("trl", "trl_autocast")}

Side = Callable[[], object]
Pieces = Callable[[], Iterator[object]]


def load(given: argparse.Namespace, *, dtype: str) -> tuple[Any, Any]:
    """A model with an adapter and modules of its own, and its tokenizer.

    Frozen weights are the same tensors for all sides: copies that lie elsewhere in memory differ in speed by 2 %.
    """
    base, tokenizer = _base(given.model, given.device, dtype, given.models)
    own = copy.deepcopy(base, {id(weight): weight for weight in base.parameters()})
    return new_adapter_model(own, rank=RANK, alpha=ALPHA, target_modules=TARGETS, layers=None, seed=0), tokenizer


@cache
def _base(model: str, device: str, dtype: str, models: Path) -> tuple[Any, Any]:
    return LanguageModel(model=model, device=device, dtype=dtype, cache_root=str(models)).load()


def token_rows(given: argparse.Namespace, tokenizer: Any) -> list[TokenRow]:
    prompt_ids = tuple(generator_prompt_ids(tokenizer, prompt="user_turn"))
    chosen = texts(given.data, limit=given.rows)
    return [TokenRow(prompt_ids, tuple(encode_instruction(tokenizer, text, max_tokens=MAX_TOKENS))) for text in chosen]


# This project


class PublicRows:
    """Rows that stand for private ones, of which none is compared with a table."""

    def open(self) -> UnitRows:
        return {}

    def match_stored_rows(self, *_: object) -> bool:
        return True

    def note_continued(self, checkpoint: str) -> None:
        """Nothing is recorded."""


class Private:
    """One step of `train_privately` with every unit in the sample, put together from the parts of its loop."""

    def __init__(self, given: argparse.Namespace, folder: Path, *, rows_a_unit: int = 1) -> None:
        self.model, tokenizer = load(given, dtype=given.dtype)
        self.rows = token_rows(given, tokenizer)
        self.unit_ids = [str(index // rows_a_unit) for index in range(len(self.rows))]
        self.token_budget = given.tokens_per_micro_batch
        source = SystemRandomness()
        self.sampler = PoissonSampler(sampling_probability=1.0, source=source)
        self.noise = GaussianNoise(noise_stddev=NOISE_MULTIPLIER * L2_CLIP_NORM, source=source)
        new_optimizer = partial(torch.optim.Adam, lr=LEARNING_RATE)
        self.adapter = training._TrainedAdapter(self.model, new_optimizer)
        self.monitor = RunMonitor(
            self.model,
            self.adapter.optimizer,
            new_optimizer=new_optimizer,
            sampler=self.sampler,
            noise=self.noise,
            normalizer=len(self.rows),
            probed=ProbeResult(largest_share=0.0, rounding_slack=0.0),
        )
        self.checkpoints = Checkpoints(folder / f"private-{rows_a_unit}")
        self.seconds_of_bookkeeping: list[float] = []

    def step(self) -> None:
        self._take(_clip(self.model, self.token_budget)(self.rows, self.unit_ids))

    def step_in_pieces(self) -> Iterator[object]:
        """The same, with a pause after each micro-batch."""
        sums = _clip(self.model, self.token_budget, by=clipping._running_sums)(self.rows, self.unit_ids)
        next(sums)  # of no units yet
        for so_far in sums:
            yield so_far
        total, norms = so_far
        self._take((total, clipping._evidence(tuple(total), norms, _clipping(self.token_budget))))

    def _take(self, found: tuple[Gradients, ClippingEvidence]) -> None:
        """All of a step but its clipped sum."""
        started = time.perf_counter()
        with progress("a step", 1, "steps") as advance:
            units = dict.fromkeys(self.unit_ids)
            self.sampler.draw(tuple(units))
            exact_sum, clipped = found
            self.monitor.begin(PublicRows(), units.keys())
            self.monitor.observe_clipped_sum(self.rows, tuple(units), exact_sum, clipped)
            self.adapter.take_step(training._add_noise(exact_sum, self.noise), expected_batch_size=len(self.rows))
            self.checkpoints.save(self.adapter.state(self.monitor))
            advance(1)
        self.seconds_of_bookkeeping.append(time.perf_counter() - started)


def _clip(model: Any, token_budget: int, *, by: Callable[..., Any] = clipped_sum) -> Callable[..., Any]:
    return partial(by, model, clipping=_clipping(token_budget))


def _clipping(token_budget: int) -> Clipping:
    return Clipping(L2_CLIP_NORM, MAX_TOKENS, token_budget)


def plain(given: argparse.Namespace, *, peft_layers: bool = False) -> Pieces:
    """The same micro-batches through the same passes, but the gradients of all tokens are added up as usual.

    Pauses after each micro-batch.
    """
    model, tokenizer = load(given, dtype=given.dtype)
    rows = token_rows(given, tokenizer)
    parameters = adapter_parameters(model)
    optimizer = torch.optim.Adam(parameters.values(), lr=LEARNING_RATE)
    layers = [] if peft_layers else low_rank_layers(model)  # PyTorch's autograd runs whatever is not tapped

    def add(name: str, output_gradient: torch.Tensor, inputs: torch.Tensor) -> None:
        gradient = output_gradient[0].T @ inputs[0].float()
        before = parameters[name].grad
        parameters[name].grad = gradient if before is None else before.add_(gradient)

    def step() -> Iterator[None]:
        with attending_within_rows(model):
            for batch in micro_batches([[row] for row in rows], given.tokens_per_micro_batch):
                packed, _ = clipping.pack(batch, next(model.parameters()).device)
                with tapped(layers, add, num_tokens=packed.num_tokens):
                    clipping.backpropagate(model, packed, MAX_TOKENS * len(rows))
                yield
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def whole(pieces: Pieces) -> Side:
    """All pieces without a pause."""
    return lambda: list(pieces())


# The others


def trl(given: argparse.Namespace, folder: Path, *, autocast: bool = False) -> Side:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = load(given, dtype="float32" if autocast else given.dtype)
    rows = token_rows(given, tokenizer)
    data = Dataset.from_list(
        [
            {
                "input_ids": [*row.prompt_ids, *row.target_ids],
                "completion_mask": [0] * len(row.prompt_ids) + [1] * len(row.target_ids),
            }
            for row in rows
        ]
    )
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=data,
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            use_cpu=given.device == "cpu",
            bf16=autocast,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            gradient_checkpointing=False,
            completion_only_loss=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
    )
    train: Side = trainer.train
    return train


def opacus(given: argparse.Namespace) -> Side:
    from opacus import PrivacyEngine
    from opacus.utils.batch_memory_manager import BatchMemoryManager
    from torch.utils.data import DataLoader, Dataset

    model, tokenizer = load(given, dtype=given.dtype)
    rows = [example(row) for row in token_rows(given, tokenizer)]
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=LEARNING_RATE)
    wrapped, optimizer, loader = PrivacyEngine().make_private(
        module=model.train(),
        optimizer=optimizer,
        data_loader=DataLoader(cast("Dataset[Any]", rows), batch_size=len(rows), collate_fn=padded),
        noise_multiplier=NOISE_MULTIPLIER,
        max_grad_norm=L2_CLIP_NORM,
        loss_reduction="sum",
    )
    device = next(model.parameters()).device

    def step() -> None:
        with BatchMemoryManager(
            data_loader=loader, max_physical_batch_size=PHYSICAL_BATCH, optimizer=optimizer
        ) as batches:
            for batch in batches:
                tokens, attention, labels = (each.to(device) for each in batch)
                logits = wrapped(input_ids=tokens, attention_mask=attention, use_cache=False).logits
                loss = torch.nn.functional.cross_entropy(
                    logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
                )
                (loss / MAX_TOKENS).backward()
                optimizer.step()
                optimizer.zero_grad()

    return step


def example(row: TokenRow) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels of a row, each [tokens]."""
    labels = [IGNORED] * (len(row.prompt_ids) - 1) + [*row.target_ids, IGNORED]
    return torch.tensor(row.prompt_ids + row.target_ids), torch.tensor(labels)


def padded(examples: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, attention mask and labels of a batch, each [rows, width]."""
    tokens, labels = zip(*examples, strict=True)
    return (
        pad_sequence(list(tokens), batch_first=True),
        pad_sequence([torch.ones_like(each) for each in tokens], batch_first=True),
        pad_sequence(list(labels), batch_first=True, padding_value=IGNORED),
    )


# Measuring


def side(name: str, given: argparse.Namespace, folder: Path) -> Side:
    makers: Mapping[str, Callable[[], Side]] = {
        "private": lambda: Private(given, folder).step,
        "private_user": lambda: Private(given, folder, rows_a_unit=2).step,
        "plain": lambda: whole(plain(given)),
        "plain_peft": lambda: whole(plain(given, peft_layers=True)),
        "trl": partial(trl, given, folder),
        "trl_autocast": partial(trl, given, folder, autocast=True),
        "opacus": partial(opacus, given),
    }
    return makers[name]()


def memory(given: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Peak memory in bytes of one pass of each side, and of the private one with four times the rows."""
    chosen = {key: value for key, value in vars(given).items() if value is not None and key != "part"}
    shared = [f"--{key.replace('_', '-')}={value}" for key, value in chosen.items()]
    runs = {name: (name, given.rows) for name in (*PRIVATE, *OTHERS[given.dtype])}
    runs["private_four_times_the_rows"] = ("private", 4 * given.rows)
    return {
        run: peak_memory(python("-m", "benchmarks.dpsgd", *shared, f"--side={name}", f"--rows={rows}")).bytes
        for run, (name, rows) in runs.items()
    }


def speed(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    names = [*PRIVATE, *OTHERS[given.dtype]]
    sides = {name: side(name, given, folder) for name in names}
    seconds = interleave(sides, repeats=given.repeats, finish=_finish(given.device))
    tokens = _num_tokens(given)
    return {
        "real_tokens_a_round": tokens,
        "real_tokens_a_second": {name: tokens / found.median for name, found in summaries(seconds).items()},
        "seconds": summaries(seconds),
        "speed_against": {name: ratio(seconds[name], seconds["private"]) for name in OTHERS[given.dtype]},
    }


def overhead(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What privacy adds to a step, and a private step against one through the layers that PEFT gives.

    The plain side runs twice: what the two differ by is what the machine cannot tell apart.
    """
    sides = {
        "private": Private(given, folder).step_in_pieces,
        "plain": plain(given),
        "plain_again": plain(given),
        "plain_peft": plain(given, peft_layers=True),
    }
    seconds = interleave_pieces(sides, repeats=given.repeats, finish=_finish(given.device))
    return {
        "seconds": summaries(seconds),
        "time_against": {name: ratio(seconds["private"], seconds[name]) for name in ("plain", "plain_peft")},
        "plain_against_itself": ratio(seconds["plain_again"], seconds["plain"]),
    }


def bookkeeping(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What sample, noise, update, run monitor, checkpoint and progress together take of a private step."""
    private = Private(given, folder)
    seconds = interleave({"private": private.step}, repeats=given.repeats, finish=_finish(given.device))
    seconds["bookkeeping"] = private.seconds_of_bookkeeping[-given.repeats :]
    return {"seconds": summaries(seconds), "share_of_step": ratio(seconds["bookkeeping"], seconds["private"])}


def precision(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """How the clipped sum with a bfloat16 base differs from the float32 one, and by how much shares round in each."""
    sums, slacks = {}, {}
    for dtype in OTHERS:
        model, tokenizer = load(given, dtype=dtype)
        rows, clip = token_rows(given, tokenizer), _clip(model, given.tokens_per_micro_batch)
        found, _ = clip(rows, [str(index) for index in range(len(rows))])
        sums[dtype] = torch.cat([tensor.flatten().cpu() for tensor in found.values()])
        engine = GradientEngine(model, _clipping(given.tokens_per_micro_batch))
        probed = probe_sensitivity(engine, largest_batch=len(rows), longest_row=max(map(len, rows)))
        slacks[dtype] = probed.rounding_slack
    exact, coarse = sums["float32"], sums["bfloat16"]
    return {
        "cosine": float(torch.nn.functional.cosine_similarity(exact, coarse, dim=0)),
        "relative_difference": float((exact - coarse).norm() / exact.norm()),
        "rounding_slack": slacks,
    }


PARTS = {"speed": speed, "overhead": overhead, "bookkeeping": bookkeeping, "memory": memory, "precision": precision}


def _num_tokens(given: argparse.Namespace) -> int:
    _, tokenizer = _base(given.model, given.device, given.dtype, given.models)
    return sum(map(len, token_rows(given, tokenizer)))


def _finish(device: str) -> Callable[[], object]:
    return torch.cuda.synchronize if device.startswith("cuda") else bool


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens-per-micro-batch", type=int, default=512)
    parser.add_argument("--dtype", choices=tuple(OTHERS), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="packaged", help="packaged, a folder or a Hugging Face id")
    parser.add_argument(
        "--models",
        type=Path,
        default=Path(tempfile.gettempdir()) / "models",
        help="cache of the packaged model",
    )
    parser.add_argument("--part", choices=tuple(PARTS), action="append", help="all of them where none is named")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    chosen = given.side
    del given.side
    with tempfile.TemporaryDirectory() as folder:
        if chosen:
            side(chosen, given, Path(folder))()
        else:
            found = {name: PARTS[name](given, Path(folder)) for name in given.part or PARTS}
            store(f"dpsgd_{given.dtype}", found, given, in_parts=True)


if __name__ == "__main__":
    main()
