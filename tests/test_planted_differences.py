"""Each difference between plan and run, planted in the code that runs, is caught by a named check on the real path.

Every test runs `obtain` with the real ledger, store and mechanism, in which one function or part was exchanged. It must
fail the asset without a retry, book a supplementary charge, close the cohort and store nothing, and exactly the checks
that are named must tell. The same runs without the exchange settle, with no check that tells.
"""

import copy
import hashlib
import inspect
import random
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from dp_assets.artifacts import Adapter, PrivateTable
from dp_assets.corpus.stability import probe_rows, verdict_on_preparation
from dp_assets.dpsgd import clipping, training
from dp_assets.dpsgd.checkpoints import Checkpoints, TrainingState
from dp_assets.dpsgd.clipping import Clipping, Gradients
from dp_assets.dpsgd.packing import ROWS_APART, TokenRow, attending_within_rows
from dp_assets.generation import generator, token_rows
from dp_assets.generation.token_rows import RowEncoder
from dp_assets.pipeline import release_protocol
from dp_assets.privacy import randomness, sampling_and_noise
from dp_assets.privacy.claim import STEP_COUNTS
from dp_assets.privacy.metadata import SIGNAL_TO_NOISE
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.privacy.sampling_and_noise import DiscreteGaussianNoise, GaussianNoise, PoissonSampler
from dp_assets.selection import bins, noisy_votes, votes
from dp_assets.selection.noisy_votes import NoisyVotes
from resources.ledger.ledger_resource import ChargeRefused
from resources.storage import stores
from tests.boundary import LEVEL, REAL_ROWS, Boundary
from tests.cli_pipeline import interrupt_in_step
from tests.corpus.test_stability import prepare_rows, without_duplicates
from tests.privacy.replay import ReplayableSource

UNBOUNDED = {"type": "non_private"}
REAL_TIME = datetime(2026, 11, 1, tzinfo=UTC)
TWO_ROWS_EACH = pl.concat([REAL_ROWS, REAL_ROWS.with_columns(instruction_id=pl.col("instruction_id") + "-second")])
TWO_TEXTS_EACH = pl.concat([REAL_ROWS, TWO_ROWS_EACH[20:].with_columns(text="and " + pl.col("text"))])
SHARED_TEXTS = pl.concat([TWO_TEXTS_EACH, TWO_TEXTS_EACH.with_columns(text=pl.lit("who said this?"))])
OTHER_PLACES = pl.concat(
    [
        TWO_TEXTS_EACH,
        TWO_TEXTS_EACH.with_columns(unit_id="other-" + pl.col("unit_id"), cohort=pl.lit("another")),
        TWO_TEXTS_EACH.with_columns(unit_id="held-" + pl.col("unit_id"), split=pl.lit("heldout")),
    ]
)
TWO_BINS_EMPTY = TWO_ROWS_EACH.filter(pl.col("vector").arr.get(0) + pl.col("vector").arr.get(1) > 0)
NOBODY = REAL_ROWS.clear()
Plant = Callable[[pytest.MonkeyPatch], None]


def assert_refused(boundary: Boundary, name: str, *checks: str, ran: dict[str, Any] = UNBOUNDED) -> None:
    run = {GENERATOR: boundary.generator, HISTOGRAM: boundary.histogram}[name]
    with pytest.raises(dg.Failure, match="differs from its plan") as failure:
        run()
    named = {reason.split(": ")[0] for reason in str(failure.value.description).partition("closed: ")[2].split("; ")}
    # Noise that is missing or repeated in part of a step may have about the right size, and long shares may cancel.
    by_chance = {"noised_tensors": "noise_size", "largest_share": "sums"}
    uncertain = {by_chance[check] for check in by_chance.keys() & set(checks)} - set(checks)
    assert named - uncertain == set(checks)
    assert failure.value.allow_retries is False
    *_, planned, supplement = boundary.charges
    assert (planned.settled, supplement.supplement_of, supplement.event) == (False, planned.charge_id, ran)
    assert (boundary.registration.corpus_id, "all") in boundary.ledger.state().closed
    assert not boundary.releases.has(name, LEVEL, "key")
    with pytest.raises(ChargeRefused, match="closed"):
        boundary.histogram(key="later")


# Sampling


class FixedSize(PoissonSampler):
    """Six units, whoever they are."""

    def draw(self, unit_ids: Any) -> tuple[str, ...]:
        super().draw(unit_ids)
        self.last_sample = tuple(random.sample(list(unit_ids), 6))
        return self.last_sample


class Shuffled(PoissonSampler):
    """Each unit once an epoch, in batches of five."""

    def draw(self, unit_ids: Any) -> tuple[str, ...]:
        order = sorted(unit_ids, key=hash)
        super().draw(unit_ids)
        self.last_sample = tuple(order[(self.samples_drawn * 5) % 20 :][:5])
        return self.last_sample


def exchange_sampler(sampler: Callable[..., PoissonSampler]) -> Plant:
    return lambda patch: patch.setattr(training, "PoissonSampler", sampler)


def publicly_seeded(*, sampling_probability: float, source: Any) -> PoissonSampler:
    return PoissonSampler(sampling_probability=sampling_probability, source=ReplayableSource(0))


def sample_instructions(patch: pytest.MonkeyPatch) -> None:
    """Every row of a user is drawn by itself."""
    by_unit = token_rows.unit_rows

    def by_instruction(*args: Any, **kwargs: Any) -> dict[str, list[TokenRow]]:
        units = by_unit(*args, **kwargs)
        return {f"{unit}/{number}": [row] for unit, rows in units.items() for number, row in enumerate(rows)}

    patch.setattr(token_rows, "unit_rows", by_instruction)


def exchange_batch(change: Callable[[list[TokenRow], tuple[str, ...]], Any]) -> Plant:
    """Clip another batch than the one that was drawn."""
    sample = training._sample
    return lambda patch: patch.setattr(training, "_sample", lambda *args, **kwargs: change(*sample(*args, **kwargs)))


def watch_batch_sizes(patch: pytest.MonkeyPatch) -> list[int]:
    """The number of units in each batch, filled as they are drawn."""
    sample, drawn = training._sample, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        rows, unit_ids = sample(*args, **kwargs)
        drawn.append(len(unit_ids))
        return rows, unit_ids

    patch.setattr(training, "_sample", counted)
    return drawn


def sample_twice(patch: pytest.MonkeyPatch) -> None:
    """As a loop does that draws again when the first sample is empty."""
    sample = training._sample
    patch.setattr(training, "_sample", lambda *args, **kwargs: (sample(*args, **kwargs), sample(*args, **kwargs))[1])


# Clipping


def is_of_real_rows(rows: Any, unit_ids: Any) -> bool:
    """Whether the clip is not that of the probe, which comes before any private row is read."""
    return all(unit_id.startswith("unit-") for unit_id in unit_ids)


