"""DP-SGD (Abadi et al. 2016, with Poisson sampling of units and Adam): the training loop and nothing else.

    probe, then: sample -> clipped sum -> noise -> step -> checkpoint

Guarantee, for add-or-remove neighbours of one unit: `steps` updates are a composition of that many Poisson-subsampled
Gaussians of `noise_multiplier`, whatever Adam makes of the noisy sums (post-processing). It holds for any number of
interruptions, because each continuation is accounted as one more step. Whatever shapes the run besides the sampled
rows is a public constant: steps, sampling probability, normalisers, learning rate. The run never stops early, never
picks a best step and never looks at a loss.

What ran is observed from beside the loop (`monitor.py`), and by a probe of public rows before it
(`sensitivity_probe.py`). The weights that come back are those that the witness saw, not those that the model holds.

An empty sample is a step on noise alone. A sampled unit contributes one of its rows, drawn afresh. The learning rate
is constant because a schedule is one more public knob and nobody has measured a gain from it at a few hundred noisy
steps.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dp_assets.dpsgd.checkpoints import Checkpoints, TrainingState
from dp_assets.dpsgd.clipping import Gradients, adapter_parameters, clipped_sum
from dp_assets.dpsgd.monitor import WATCHED_FROM, WATCHED_TO, Owns, Witness
from dp_assets.dpsgd.packing import TokenRow
from dp_assets.dpsgd.replica import NewOptimizer, digests_of
from dp_assets.dpsgd.sensitivity_probe import probe_shares
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.evidence import Evidence, dpsgd_evidence
from dp_assets.privacy.mechanisms import GaussianNoise, PoissonSampler
from dp_assets.privacy.randomness import RandomSource
from dp_assets.progress import Advance

UnitRows = Mapping[str, Sequence[TokenRow]]  # by unit id; a sampled unit contributes one of its rows


class NoSpareStep(PublicError, RuntimeError):
    """The plan has no spare step left for a continuation; discard the checkpoint and train under a new charge."""


def train_privately(
    model: nn.Module,
    read_unit_rows: Callable[[], UnitRows],
    *,
    owns: Owns,
    steps: int,
    spare_steps: int,
    sampling_probability: float,
    l2_clip_norm: float,
    noise_multiplier: float,
    expected_batch_size: float,
    largest_batch: float,
    learning_rate: float,
    loss_normaliser: float,
    tokens_per_micro_batch: int,
    unit: str,
    source: RandomSource,
    longest: int = 0,
    checkpoints: Checkpoints | None,
    resume_from: TrainingState | None,
    note_continued: Callable[[str], object],
    advance: Advance,
) -> tuple[dict[str, Tensor], Evidence]:
    """Train the adapter of `model` in place with `steps` noisy updates: its weights by name, and the evidence.

    `read_unit_rows` opens the private rows; it is called once, when the first checkpoint is on disk. `owns` tells
    whether rows are those that were drawn, by the table and not by `read_unit_rows`.
    No row has more than `longest` tokens, which is how long rows of the probe are.
    `expected_batch_size`, `largest_batch` and `loss_normaliser` are public constants, never counts of the data; no step
    samples more than `largest_batch` units, as far as the plan allows for. `resume_from` is what
    `checkpoints.load()` returned. `note_continued` records its `digest` in the ledger, after the probe and before the
    checkpoint is replaced. `unit` says what the ids stand for. `advance` hears of steps only. `model` stays in the mode
    it is in. The caller adds to the evidence what it saw of the table (see `dpsgd_evidence`).

    Raises:
      NoSpareStep: `resume_from` has used up the plan's `spare_steps`.
      StaleCheckpoint, TrainingInProgress: see `checkpoints`.
      RoundingTooCoarse: see `probe`.
      UnclippableParameter, RowsInteract, MicroBatchTooLarge: see `per_unit`.
    """
    sampler = PoissonSampler(sampling_probability=sampling_probability, source=source)
    noise = GaussianNoise(noise_stddev=noise_multiplier * l2_clip_norm, source=source)
    clip = partial(
        clipped_sum,
        model,
        l2_clip_norm=l2_clip_norm,
        loss_normaliser=loss_normaliser,
        tokens_per_micro_batch=tokens_per_micro_batch,
    )
    probed = probe_shares(
        model,
        clip,
        l2_clip_norm=l2_clip_norm,
        loss_normaliser=loss_normaliser,
        largest_batch=largest_batch,
        tokens_per_micro_batch=tokens_per_micro_batch,
        longest=longest,
    )
    new_optimizer: NewOptimizer = partial(torch.optim.Adam, lr=learning_rate)
    trainee = _Trainee(model, new_optimizer)
    witness = Witness(
        model,
        trainee.optimizer,
        new_optimizer=new_optimizer,
        sampler=sampler,
        noise=noise,
        normaliser=expected_batch_size,
        largest_share=probed["largest_share"],
        rounding_slack=probed["rounding_slack"],
    )
    if resume_from is not None:
        trainee.restore(resume_from, spare_steps=spare_steps)
        witness.resume(resume_from.observed, optimizer=resume_from.optimizer)
    with _checkpointed(trainee, witness, checkpoints, resume_from, note_continued):
        unit_rows = read_unit_rows()
        watched_clip = witness.watching(clip, unit_rows.keys(), owns=owns)
        while trainee.steps_taken < steps:
            rows, unit_ids = _sample(unit_rows, sampler)
            exact_sum, clipping = watched_clip(rows, unit_ids)
            if checkpoints is not None:
                checkpoints.note_draw()
            trainee.descend(_add_noise(exact_sum, noise), expected_batch_size=expected_batch_size)
            trainee.restricted.append(clipping.restricted)
            if checkpoints is not None:
                checkpoints.save(trainee.state(witness))
            advance(1)
    evidence = dpsgd_evidence(
        unit=unit,
        sampler=sampler,
        noise=noise,
        continuations=trainee.continuations,
        spare_steps=spare_steps,
        restricted={
            "clipping": trainee.restricted,
            WATCHED_FROM: dict(witness.watched_from),
            WATCHED_TO: digests_of(witness.weights()),
        },
        **witness.observed(),
    )
    return witness.weights(), evidence


class _Trainee:
    """The adapter under training and its optimizer. `restricted` covers the steps of this process only."""

    def __init__(self, model: nn.Module, new_optimizer: NewOptimizer) -> None:
        self.parameters = adapter_parameters(model)
        self.optimizer = new_optimizer(self.parameters.values())
        self.steps_taken = self.continuations = 0
        self.restricted: list[dict[str, Any]] = []

    def descend(self, noisy_sum: Gradients, *, expected_batch_size: float) -> None:
        """One Adam step on the noisy sum divided by a public constant; every parameter must be in the sum."""
        for name, parameter in self.parameters.items():
            parameter.grad = (noisy_sum[name] / expected_batch_size).to(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps_taken += 1

    def state(self, witness: Witness) -> TrainingState:
        return TrainingState(
            parameters={name: parameter.detach().cpu() for name, parameter in self.parameters.items()},
            optimizer=self.optimizer.state_dict(),
            steps_taken=self.steps_taken,
            continuations=self.continuations,
            observed=witness.kept(),
        )

    def restore(self, state: TrainingState, *, spare_steps: int) -> None:
        """Go back to `state`; the step that was lost may have drawn its noise, so it is accounted as one more."""
        if state.continuations >= spare_steps:
            raise NoSpareStep("every spare step of the plan is used; discard the checkpoint and charge anew")
        if state.parameters.keys() != self.parameters.keys():
            raise ValueError("resume_from holds other parameters than the model; use the same LoRA configuration")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state.parameters[name])
        self.optimizer.load_state_dict(dict(state.optimizer))
        self.steps_taken, self.continuations = state.steps_taken, state.continuations + 1


@contextmanager
def _checkpointed(
    trainee: _Trainee,
    witness: Witness,
    checkpoints: Checkpoints | None,
    resume_from: TrainingState | None,
    note_continued: Callable[[str], object],
) -> Iterator[None]:
    """Hold the lock, and replace the checkpoint before the first row is read, so that it is never continued again.

    That it is continued is noted before it is replaced.
    """
    if checkpoints is None:
        if resume_from is not None:
            raise ValueError("resume_from needs checkpoints, which make sure that it is continued once")
        yield
        return
    with checkpoints.locked():
        checkpoints.require(resume_from)
        if resume_from is not None:
            note_continued(resume_from.digest)
        checkpoints.save(trainee.state(witness))
        yield


def _sample(unit_rows: UnitRows, sampler: PoissonSampler) -> tuple[list[TokenRow], tuple[str, ...]]:
    """One row, drawn uniformly, of each unit of a sample, and the units' ids."""
    sampled_ids = sampler.draw(list(unit_rows))
    choices = [unit_rows[unit_id] for unit_id in sampled_ids]
    indices = sampler.pick([len(choice) for choice in choices])
    return [choice[index] for choice, index in zip(choices, indices, strict=True)], sampled_ids


def _add_noise(exact_sum: Gradients, noise: GaussianNoise) -> Gradients:
    """The sum in float64 with one draw of noise over all its tensors together."""
    flat = torch.cat([tensor.flatten().cpu().double() for tensor in exact_sum.values()])
    flat += torch.from_numpy(noise.draw(len(flat)))
    pieces = flat.split([tensor.numel() for tensor in exact_sum.values()])
    return {name: piece.view(tensor.shape) for (name, tensor), piece in zip(exact_sum.items(), pieces, strict=True)}
