"""DP-SGD (Abadi et al. 2016, with Poisson sampling of units and Adam): the training loop and nothing else.

    probe, then: sample -> clipped sum -> noise -> step -> checkpoint

Guarantee, for add-or-remove neighbors of one unit: `steps` updates are a composition of that many Poisson-subsampled
Gaussians of `noise_multiplier`, whatever Adam makes of the noisy sums (post-processing). It holds for any number of
interruptions, because each continuation is accounted as one more step. Whatever shapes the run besides the sampled
rows is a public constant: steps, sampling probability, normalizers, learning rate. The run never stops early, never
picks a best step and never looks at a loss.

What ran is observed from beside the loop (`monitor.py`), and by a probe of public rows before it
(`sensitivity_probe.py`). The weights that come back are those that the run monitor saw, not those that the model holds.

An empty sample is a step on noise alone. A sampled unit contributes one of its rows, drawn afresh. The learning rate
is constant because a schedule is one more public knob and nobody has measured a gain from it at a few hundred noisy
steps.
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
from dp_assets.privacy.mechanisms import GaussianNoise, PoissonSampler
from dp_assets.privacy.plan import PrivacyPlan
from dp_assets.privacy.randomness import RandomSource
from dp_assets.progress import Advance


class NoSpareStep(PublicError, RuntimeError):
    """The plan has no spare step left for a continuation; discard the checkpoint and train under a new charge."""


@dataclass(frozen=True)
class TrainingSettings:
    """Public constants of a training that shape its result and not its guarantee.

    No row has more than `longest_row` tokens, which is how long rows of the sensitivity probe are.
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
    """Train the adapter of `model` in place with the plan's noisy updates: its weights by name, and the evidence.

    `model` stays in the mode it is in. The caller adds to the evidence what it saw of the table (see `dpsgd_evidence`).

    Args:
      private_rows: opened once, when the first checkpoint is on disk.
      plan: no step samples more than its `largest_batch` units, as far as it allows for.
      resume_from: what `checkpoints.load()` returned. Its digest goes to the ledger, after the probe and before the
        checkpoint is replaced.
      advance: told of steps only.

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
    """The adapter under training and its optimizer. `restricted` covers the steps of this process only."""

    def __init__(self, model: nn.Module, new_optimizer: NewOptimizer) -> None:
        self.parameters = adapter_parameters(model)
        self.optimizer = new_optimizer(self.parameters.values())
        self.steps_taken = self.continuations = 0
        self.restricted: list[dict[str, Any]] = []

    def take_step(self, noisy_sum: Gradients, *, expected_batch_size: float) -> None:
        """One Adam step on the noisy sum divided by a public constant; every parameter must be in the sum."""
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
    adapter: _TrainedAdapter,
    monitor: RunMonitor,
    checkpoints: Checkpoints | None,
    resume_from: TrainingState | None,
    private_rows: PrivateRows,
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
            private_rows.note_continued(resume_from.digest)
        checkpoints.save(adapter.state(monitor))
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