def clip_with(change: Callable[[int], dict[str, float]]) -> Plant:
    """Constants of the clip follow from the number of units in the batch."""
    clipped_sum = clipping.clipped_sum

    def adapted(model: nn.Module, rows: Any, unit_ids: Any, terms: Clipping) -> Any:
        changed: Any = change(len(unit_ids)) if is_of_real_rows(rows, unit_ids) else {}
        return clipped_sum(model, rows, unit_ids, replace(terms, **changed))

    return lambda patch: patch.setattr(clipping, "clipped_sum", adapted)


def lengthen_real_sums(patch: pytest.MonkeyPatch) -> None:
    """The clip of real rows says one norm and uses another."""
    clipped_sum = clipping.clipped_sum

    def longer(model: nn.Module, rows: Any, unit_ids: Any, terms: Clipping) -> Any:
        sums, evidence = clipped_sum(model, rows, unit_ids, terms)
        factor = 1e6 if is_of_real_rows(rows, unit_ids) else 1
        return {name: factor * tensor for name, tensor in sums.items()}, evidence

    patch.setattr(clipping, "clipped_sum", longer)


def count_in_a_buffer(patch: pytest.MonkeyPatch) -> None:
    """As a layer does that keeps a running mean."""
    clipped_sum = clipping.clipped_sum

    def counted(model: nn.Module, rows: Any, unit_ids: Any, terms: Clipping) -> Any:
        clipped = clipped_sum(model, rows, unit_ids, terms)
        if is_of_real_rows(rows, unit_ids):
            next(model.buffers()).view(-1)[0] += 1e-6 * (1 + len(rows))
        return clipped

    patch.setattr(clipping, "clipped_sum", counted)


def average_the_loss(patch: pytest.MonkeyPatch) -> None:
    backpropagate = clipping.backpropagate
    patch.setattr(
        clipping,
        "backpropagate",
        lambda model, packed, normalizer: backpropagate(
            model, packed, normalizer * sum(len(row.target_ids) for row in packed.rows)
        ),
    )


def average_over_micro_batches(patch: pytest.MonkeyPatch) -> None:
    running_sums = clipping._running_sums

    def averaged(*args: Any) -> Iterator[Any]:
        *before, (total, norms) = running_sums(*args)
        yield {name: tensor / max(1, len(before)) for name, tensor in total.items()}, norms

    patch.setattr(clipping, "_running_sums", averaged)


def carry_a_unit_into_the_next_micro_batch(patch: pytest.MonkeyPatch) -> None:
    micro_batches = clipping.micro_batches

    def carrying(units: Any, token_budget: int) -> list[clipping.MicroBatch]:
        packed = micro_batches(units, token_budget)
        for before, batch in pairwise(packed):
            if batch.num_free >= sum(map(len, before.units[-1])):
                batch.add(before.units[-1])
        return packed

    patch.setattr(clipping, "micro_batches", carrying)


def attend_across_rows(patch: pytest.MonkeyPatch) -> None:
    """In the clipped sum, attention looks along the whole line, whatever row a token belongs to."""

    def across(module: nn.Module, *states: Any, scaling: float, **_: Any) -> Any:
        return sdpa_attention_forward(module, *states, scaling=scaling, is_causal=True)

    @contextmanager
    def attending_across_rows(model: nn.Module) -> Iterator[None]:
        with attending_within_rows(model):
            AttentionInterface.register(ROWS_APART, across)
            yield

    patch.setattr(clipping, "attending_within_rows", attending_across_rows)


def clip_each_tensor(patch: pytest.MonkeyPatch) -> None:
    clip = clipping._clip

    def each(gradients: Gradients, l2_clip_norm: float) -> tuple[Gradients, Tensor]:
        clipped = {name: clip({name: tensor}, l2_clip_norm) for name, tensor in gradients.items()}
        return {name: one[0][name] for name, one in clipped.items()}, next(iter(clipped.values()))[1]

    patch.setattr(clipping, "_clip", each)


def train_besides(choose: Callable[[nn.Module], nn.Parameter]) -> Plant:
    """A second optimizer, whose gradient is neither clipped nor noised, takes a step with each clipped sum."""
    clipped_sum = clipping.clipped_sum

    def trained_besides(model: nn.Module, rows: Any, unit_ids: Any, terms: Clipping) -> Any:
        clipped = clipped_sum(model, rows, unit_ids, terms)
        if is_of_real_rows(rows, unit_ids):
            parameter = choose(model)
            parameter.grad = torch.zeros_like(parameter)
            parameter.grad.view(-1)[0] = 1
            torch.optim.SGD([parameter], lr=1e-7).step()
            parameter.grad = None
        return clipped

    return lambda patch: patch.setattr(clipping, "clipped_sum", trained_besides)


def an_embedding(model: nn.Module) -> nn.Parameter:
    weight: nn.Parameter = model.get_input_embeddings().weight
    return weight


def an_adapter_matrix(model: nn.Module) -> nn.Parameter:
    return next(parameter for parameter in model.parameters() if parameter.requires_grad)


# Noise


def exchange_noise(add_noise: Callable[[Gradients, GaussianNoise], Gradients]) -> Plant:
    return lambda patch: patch.setattr(training, "_add_noise", add_noise)


def noise_for_each_of_two_micro_batches(exact_sum: Gradients, noise: GaussianNoise) -> Gradients:
    return ADD_NOISE(ADD_NOISE(exact_sum, noise), noise)


def no_noise(exact_sum: Gradients, noise: GaussianNoise) -> Gradients:
    return exact_sum


def noise_drawn_and_forgotten(exact_sum: Gradients, noise: GaussianNoise) -> Gradients:
    ADD_NOISE(exact_sum, noise)
    return exact_sum


def noise_forgotten_on_one_tensor(exact_sum: Gradients, noise: GaussianNoise) -> Gradients:
    first = next(iter(exact_sum))
    return ADD_NOISE(exact_sum, noise) | {first: exact_sum[first]}


def one_noise_for_all_tensors(exact_sum: Gradients, noise: GaussianNoise) -> Gradients:
    """Drawn for the largest tensor, and cut for the others."""
    drawn = torch.from_numpy(noise.draw(max(tensor.numel() for tensor in exact_sum.values())))
    return {name: tensor + drawn[: tensor.numel()].view(tensor.shape) for name, tensor in exact_sum.items()}


def equal_noise_on_tensors_of_a_shape(exact_sum: Gradients, noise: GaussianNoise) -> Gradients:
    """All of it is drawn, but tensors of one shape get the same piece."""
    noisy = ADD_NOISE(exact_sum, noise)
    first = {tensor.shape: name for name, tensor in reversed(exact_sum.items())}
    return {
        name: tensor.double() + (noisy[first[tensor.shape]] - exact_sum[first[tensor.shape]])
        for name, tensor in exact_sum.items()
    }


ADD_NOISE = training._add_noise


def shrink_normals(patch: pytest.MonkeyPatch) -> None:
    normals = randomness.normals
    patch.setattr(randomness, "normals", lambda source, n: 0.5 * normals(source, n))


