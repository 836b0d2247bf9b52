"""DP-SGD (Abadi et al. 2016, with Poisson sampling of units and Adam): the training loop.

    sensitivity probe, then in each step: sample -> clipped sum -> noise -> optimizer step -> checkpoint

Guarantee, for neighbors that differ by adding or removing one unit: `steps` updates are a composition of `steps`
Poisson-subsampled Gaussian mechanisms with `noise_multiplier`. What Adam does with the noisy sums is post-processing.
The guarantee holds for every number of interruptions that the plan's spare steps allow, because each continuation is
accounted as one more step. Apart from the sampled rows, everything that determines the run is a public constant: steps,
sampling probability, normalizers, learning rate. The run never stops early, never selects a best step and never reads a
loss.

The run monitor observes the loop (`monitor.py`), and the sensitivity probe measures the engine on public rows before it
(`sensitivity_probe.py`). The returned weights are the run monitor's, not the model's.

- An empty sample gives a step on noise alone.
- A sampled unit contributes one of its rows, drawn anew in each step.
- The learning rate is constant. A schedule would be another public setting, and no gain from one has been measured at a
  few hundred noisy steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dp_assets.dpsgd.checkpoints import Checkpoints, TrainingState
from dp_assets.dpsgd.clipping import Clipping, GradientEngine, Gradients, adapter_parameters
from dp_assets.dpsgd.monitor import WATCHED_FROM, WATCHED_TO, RunMonitor
from dp_assets.dpsgd.packing import TokenRow
from dp_assets.dpsgd.private_rows import PrivateRows, UnitRows
from dp_assets.dpsgd.replica import NewOptimizer, digests_of
from dp_assets.dpsgd.sensitivity_probe import probe_sensitivity
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.evidence import Evidence, dpsgd_evidence
from dp_assets.privacy.plan import PrivacyPlan
from dp_assets.privacy.randomness import RandomSource
from dp_assets.privacy.sampling_and_noise import GaussianNoise, PoissonSampler
from dp_assets.progress import Advance


class NoSpareStep(PublicError, RuntimeError):
    """The plan has no spare step left for a continuation; discard the checkpoint and train under a new charge."""


@dataclass(frozen=True)
class TrainingSettings:
    """Public constants of a training that affect its result but not its guarantee.

    No row has more than `longest_row` tokens. The sensitivity probe runs rows of this length.
    """

    learning_rate: float
    loss_normalizer: float
    tokens_per_micro_batch: int
    longest_row: int


def train_privately(
    model: nn.Module,
    private_rows: PrivateRows,
    plan: PrivacyPlan,
    settings: TrainingSettings,
    *,
    source: RandomSource,
    checkpoints: Checkpoints | None,
    resume_from: TrainingState | None,
    advance: Advance,
) -> tuple[dict[str, Tensor], Evidence]:
    """Train the adapter of `model` in place with the plan's noisy updates; return its weights by name and the evidence.

    The training mode of `model` is not changed. The caller adds its observations of the table to the evidence (see
    `dpsgd_evidence`).

    Args:
      model: the language model with a trainable LoRA adapter.
      private_rows: opened once, after the first checkpoint is on disk.
      plan: gives all constants of the mechanism. The probe's limit on rounding follows from its `largest_batch`.
      settings: the other public constants.
      source: the randomness of samples and noise.
      checkpoints: where the training state is saved; None to save none.
      resume_from: the result of `checkpoints.load()`; None to start anew. Its digest is recorded in the ledger after
        the probe and before the checkpoint is replaced.
      advance: called with the number of steps taken, and nothing else.

    Raises:
      NoSpareStep: `resume_from` has used up the plan's spare steps.
      StaleCheckpoint, TrainingInProgress: see `checkpoints`.
      RoundingTooCoarse: see `probe_sensitivity`.
      UnclippableParameter, RowsInteract, MicroBatchTooLarge: see `clipped_sum`.
    """
    dpsgd = plan.dpsgd
    sampler = PoissonSampler(sampling_probability=dpsgd.sampling_probability, source=source)
    noise = GaussianNoise(noise_stddev=dpsgd.noise_multiplier * dpsgd.l2_clip_norm, source=source)
    clipping = Clipping(dpsgd.l2_clip_norm, settings.loss_normalizer, settings.tokens_per_micro_batch)
    engine = GradientEngine(model, clipping)
    probed = probe_sensitivity(engine, largest_batch=plan.largest_batch, longest_row=settings.longest_row)
    new_optimizer: NewOptimizer = partial(torch.optim.Adam, lr=settings.learning_rate)
    adapter = _TrainedAdapter(model, new_optimizer)
    monitor = RunMonitor(
        model,
        adapter.optimizer,
        new_optimizer=new_optimizer,
        sampler=sampler,
        noise=noise,
        normalizer=dpsgd.expected_batch_size,
        probed=probed,
    )
    if resume_from is not None:
        adapter.restore(resume_from, spare_steps=dpsgd.spare_steps)
        monitor.resume(resume_from.observed, optimizer=resume_from.optimizer)
    with _checkpointed(adapter, monitor, checkpoints, resume_from, private_rows):
        unit_rows = private_rows.open()
        monitor.begin(private_rows, unit_rows.keys())
        while adapter.steps_taken < dpsgd.steps:
            rows, unit_ids = _sample(unit_rows, sampler)
            exact_sum, clipped = engine.clipped_sum(rows, unit_ids)
            monitor.observe_clipped_sum(rows, unit_ids, exact_sum, clipped)
            if checkpoints is not None:
                checkpoints.note_draw()
            adapter.take_step(_add_noise(exact_sum, noise), expected_batch_size=dpsgd.expected_batch_size)
            adapter.restricted.append(clipped.restricted)
            if checkpoints is not None:
                checkpoints.save(adapter.state(monitor))
            advance(1)
    evidence = dpsgd_evidence(
        monitor.observed(),
        sampler,
        noise,
        unit=str(plan.unit),
        continuations=adapter.continuations,
        spare_steps=dpsgd.spare_steps,
        restricted={
            "clipping": adapter.restricted,
            WATCHED_FROM: dict(monitor.watched_from),
            WATCHED_TO: digests_of(monitor.weights()),
        },
    )
    return monitor.weights(), evidence


class _TrainedAdapter:
    """The adapter in training and its optimizer. `restricted` covers the steps of this process only."""

    def __init__(self, model: nn.Module, new_optimizer: NewOptimizer) -> None:
        self.parameters = adapter_parameters(model)
        self.optimizer = new_optimizer(self.parameters.values())
        self.steps_taken = self.continuations = 0
        self.restricted: list[dict[str, Any]] = []

    def take_step(self, noisy_sum: Gradients, *, expected_batch_size: float) -> None:
        """Take one Adam step on the noisy sum divided by `expected_batch_size`, a public constant.

        The sum must have every parameter.
        """
        for name, parameter in self.parameters.items():
            parameter.grad = (noisy_sum[name] / expected_batch_size).to(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps_taken += 1

    def state(self, monitor: RunMonitor) -> TrainingState:
        return TrainingState(
            parameters={name: parameter.detach().cpu() for name, parameter in self.parameters.items()},
            optimizer=self.optimizer.state_dict(),
            steps_taken=self.steps_taken,
            continuations=self.continuations,
            observed=monitor.kept(),
        )

    def restore(self, state: TrainingState, *, spare_steps: int) -> None:
        """Restore `state` and count a continuation: the lost step may have drawn noise, so it is accounted as a step.

        Raises:
          NoSpareStep: the plan's spare steps are used up.
          ValueError: `state` holds other parameters than the model.
        """
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
    adapter: _TrainedAdapter,
    monitor: RunMonitor,
    checkpoints: Checkpoints | None,
    resume_from: TrainingState | None,
    private_rows: PrivateRows,
) -> Iterator[None]:
    """Hold the lock, and replace the checkpoint before the first row is read, so that it is continued only once.

    The continuation is recorded in the ledger before the checkpoint is replaced.
    """
    if checkpoints is None:
        if resume_from is not None:
            raise ValueError("resume_from needs checkpoints, which make sure that it is continued once")
        yield
        return
    with checkpoints.locked():
        checkpoints.require(resume_from)
        if resume_from is not None:
            private_rows.note_continued(resume_from.digest)
        checkpoints.save(adapter.state(monitor))
        yield


def _sample(unit_rows: UnitRows, sampler: PoissonSampler) -> tuple[list[TokenRow], tuple[str, ...]]:
    """Sample units, and return one uniformly drawn row of each, with the units' ids."""
    sampled_ids = sampler.draw(list(unit_rows))
    choices = [unit_rows[unit_id] for unit_id in sampled_ids]
    indices = sampler.pick([len(choice) for choice in choices])
    return [choice[index] for choice, index in zip(choices, indices, strict=True)], sampled_ids


def _add_noise(exact_sum: Gradients, noise: GaussianNoise) -> Gradients:
    """Return the sum in float64 with noise added, from one draw for all tensors together."""
    flat = torch.cat([tensor.flatten().cpu().double() for tensor in exact_sum.values()])
    flat += torch.from_numpy(noise.draw(len(flat)))
    pieces = flat.split([tensor.numel() for tensor in exact_sum.values()])
    return {name: piece.view(tensor.shape) for (name, tensor), piece in zip(exact_sum.items(), pieces, strict=True)}