def publicly_seeded_noise(patch: pytest.MonkeyPatch) -> None:
    seeded = lambda noise_stddev, source: GaussianNoise(noise_stddev=noise_stddev, source=Seeded())  # noqa: E731
    patch.setattr(training, "GaussianNoise", seeded)


class Seeded(SystemRandomness):
    """A subclass of the secure source is not the secure source."""


# Constants


def train_with(**changes: Any) -> Plant:
    """Other settings than the plan's reach the training loop."""
    train = training.train_privately

    def otherwise(model: nn.Module, rows: Any, plan: Any, settings: Any, **kwargs: Any) -> Any:
        return train(model, rows, *changed(plan, settings, changes), **kwargs)

    return lambda patch: patch.setattr(generator, "train_privately", otherwise)


def changed(plan: Any, settings: Any, changes: dict[str, Any]) -> tuple[Any, Any]:
    """Plan and settings in which these values are others."""
    of_plan = {name: changes[name] for name in vars(plan.dpsgd).keys() & changes}
    of_settings = {name: changes[name] for name in vars(settings).keys() & changes}
    assert {**of_plan, **of_settings} == changes
    return replace(plan, dpsgd=replace(plan.dpsgd, **of_plan)), replace(settings, **of_settings)


def train_with_counts_of_the_data(name: str, count: Callable[[int], int]) -> Plant:
    """A setting is taken from the number of units."""
    train = training.train_privately

    def counting(model: nn.Module, rows: Any, plan: Any, settings: Any, **kwargs: Any) -> Any:
        units = REAL_ROWS["unit_id"].n_unique()
        return train(model, rows, *changed(plan, settings, {name: count(units)}), **kwargs)

    return lambda patch: patch.setattr(generator, "train_privately", counting)


def divide_by_the_batch(patch: pytest.MonkeyPatch) -> None:
    """The loop divides the noisy sum by the number of units in it."""
    descend, drawn = training._TrainedAdapter.take_step, watch_batch_sizes(patch)
    patch.setattr(
        training._TrainedAdapter,
        "take_step",
        lambda self, noisy, *, expected_batch_size: descend(self, noisy, expected_batch_size=100 + drawn[-1]),
    )


# Rows


def give_rows_of_the_next_unit(patch: pytest.MonkeyPatch) -> None:
    by_unit = token_rows.unit_rows

    def rotated(*args: Any, **kwargs: Any) -> dict[str, Any]:
        units = by_unit(*args, **kwargs)
        rows = list(units.values())
        return dict(zip(units, [*rows[1:], *rows[:1]], strict=True))

    patch.setattr(token_rows, "unit_rows", rotated)


def cut_to_the_shortest(rows: list[TokenRow], unit_ids: tuple[str, ...]) -> Any:
    """Rows of a batch are cut to the length of the shortest one, less one token."""
    length = min((len(row.target_ids) for row in rows), default=2) - 1
    return [TokenRow(row.prompt_ids, row.target_ids[:length]) for row in rows], unit_ids


def choose_beside_the_batch(patch: pytest.MonkeyPatch) -> None:
    """Of its two rows a unit gives the longer one in a small batch, and the shorter one in a large batch."""

    def chosen(unit_rows: Any, sampler: PoissonSampler) -> Any:
        _, unit_ids = SAMPLE(unit_rows, sampler)
        order = max if len(unit_ids) < 6 else min
        return [order(unit_rows[unit_id], key=len) for unit_id in unit_ids], unit_ids

    patch.setattr(training, "_sample", chosen)


def count_rows_beside_the_batch(patch: pytest.MonkeyPatch) -> None:
    """Units give one of as many rows as that unit has which has fewest."""

    def chosen(unit_rows: Any, sampler: PoissonSampler) -> Any:
        least = [next(iter(rows)) for rows in unit_rows.values()]
        return SAMPLE({unit_id: [row] for unit_id, row in zip(unit_rows, least, strict=True)}, sampler)

    patch.setattr(training, "_sample", chosen)


SAMPLE = training._sample


def give_each_text_once(patch: pytest.MonkeyPatch) -> None:
    """A text that several units wrote is left to one of them."""
    by_unit = token_rows.unit_rows
    patch.setattr(
        token_rows, "unit_rows", lambda rows, encoder: by_unit(rows.unique("text", maintain_order=True), encoder)
    )


def cut_to_the_median(patch: pytest.MonkeyPatch) -> None:
    """Every text is cut to the median length of all of them, once those are known."""
    encode, by_unit, lengths = RowEncoder.encode, token_rows.unit_rows, list[int]()

    def cutting(self: RowEncoder, text: str) -> TokenRow:
        row = encode(self, text)
        return replace(row, target_ids=row.target_ids[: lengths[0] if lengths else None])

    def measured(rows: pl.LazyFrame, encoder: Any) -> Any:
        units = by_unit(rows, encoder)
        lengths.append(int(np.median([len(row.target_ids) for unit in units.values() for row in unit])) - 1)
        return units

    patch.setattr(token_rows, "PUBLIC_TEXT", "Why?")  # shorter than the rows, as any is where rows may be long
    patch.setattr(RowEncoder, "encode", cutting)
    patch.setattr(token_rows, "unit_rows", measured)


def learn_a_vocabulary(patch: pytest.MonkeyPatch) -> None:
    """A token is replaced by its place among all that were met so far."""
    encode, met = RowEncoder.encode, dict[int, int]()

    def learned(self: RowEncoder, text: str) -> TokenRow:
        row = encode(self, text)
        places = tuple(met.setdefault(token, len(met)) for token in sorted(row.target_ids, reverse=bool(met)))
        met.pop(row.target_ids[0])
        return TokenRow(row.prompt_ids, places)

    patch.setattr(RowEncoder, "encode", learned)


# Updates


def exact_gradients_in_the_moments(patch: pytest.MonkeyPatch) -> None:
    add_noise, descend, exact = training._add_noise, training._TrainedAdapter.take_step, dict[str, Tensor]()

    def noticed(exact_sum: Gradients, noise: GaussianNoise) -> Gradients:
        exact.update(exact_sum)
        return add_noise(exact_sum, noise)

    def with_momentum(self: training._TrainedAdapter, noisy_sum: Gradients, *, expected_batch_size: float) -> None:
        descend(self, noisy_sum, expected_batch_size=expected_batch_size)
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter]["exp_avg"] += (1e-3 + exact[name]).to(parameter)

    patch.setattr(training, "_add_noise", noticed)
    patch.setattr(training._TrainedAdapter, "take_step", with_momentum)


def learning_rate_of_the_batch(patch: pytest.MonkeyPatch) -> None:
    descend, drawn = training._TrainedAdapter.take_step, watch_batch_sizes(patch)

    def scaled(self: training._TrainedAdapter, noisy_sum: Gradients, *, expected_batch_size: float) -> None:
        self.optimizer.param_groups[0]["lr"] = 1e-3 * (1 + drawn[-1])
        descend(self, noisy_sum, expected_batch_size=expected_batch_size)

    patch.setattr(training._TrainedAdapter, "take_step", scaled)


def decay_right_before_the_step(patch: pytest.MonkeyPatch) -> None:
    """A hook that comes after the run monitor's changes what the optimizer was handed."""
    add_monitor = training.RunMonitor

    def monitor(model: nn.Module, optimizer: torch.optim.Optimizer, **kwargs: Any) -> Any:
        made = add_monitor(model, optimizer, **kwargs)

        def decay(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.grad += 1e-3

        optimizer.register_step_pre_hook(decay)
        return made

    patch.setattr(training, "RunMonitor", monitor)


# Before and beside the run


def knowing_the_rows(change: Callable[[nn.Module], None]) -> Plant:
    """The rows are opened before training starts, and the model is made to fit them."""
    train = training.train_privately

    def trained(model: nn.Module, rows: Any, *args: Any, **kwargs: Any) -> Any:
        opened = already_open(rows)
        change(model)
        return train(model, opened, *args, **kwargs)

    return lambda patch: patch.setattr(generator, "train_privately", trained)


def already_open(rows: Any) -> Any:
    """The same rows, which are opened now and never again."""
    units = rows.open()
    rows.open = lambda: units
    return rows


def swap_tokens(model: nn.Module) -> None:
    """Two rows of the embedding change places, so that its numbers add up to the same."""
    weight = an_embedding(model)
    with torch.no_grad():
        weight[[5, 6]] = weight[[6, 5]]


def with_each_clip(change: Callable[[nn.Module], None]) -> Plant:
    """Something is done to the model with each clipped sum of real rows."""
    clipped_sum = clipping.clipped_sum

    def changed(model: nn.Module, rows: Any, unit_ids: Any, terms: Clipping) -> Any:
        if is_of_real_rows(rows, unit_ids):
            change(model)
        return clipped_sum(model, rows, unit_ids, terms)

    return lambda patch: patch.setattr(clipping, "clipped_sum", changed)


def change_an_embedding(model: nn.Module) -> None:
    with torch.no_grad():
        an_embedding(model).view(-1)[0] += 1


def keep_the_better_of_two_runs(patch: pytest.MonkeyPatch) -> None:
    """The run is made twice on rows that were opened once; which is better, the rows tell."""
    train = training.train_privately

    def twice(model: nn.Module, rows: Any, *args: Any, **kwargs: Any) -> Any:
        opened, before = already_open(rows), copy.deepcopy(model.state_dict())
        train(model, opened, *args, **(kwargs | {"checkpoints": None}))
        model.load_state_dict(before)
        return train(model, opened, *args, **kwargs)

    patch.setattr(generator, "train_privately", twice)


def release_the_best_step(patch: pytest.MonkeyPatch) -> None:
    """The weights after one of the steps are released; which one, the rows tell."""
    train, descend, kept = training.train_privately, training._TrainedAdapter.take_step, list[dict[str, Tensor]]()

    def keeping(self: training._TrainedAdapter, noisy_sum: Gradients, *, expected_batch_size: float) -> None:
        descend(self, noisy_sum, expected_batch_size=expected_batch_size)
        kept.append({name: parameter.detach().clone() for name, parameter in self.parameters.items()})

    def best_of_steps(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        _, evidence = train(model, *args, **kwargs)
        model.load_state_dict(kept[1], strict=False)
        return kept[1], evidence

    patch.setattr(training._TrainedAdapter, "take_step", keeping)
    patch.setattr(generator, "train_privately", best_of_steps)


def draw_busy_units_more_often(patch: pytest.MonkeyPatch) -> None:
    """As many units as there are, but one of them twice in the place of another."""
    draw = PoissonSampler.draw

    def uneven(self: PoissonSampler, unit_ids: Any) -> tuple[str, ...]:
        first, *rest = sorted(unit_ids)
        sampled = draw(self, [first, first, *rest[1:]])
        self.last_sample = tuple(dict.fromkeys(sampled))
        return self.last_sample

    patch.setattr(training, "_sample", lambda units, sampler: SAMPLE(units, Drawing(sampler, uneven)))


class Drawing:
    """A sampler whose sample is drawn by other code of the loop."""

    def __init__(self, sampler: PoissonSampler, draw: Callable[[PoissonSampler, Any], tuple[str, ...]]) -> None:
        self.draw, self.pick = partial(draw, sampler), sampler.pick


def take_a_bad_step_back(patch: pytest.MonkeyPatch) -> None:
    """One step is undone and taken again, as after an interruption."""
    descend, make = training._TrainedAdapter.take_step, training.RunMonitor
    monitors, undone = list[Any](), list[int]()

    def noticed(*args: Any, **kwargs: Any) -> Any:
        monitors.append(make(*args, **kwargs))
        return monitors[-1]

    def descend_and_return(self: training._TrainedAdapter, noisy_sum: Gradients, *, expected_batch_size: float) -> None:
        if undone:
            return descend(self, noisy_sum, expected_batch_size=expected_batch_size)
        undone.append(1)
        monitors[-1]._sampler.samples_drawn -= 1
        state = copy.deepcopy(self.state(monitors[-1]))
        descend(self, noisy_sum, expected_batch_size=expected_batch_size)
        self.restore(state, spare_steps=9)
        kept = dict(state.observed, noise_digests=[], noise_coordinates=0)
        monitors[-1].resume(kept, optimizer=state.optimizer)
        return None

    patch.setattr(training, "RunMonitor", noticed)
    patch.setattr(training._TrainedAdapter, "take_step", descend_and_return)


# What is released


def after_training(change: Callable[[nn.Module], None]) -> Plant:
    """Something is done to the model between its last step and the release."""
    train = training.train_privately

    def trained(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = train(model, *args, **kwargs)
        change(model)
        return result

    return lambda patch: patch.setattr(generator, "train_privately", trained)


def change_weights(model: nn.Module) -> None:
    with torch.no_grad():
        an_adapter_matrix(model).view(-1)[0] += 1e-6


def count_in_the_configuration(model: Any) -> None:
    model.peft_config["default"].revision = f"{REAL_ROWS['unit_id'].n_unique()} units"


def store_something_else(change: Callable[[Any], Any]) -> Plant:
    """What reaches the disk is not what was handed to the store."""
    write = stores.write_artifact
    return lambda patch: patch.setattr(
        stores, "write_artifact", lambda folder, artifact: write(folder, change(artifact))
    )


def with_other_weights(adapter: Adapter) -> Adapter:
    return replace(adapter, weights={name: array + np.float32(1e-6) for name, array in adapter.weights.items()})


def with_another_configuration(adapter: Adapter) -> Adapter:
    return replace(adapter, config={**adapter.config, "units": 20})


def another_value_in_the_record(patch: pytest.MonkeyPatch) -> None:
    """A figure that the record of the release has anyway is one of private rows."""
    replaced = release_protocol.replace

    def with_value(value: Any, **changes: Any) -> Any:
        record = {**changes["record"], SIGNAL_TO_NOISE: 19.0}
        return replaced(value, **changes | {"record": record})

    patch.setattr(release_protocol, "replace", with_value)


def opened(change: Callable[[pl.LazyFrame], pl.LazyFrame]) -> Plant:
    """A table gives other rows than it holds for the charge that opens it."""
    open_rows = PrivateTable.open
    return lambda patch: patch.setattr(PrivateTable, "open", lambda self, charge: change(open_rows(self, charge)))


GENERATOR_PLANTS: dict[str, tuple[Plant, tuple[str, ...]]] = {
    "a fixed-size sampler": (exchange_sampler(FixedSize), ("sampler",)),
    "a shuffled sampler": (exchange_sampler(Shuffled), ("sampler",)),
    "a publicly seeded sampler": (exchange_sampler(publicly_seeded), ("sampling_randomness",)),
    "instructions sampled for users": (sample_instructions, ("population", "rows")),
    "a batch with a cap": (exchange_batch(lambda rows, units: (rows[:1], units[:1])), ("batches",)),
    "two rows of a unit": (
        exchange_batch(lambda rows, units: (rows * 2, units * 2)),
        ("rows_per_sampled_unit",),
    ),
    "a sample drawn again": (sample_twice, ("samples_drawn",)),
    "another sampling probability": (train_with(sampling_probability=0.5), ("sampling_probability",)),
    "a loss averaged over the batch": (average_the_loss, ("rounding_slack",)),
    "a sum averaged over micro-batches": (average_over_micro_batches, ("rounding_slack",)),
    "a unit carried into the next micro-batch": (carry_a_unit_into_the_next_micro_batch, ("rounding_slack",)),
    "attention across rows": (attend_across_rows, ("rounding_slack",)),
    "a clip for each tensor": (clip_each_tensor, ("largest_share",)),
    "another clip norm": (train_with(l2_clip_norm=7.0), ("l2_clip_norm", "noise_stddev")),
    "a base weight trained besides": (train_besides(an_embedding), ("changed_elsewhere", "rows")),
    "an adapter matrix trained besides": (train_besides(an_adapter_matrix), ("changed_elsewhere", "rows")),
    "noise for each micro-batch": (
        exchange_noise(noise_for_each_of_two_micro_batches),
        ("batches", "noise_draws", "distinct_noise_draws", "noised_tensors", "normaliser", "noise_size", "rows"),
    ),
    "no noise": (
        exchange_noise(no_noise),
        ("batches", "noise_draws", "distinct_noise_draws", "noised_tensors", "normaliser", "noise_size", "rows"),
    ),
    "noise drawn and forgotten": (
        exchange_noise(noise_drawn_and_forgotten),
        ("noised_tensors", "normaliser", "noise_size"),
    ),
    "noise forgotten on one tensor": (
        exchange_noise(noise_forgotten_on_one_tensor),
        ("noised_tensors", "normaliser"),
    ),
    "one noise for all tensors": (
        exchange_noise(one_noise_for_all_tensors),
        ("noise_coordinates", "noised_tensors", "normaliser"),
    ),
    "equal noise on equal tensors": (
        exchange_noise(equal_noise_on_tensors_of_a_shape),
        ("noised_tensors", "normaliser"),
    ),
    "half the noise, as configured": (train_with(noise_multiplier=0.3), ("noise_stddev",)),
    "half the noise, as drawn": (shrink_normals, ("noise_size",)),
    "publicly seeded noise": (publicly_seeded_noise, ("noise_randomness",)),
    "a normaliser read off the corpus": (
        train_with_counts_of_the_data("expected_batch_size", lambda units: units),
        ("normaliser",),
    ),
    "a normaliser read off the batch": (divide_by_the_batch, ("normaliser", "noised_tensors", "noise_size")),
    "a clip norm that follows the batch": (
        clip_with(lambda units: {"l2_clip_norm": 0.5 + units / 100}),
        ("l2_clip_norm",),
    ),
    "sums longer than they say": (lengthen_real_sums, ("sums",)),
    "a loss that follows the batch": (clip_with(lambda units: {"loss_normalizer": 1.0 + units}), ("constants",)),
    "a loss read off the corpus": (
        train_with_counts_of_the_data("loss_normalizer", lambda units: float(units)),
        ("constants",),
    ),
    "a learning rate read off the corpus": (
        train_with_counts_of_the_data("learning_rate", lambda units: 1 / units),
        ("constants",),
    ),
    "a learning rate that follows the batch": (learning_rate_of_the_batch, ("updates",)),
    "exact gradients in the moments": (exact_gradients_in_the_moments, ("updates",)),
    "a gradient changed right before the step": (decay_right_before_the_step, ("updates",)),
    "a buffer that follows the batch": (count_in_a_buffer, ("changed_elsewhere", "rows")),
    "rows of another unit": (give_rows_of_the_next_unit, ("rows",)),
    "rows cut to the shortest of the batch": (exchange_batch(cut_to_the_shortest), ("rows",)),
    "a vocabulary learned from the rows": (learn_a_vocabulary, ("rows",)),
    "an adapter that fits the rows before the run": (knowing_the_rows(change_weights), ("changed_elsewhere", "rows")),
    "a base that fits the rows before the run": (knowing_the_rows(change_an_embedding), ("changed_elsewhere", "rows")),
    "tokens that change places before the run": (knowing_the_rows(swap_tokens), ("changed_elsewhere", "rows")),
    "tokens that change places in the run": (with_each_clip(swap_tokens), ("changed_elsewhere", "rows")),
    "the better of two runs": (keep_the_better_of_two_runs, ("batches", "rows")),
    "the best of its steps": (release_the_best_step, ("content",)),
    "some units drawn more often than others": (draw_busy_units_more_often, ("batches",)),
    "texts cut to their median length": (cut_to_the_median, ("rows",)),
    "a step taken back": (take_a_bad_step_back, ("batches", "rows")),
    "weights changed after the last step": (after_training(change_weights), ("content",)),
    "a count in the configuration": (after_training(count_in_the_configuration), ("content",)),
    "other weights on the disk": (store_something_else(with_other_weights), ("content",)),
    "another configuration on the disk": (store_something_else(with_another_configuration), ("content",)),
    "another value in the record": (another_value_in_the_record, ("record",)),
}


ROW_PLANTS: dict[str, tuple[Plant, tuple[str, ...]]] = {
    "a row chosen beside the batch": (choose_beside_the_batch, ("rows",)),
    "as few rows as any unit has": (count_rows_beside_the_batch, ("rows",)),
    "a text of several units left to one": (give_each_text_once, ("population", "rows")),
    "an opened table without copies of a text": (opened(lambda rows: rows.unique("text")), ("population", "rows")),
    "an opened table of another split": (
        opened(lambda rows: OTHER_PLACES.lazy().filter(pl.col("split") != "train")),
        ("population", "rows"),
    ),
    "an opened table of every cohort": (opened(lambda rows: OTHER_PLACES.lazy()), ("population", "rows")),
}


@pytest.mark.parametrize("planted", ROW_PLANTS)
def test_a_training_on_other_rows_than_those_of_its_charge_is_refused(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    boundary = Boundary(tmp_path, tiny_model_folder, SHARED_TEXTS if "text" in planted else OTHER_PLACES)
    plant, checks = ROW_PLANTS[planted]
    plant(monkeypatch)
    assert_refused(boundary, GENERATOR, *checks)


@pytest.mark.parametrize("planted", GENERATOR_PLANTS)
def test_a_training_that_differs_from_its_plan_is_refused(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    boundary = Boundary(tmp_path, tiny_model_folder, TWO_ROWS_EACH)
    plant, checks = GENERATOR_PLANTS[planted]
    plant(monkeypatch)
    assert_refused(boundary, GENERATOR, *checks)


@pytest.mark.parametrize(
    "plant",
    [
        train_with(steps=4),
        train_with(steps=2),
        train_with_counts_of_the_data("steps", lambda units: units // 4),
    ],
    ids=["one more", "one less", "read off the corpus"],
)
def test_another_number_of_steps_is_refused_and_charged_without_a_bound(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, plant: Plant
) -> None:
    boundary = Boundary(tmp_path, tiny_model_folder)
    plant(monkeypatch)
    assert_refused(boundary, GENERATOR, "batches", *STEP_COUNTS)


def test_an_empty_batch_that_is_skipped_is_refused(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descend, drawn = training._TrainedAdapter.take_step, watch_batch_sizes(monkeypatch)

    def skip_empty(self: training._TrainedAdapter, noisy_sum: Gradients, *, expected_batch_size: float) -> None:
        if drawn[-1]:
            descend(self, noisy_sum, expected_batch_size=expected_batch_size)
        else:
            self.steps_taken += 1

    monkeypatch.setattr(training._TrainedAdapter, "take_step", skip_empty)
    assert_refused(Boundary(tmp_path, tiny_model_folder, NOBODY), GENERATOR, "steps", "noised_tensors", "rows")


def test_noise_that_repeats_after_a_resume_is_refused(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boundary = Boundary(tmp_path, tiny_model_folder)

    def start_anew() -> None:
        generator_of_a_seed = np.random.default_rng(0)
        monkeypatch.setattr(randomness, "normals", lambda source, n: generator_of_a_seed.standard_normal(n))

    start_anew()
    with monkeypatch.context() as interruption:
        interrupt_in_step(interruption.setattr, 2)
        with pytest.raises(KeyboardInterrupt):
            boundary.generator()
    start_anew()
    assert_refused(boundary, GENERATOR, "distinct_noise_draws")


def with_more_budget(boundary: Boundary) -> Boundary:
    boundary.ledger.raise_budget(boundary.registration.corpus_id, 1000.0, "for further releases")
    return boundary


def test_noise_that_another_release_was_made_with_is_refused(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boundary = with_more_budget(Boundary(tmp_path, tiny_model_folder))

    def start_anew() -> None:
        generator_of_a_seed = np.random.default_rng(0)
        monkeypatch.setattr(randomness, "normals", lambda source, n: generator_of_a_seed.standard_normal(n))

    start_anew()
    boundary.generator(key="first")
    start_anew()
    assert_refused(boundary, GENERATOR, "noise_of_others")


def test_votes_with_the_noise_of_other_votes_are_refused(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling_and_noise, "FEWEST_NATS", 5.0)  # four bins may have the same noise twice by chance
    fixed = np.array([7, -3, 1, 2], dtype=np.int64)
    monkeypatch.setattr(randomness, "discrete_gaussian", lambda source, n, noise_stddev: fixed.copy())
    boundary = with_more_budget(Boundary(tmp_path, tiny_model_folder))
    boundary.histogram(key="first")
    guessed = hashlib.sha256(fixed.tobytes()).hexdigest()
    assert guessed not in str(boundary.ledger.entries())
    assert_refused(boundary, HISTOGRAM, "noise_of_others")


@pytest.mark.parametrize("every", [3, 1000], ids=["every third step", "at the start only"])
def test_a_training_that_lost_more_than_one_step_goes_on_under_a_new_charge(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    boundary = with_more_budget(Boundary(tmp_path, tiny_model_folder))
    save, calls = Checkpoints.save, iter(range(1000))
    with monkeypatch.context() as interruption:
        interruption.setattr(
            Checkpoints, "save", lambda self, state: None if next(calls) % every else save(self, state)
        )
        interrupt_in_step(interruption.setattr, 3)
        with pytest.raises(KeyboardInterrupt):
            boundary.generator()
    boundary.generator()
    assert [(charge.settled, len(charge.continuations)) for charge in boundary.charges] == [(False, 0), (True, 0)]


def test_a_difference_before_an_interruption_is_caught_after_it(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boundary = Boundary(tmp_path, tiny_model_folder)
    with monkeypatch.context() as interruption:
        exchange_noise(noise_forgotten_on_one_tensor)(interruption)
        interrupt_in_step(interruption.setattr, 3)
        with pytest.raises(KeyboardInterrupt):
            boundary.generator()
    assert_refused(boundary, GENERATOR, "noised_tensors", "normaliser")


BEFORE_AN_INTERRUPTION = {
    "a fixed-size sampler": ("batches",),
    "a publicly seeded sampler": ("batches",),
    "another sampling probability": ("batches",),
    "publicly seeded noise": ("batches",),
    "a loss averaged over the batch": ("rounding_slack",),
    "a sum averaged over micro-batches": ("rounding_slack",),
    "a normaliser read off the corpus": ("batches",),
    "a buffer that follows the batch": ("rows",),
    "an adapter that fits the rows before the run": ("rows",),
    "tokens that change places in the run": ("rows",),
    "the better of two runs": ("rows",),
    "a step taken back": ("rows",),
}


@pytest.mark.parametrize("planted", BEFORE_AN_INTERRUPTION)
def test_what_differed_in_a_process_that_was_killed_is_refused_in_its_continuation(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    boundary = Boundary(tmp_path, tiny_model_folder, TWO_ROWS_EACH)
    plant, _ = GENERATOR_PLANTS[planted]
    with monkeypatch.context() as interruption:
        plant(interruption)
        kill_once_two_steps_are_saved(interruption)
        with pytest.raises(KeyboardInterrupt):
            boundary.generator()
    assert_refused(boundary, GENERATOR, *BEFORE_AN_INTERRUPTION[planted])


def kill_once_two_steps_are_saved(patch: pytest.MonkeyPatch) -> None:
    save = Checkpoints.save

    def killed(self: Checkpoints, state: TrainingState) -> None:
        save(self, state)
        if state.steps_taken == 2:
            raise KeyboardInterrupt

    patch.setattr(Checkpoints, "save", killed)


def test_moments_changed_in_a_checkpoint_are_refused(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boundary = Boundary(tmp_path, tiny_model_folder)
    with monkeypatch.context() as interruption:
        interrupt_in_step(interruption.setattr, 3)
        with pytest.raises(KeyboardInterrupt):
            boundary.generator()
    [file] = (tmp_path / "private" / "checkpoints").rglob("state.pt")
    state = torch.load(file, weights_only=True)
    state["optimizer"]["state"][0]["exp_avg"].view(-1)[0] += 1e-6
    torch.save(state, file)
    assert_refused(boundary, GENERATOR, "updates")


# Votes


def count_every_row(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(votes, "one_row_each_unit", lambda vectors, key: vectors)


def count_votes_twice(patch: pytest.MonkeyPatch) -> None:
    exact_votes = votes.exact_votes
    patch.setattr(noisy_votes, "exact_votes", lambda *args, **kwargs: 2 * exact_votes(*args, **kwargs))


def noise_on_filled_bins_only(patch: pytest.MonkeyPatch) -> None:
    def noisy_where_filled(exact: Any, noise: DiscreteGaussianNoise) -> Any:
        released = exact.copy()
        released[exact > 0] += noise.draw(int((exact > 0).sum()))
        return released

    patch.setattr(noisy_votes, "noisy_votes", noisy_where_filled)


def noise_taken_back_from_empty_bins(patch: pytest.MonkeyPatch) -> None:
    # A draw of zero is a fair one, so it is left out here to make the test certain.
    patch.setattr(randomness, "discrete_gaussian", lambda source, n, noise_stddev: np.full(n, 3, dtype=np.int64))
    patch.setattr(
        noisy_votes, "noisy_votes", lambda exact, noise: np.where(exact > 0, exact + noise.draw(len(exact)), exact)
    )


def count_changed(change: Callable[[pl.LazyFrame], pl.LazyFrame]) -> Plant:
    """Votes are counted of rows that were changed together."""
    exact_votes = votes.exact_votes
    return lambda patch: patch.setattr(
        noisy_votes, "exact_votes", lambda vectors, **kwargs: exact_votes(change(vectors.lazy()), **kwargs)
    )


def without_copies(rows: pl.LazyFrame) -> pl.LazyFrame:
    copies = pl.col("vector").cast(pl.List(pl.Float32))
    return rows.collect().with_columns(copies=copies).unique("copies").drop("copies").lazy()


def centered(rows: pl.LazyFrame) -> pl.LazyFrame:
    frame = rows.collect()
    vectors = frame["vector"].to_numpy()
    moved = vectors - 3 * np.nan_to_num(vectors, posinf=0).max(axis=0, initial=0) * (np.arange(vectors.shape[1]) == 0)
    return frame.with_columns(vector=pl.Series(moved.astype(np.float32), dtype=frame.schema["vector"])).lazy()


def bins_moved_in_place(patch: pytest.MonkeyPatch) -> None:
    """Bins are fitted once more, on the real vectors, right before the votes are counted."""
    exact_votes = votes.exact_votes

    def refitted(vectors: pl.LazyFrame, *, centroids: Any, **kwargs: Any) -> Any:
        rows = vectors.lazy().collect()
        if rows["unit_id"].str.starts_with("unit-").any():
            centroids += rows["vector"].to_numpy().mean(axis=0)
        return exact_votes(rows, centroids=centroids, **kwargs)

    patch.setattr(noisy_votes, "exact_votes", refitted)


def bins_moved_before_the_votes(patch: pytest.MonkeyPatch) -> None:
    """As a run does that reads the vectors to fit its bins anew, and hands those on."""
    run = NoisyVotes.run

    def refitted(self: NoisyVotes, charge: Any) -> Any:
        vectors = self.table._rows.collect()["vector"].to_numpy()
        return run(replace(self, centroids=self.centroids + vectors.mean(axis=0)), charge)

    patch.setattr(NoisyVotes, "run", refitted)


def without_one_unit(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.filter(pl.col("unit_id") != "unit-4")


def release_changed(change: Callable[[Any], Any]) -> Plant:
    add_noise = noisy_votes.noisy_votes
    return lambda patch: patch.setattr(noisy_votes, "noisy_votes", lambda exact, noise: change(add_noise(exact, noise)))


def edited(method: str, *edits: tuple[str, str]) -> Plant:
    """A method of `NoisyVotes` with other text in its body."""
    source = textwrap.dedent(inspect.getsource(getattr(NoisyVotes, method)))
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)

    def plant(patch: pytest.MonkeyPatch) -> None:
        scope = dict(vars(noisy_votes))
        exec(source, scope)
        patch.setattr(NoisyVotes, method, scope[method])

    return plant


SEVERAL_DRAWS = edited(
    "run",
    (
        "released = noisy_votes(exact, noise)",
        "stddev = self.plan.votes.noise_stddev\n"
        "    noises = [DiscreteGaussianNoise(noise_stddev=stddev, source=SystemRandomness()) for _ in range(3)]\n"
        "    released, noise = min(((noisy_votes(exact, one), one) for one in noises), key=lambda d: abs(d[0]).sum())",
    ),
)


def nothing_below_zero(noisy: Any) -> Any:
    noisy[0] = -1 - abs(noisy[0])  # so that the test is certain
    return np.maximum(noisy, 0)


def table_changed(change: Callable[[pl.DataFrame, Any], pl.DataFrame]) -> Plant:
    """The released table is put together with the exact votes at hand."""
    add_noise, rows, exact = noisy_votes.noisy_votes, noisy_votes._rows, list[Any]()

    def noticed(votes: Any, noise: DiscreteGaussianNoise) -> Any:
        exact.append(votes)
        return add_noise(votes, noise)

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(noisy_votes, "noisy_votes", noticed)
        patch.setattr(noisy_votes, "_rows", lambda noisy: change(rows(noisy).collect(), exact[-1]).lazy())

    return plant


def with_a_smaller_bin(table: Any) -> Any:
    return replace(table, rows=table.rows.with_columns(pl.col("noisy_votes") - 1))


def say_more(module: Any, function: str) -> Plant:
    """Public evidence names the number of units besides."""
    evidence_of = getattr(module, function)
    return lambda patch: patch.setattr(
        module, function, lambda *args, **items: evidence_of(*args, **items).also(units=19)
    )


def say_more_in_the_record(patch: pytest.MonkeyPatch) -> None:
    """The record of the release says what a clip or a vote of private rows was."""
    replaced = release_protocol.replace

    def with_figure(value: Any, **changes: Any) -> Any:
        record = {**changes["record"], "summary": {"rows_read": 19}}
        return replaced(value, **changes | {"record": record})

    patch.setattr(release_protocol, "replace", with_figure)


def centered_where_bins_are_found(patch: pytest.MonkeyPatch) -> None:
    """Both counts find bins by the same code, which moves vectors by those beside them once there are many."""
    nearest = bins._nearest_in_block

    def of_many(block: Any, *others: Any) -> Any:
        return nearest(block - block.mean(axis=0) if len(block) > 16 else block, *others)

    patch.setattr(bins, "_nearest_in_block", of_many)


def best_of_draws_in_a_pool(patch: pytest.MonkeyPatch) -> None:
    """Noise is tried in other threads, and how large it came decides nothing that is seen."""
    add_noise = noisy_votes.noisy_votes

    def tried(exact: Any, noise: DiscreteGaussianNoise) -> Any:
        others = [DiscreteGaussianNoise(noise_stddev=noise.noise_stddev, source=SystemRandomness()) for _ in range(3)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda other: other.draw(len(exact)), others))
        return add_noise(exact, noise)

    patch.setattr(noisy_votes, "noisy_votes", tried)


VOTES_PLANTS: dict[str, tuple[Plant, tuple[str, ...]]] = {
    "a second vote by a unit": (count_every_row, ("max_votes_per_unit", "votes")),
    "votes of weight two": (count_votes_twice, ("votes", "votes_counted")),
    "noise drawn for filled bins only": (
        noise_on_filled_bins_only,
        ("noise_coordinates", "noised_bins", "content"),
    ),
    "noise kept from empty bins": (noise_taken_back_from_empty_bins, ("noised_bins", "content")),
    "no second vote for equal vectors": (count_changed(without_copies), ("population", "votes")),
    "a unit left out": (count_changed(without_one_unit), ("population",)),
    "a unit left out of the opened table": (opened(without_one_unit), ("population",)),
    "an opened table moved by all of its vectors": (opened(centered), ("votes",)),
    "vectors moved by all of them": (count_changed(centered), ("votes",)),
    "bins moved by the real vectors in place": (bins_moved_in_place, ("bins",)),
    "bins fitted again before the votes": (bins_moved_before_the_votes, ("bins",)),
    "no release below zero": (release_changed(nothing_below_zero), ("noised_bins", "content")),
    "rows in the order of exact votes": (
        table_changed(lambda table, exact: table[np.argsort(-exact, kind="stable").tolist()][::-1]),
        ("content",),
    ),
    "exact votes beside": (
        table_changed(lambda table, exact: table.with_columns(votes=pl.Series(exact))),
        ("content",),
    ),
    "votes of another type": (
        table_changed(lambda table, exact: table.cast({"noisy_votes": pl.Float64})),
        ("content",),
    ),
    "a figure more in the evidence": (say_more(noisy_votes, "votes_evidence"), ("evidence",)),
    "a figure more in the record": (say_more_in_the_record, ("record",)),
    "another table on the disk": (store_something_else(with_a_smaller_bin), ("content",)),
    "the best of three noisy counts": (SEVERAL_DRAWS, ("noise_randomness",)),
    "noisy counts tried in other threads": (best_of_draws_in_a_pool, ("noise_randomness",)),
    "vectors moved where bins are found": (centered_where_bins_are_found, ("votes",)),
    "publicly seeded noise": (
        lambda patch: patch.setattr(noisy_votes, "SystemRandomness", lambda: ReplayableSource(0)),
        ("noise_randomness",),
    ),
}


@pytest.mark.parametrize("planted", VOTES_PLANTS)
def test_votes_that_differ_from_their_plan_are_refused(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    boundary = Boundary(tmp_path, tiny_model_folder, TWO_BINS_EMPTY)
    plant, checks = VOTES_PLANTS[planted]
    plant(monkeypatch)
    assert_refused(boundary, HISTOGRAM, *checks)


@pytest.mark.parametrize(("name", "changed"), [("noise_stddev", 0.0), ("source", ReplayableSource(0))])
def test_noise_of_votes_that_is_changed_around_its_draw_and_set_back_releases_nothing(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, changed: Any
) -> None:
    add_noise = noisy_votes.noisy_votes

    def changed_meanwhile(exact: Any, noise: DiscreteGaussianNoise) -> Any:
        planned = getattr(noise, name)
        setattr(noise, name, changed)
        released = add_noise(exact, noise)
        setattr(noise, name, planned)
        return released

    monkeypatch.setattr(noisy_votes, "noisy_votes", changed_meanwhile)
    boundary = Boundary(tmp_path, tiny_model_folder)
    with pytest.raises(AttributeError, match=name):
        boundary.histogram()
    assert not boundary.releases.has(HISTOGRAM, LEVEL, "key")


# Preparation


@pytest.mark.parametrize("mechanism", [GENERATOR, HISTOGRAM])
@pytest.mark.parametrize("refusal_at_the_source", ["bypassed", "from an earlier version"])
def test_rows_whose_preparation_crossed_units_are_refused(
    tmp_path: Path, tiny_model_folder: Path, mechanism: str, refusal_at_the_source: str
) -> None:
    boundary = Boundary(tmp_path, tiny_model_folder)
    rows = probe_rows(num_words=12, num_rows_of_busiest=5, language=None, created_at=REAL_TIME)
    measured = verdict_on_preparation(
        without_duplicates(prepare_rows(boundary.plan.unit)), rows=rows, unit=boundary.plan.unit, max_rows_per_unit=2
    )
    boundary.table.preparation = measured if refusal_at_the_source == "bypassed" else "unknown"
    assert_refused(boundary, mechanism, "preparation")


# Runs that keep their plan


@pytest.mark.parametrize("rows", [REAL_ROWS, TWO_ROWS_EACH, TWO_BINS_EMPTY, NOBODY], ids=["one", "two", "bins", "none"])
def test_the_same_runs_without_a_plant_settle(tmp_path: Path, tiny_model_folder: Path, rows: pl.DataFrame) -> None:
    boundary = Boundary(tmp_path, tiny_model_folder, rows)
    with pytest.MonkeyPatch.context() as interruption:
        interrupt_in_step(interruption.setattr, 2)
        with pytest.raises(KeyboardInterrupt):
            boundary.generator()
    released = boundary.generator(), boundary.histogram()
    assert [(charge.settled, charge.supplement_of) for charge in boundary.charges] == [(True, None)] * 2
    assert [artifact.record["evidence"]["mechanism"] for artifact in released] == ["dpsgd", "votes"]


def test_the_evidence_of_runs_that_keep_their_plan_is_the_same_on_neighboring_corpora(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    corpora = {"all": TWO_ROWS_EACH, "without": TWO_ROWS_EACH.filter(pl.col("unit_id") != "unit-3"), "nobody": NOBODY}
    evidence = []
    for name, rows in corpora.items():
        boundary = Boundary(tmp_path / name, tiny_model_folder, rows)
        released = boundary.generator(), boundary.histogram()
        assert all(charge.settled for charge in boundary.charges)
        evidence.append([artifact.record["evidence"] for artifact in released])
    assert evidence[0] == evidence[1] == evidence[2]
