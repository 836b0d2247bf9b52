"""White-box audits: real private training and real noisy votes on public rows, and the outputs that the tests bet on.

Training is `train_privately` as it is: sampler, clip, noise, run monitor and optimizer, on the tiny model. The learning
rate is zero, so the weights stay, and with them each unit's clipped gradient: the canary's is a fixed direction. The
output of a step is what the optimizer took, read from its first moment. Nothing looks at the evidence of the run.

Beside the canary there are ordinary units. The canary's direction is the part of its gradient that is orthogonal to all
of theirs, so their sampling does not move the output along it. The rest of an output is what is orthogonal to all
gradients: noise alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from dp_assets.artifacts import PrivateTable, Table
from dp_assets.audit.sequential import Claim, ClaimTest, PlannedStep, StepFit, VotesFit, Wealth
from dp_assets.dpsgd.clipping import Clipping, adapter_parameters, clipped_sum
from dp_assets.dpsgd.packing import TokenRow
from dp_assets.dpsgd.training import TrainingSettings, train_privately
from dp_assets.privacy.plan import DpSgdPlan, VotesPlan
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.selection.bins import digest_of
from dp_assets.selection.noisy_votes import NoisyVotes
from tests.generation.tiny_lora import PAD, ROWS, lora_model
from tests.privacy.plans import small_plan

Array = npt.NDArray[np.float64]
UnitRows = Mapping[str, Sequence[TokenRow]]

CANARY = "canary"
CANARY_UNIT: UnitRows = {CANARY: (TokenRow((1, 7), (61, 61, 61, PAD)),) * 4}
ORDINARY_UNITS: UnitRows = {f"ordinary-{number}": (ROWS[index],) for number, index in enumerate((2, 4))}
STEPS = 50  # of one run
PLAN = replace(
    small_plan(),
    delta=0.1,  # so that the largest batch is the expected one
    dpsgd=DpSgdPlan(
        sampling_probability=0.25,
        steps=STEPS,
        spare_steps=0,
        l2_clip_norm=0.5,
        noise_multiplier=0.4,  # so little that outputs show the sampling
        expected_batch_size=2,
    ),
)
THRESHOLDS = np.linspace(-1.0, 2.0, 13)
SETTINGS = TrainingSettings(learning_rate=0.0, loss_normalizer=0.1, tokens_per_micro_batch=32, longest_row=0)


@dataclass(frozen=True)
class Verdict:
    """How a test ended: after how many outputs and seconds of the processor, and which bet had won most."""

    is_rejected: bool
    samples: int
    seconds: float
    leading: str


class Enough(Exception):
    """Ends a run between two steps."""


@dataclass(frozen=True)
class Directions:
    """Where to look in an output: the canary's unit direction [values], its shift, and a basis of the rest."""

    along: Array
    shift: float
    rest: Array  # [values of the rest, values]


class WhiteBox:
    """The tiny model, whose weights stay as they are, and the directions of the units' clipped gradients at them.

    Make it before a fault is planted: the directions are those of the code as it is. `ordinary` are the units beside
    the canary.
    """

    def __init__(self, folder: Path, ordinary: UnitRows) -> None:
        self.model: nn.Module = lora_model(folder, r=1, target_modules=["down_proj"])
        self.without_canary = ordinary
        self.with_canary: UnitRows = {**CANARY_UNIT, **ordinary}
        self._parameters = adapter_parameters(self.model)
        self.directions = self._directions()

    @property
    def planned(self) -> PlannedStep:
        dpsgd = PLAN.dpsgd
        return PlannedStep(dpsgd.sampling_probability, dpsgd.noise_multiplier, self.directions.shift)

    def audit(self, *, significance: float, most_steps: int) -> Verdict:
        """Train until the outputs reject the plan, or for `most_steps` steps in runs of `STEPS`."""
        started = time.process_time()
        fit = StepFit(self.planned, num_rest=len(self.directions.rest), significance=significance)

        def observe(output: Array) -> None:
            fit.observe(float(self.directions.along @ output), self.directions.rest @ output)
            if fit.wealth.rejected_after is not None or fit.wealth.num_samples >= most_steps:
                raise Enough

        while fit.wealth.rejected_after is None and fit.wealth.num_samples < most_steps:
            fit.begin_run()
            self.train(self.with_canary, PLAN.dpsgd, observe)
        return _verdict(fit.wealth, started)

    def audit_claims(
        self, claims: Sequence[Claim], dpsgd: DpSgdPlan, *, significance: float, most_pairs: int
    ) -> Verdict:
        """Train with and without the canary until the outputs of single steps reject the claims, or for so many pairs.

        Both train for `dpsgd.steps` steps at a time.
        """
        started = time.process_time()
        test = ClaimTest(claims, thresholds=THRESHOLDS, significance=significance)
        while test.rejected_after is None and test.num_samples < most_pairs:
            test.observe(self.along(self.with_canary, dpsgd), self.along(self.without_canary, dpsgd))
        samples = test.rejected_after or test.num_samples
        return Verdict(test.rejected_after is not None, samples, time.process_time() - started, "claim")

    def along(self, units: UnitRows, dpsgd: DpSgdPlan) -> Array:
        """Train once and return the outputs along the canary's direction, over the clip norm; shape [steps]."""
        outputs: list[Array] = []
        self.train(units, dpsgd, outputs.append)
        return np.array(outputs) @ self.directions.along

    def train(self, units: UnitRows, dpsgd: DpSgdPlan, observe: Callable[[Array], None]) -> None:
        """Train privately, and hand `observe` what the optimizer took in each step, over the clip norm: [values].

        `observe` ends the run by `Enough`.
        """
        taken: list[Array] = []
        with self._outputs(dpsgd, taken), suppress(Enough):
            train_privately(
                self.model,
                _Rows(units),
                replace(PLAN, dpsgd=dpsgd),
                SETTINGS,
                source=SystemRandomness(),
                checkpoints=None,
                resume_from=None,
                advance=lambda _: observe(taken.pop()),
            )

    @contextmanager
    def _outputs(self, dpsgd: DpSgdPlan, taken: list[Array]) -> Iterator[None]:
        """Within the context, append each gradient that the optimizer of the model took, as a noised sum."""
        parameters = list(self._parameters.values())
        before = np.zeros(sum(parameter.numel() for parameter in parameters))

        def read(optimizer: Optimizer, *_: Any) -> None:
            nonlocal before
            if optimizer.param_groups[0]["params"][0] is not parameters[0]:
                return  # the run monitor's replica
            decay = optimizer.param_groups[0]["betas"][0]
            moment = _flat([optimizer.state[parameter]["exp_avg"] for parameter in parameters])
            gradient, before = (moment - decay * before) / (1 - decay), moment
            taken.append(gradient * dpsgd.expected_batch_size / dpsgd.l2_clip_norm)

        hook = register_optimizer_step_post_hook(read)
        try:
            yield
        finally:
            hook.remove()

    def _directions(self) -> Directions:
        clip_norm, units = PLAN.dpsgd.l2_clip_norm, self.with_canary
        clipping = Clipping(clip_norm, SETTINGS.loss_normalizer, SETTINGS.tokens_per_micro_batch)
        sums = [clipped_sum(self.model, rows[:1], [unit], clipping)[0] for unit, rows in units.items()]
        canary, *ordinary = (_flat(list(gradients.values())) / clip_norm for gradients in sums)
        basis, _ = np.linalg.qr(np.stack([*ordinary, canary], axis=1), mode="complete")
        along = basis[:, len(ordinary)]
        shift = float(along @ canary)
        return Directions(along * np.sign(shift), abs(shift), basis[:, len(units) :].T)


@dataclass(frozen=True)
class _Rows:
    """Public units in the place of private ones."""

    units: UnitRows

    def open(self) -> UnitRows:
        return self.units

    def match_stored_rows(self, *_: object) -> bool:
        return True

    def note_continued(self, checkpoint: str) -> None:
        """Nothing is recorded."""


def _flat(tensors: Sequence[torch.Tensor]) -> Array:
    values: Array = torch.cat([tensor.detach().flatten().double() for tensor in tensors]).numpy()
    return values


def _verdict(wealth: Wealth, started: float) -> Verdict:
    samples = wealth.rejected_after or wealth.num_samples
    seconds = time.process_time() - started
    return Verdict(wealth.rejected_after is not None, samples, seconds, wealth.leading)


# Votes

CENTROIDS = np.eye(4, dtype=np.float32)
VOTES_PLAN = replace(small_plan(), votes=VotesPlan(num_bins=len(CENTROIDS), noise_stddev=1.0))
CORPUS, SNAPSHOT = "public", "1"
BINS_OF_ROWS = {CANARY: (0, 0), "ordinary-0": (1,), "ordinary-1": (1,)}  # the other bins are empty
EXACT_VOTES = np.array([1, 2, 0, 0], dtype=np.int64)


def audit_votes(*, significance: float, most_releases: int) -> Verdict:
    """Release votes of public units until the outputs reject the plan, or `most_releases` times."""
    started = time.process_time()
    fit = VotesFit(EXACT_VOTES, noise_stddev=VOTES_PLAN.votes.noise_stddev, significance=significance)
    while fit.wealth.rejected_after is None and fit.wealth.num_samples < most_releases:
        fit.observe(released_votes())
    return _verdict(fit.wealth, started)


def released_votes() -> npt.NDArray[np.int64]:
    """One release of the real mechanism, int64 of shape [num_bins]."""
    charge: Any = SimpleNamespace(corpus_id=CORPUS, snapshot=SNAPSHOT, cohort="all", mark_opened=lambda: None)
    bins, digest = Table(pl.LazyFrame()), digest_of(CENTROIDS)
    mechanism = NoisyVotes(VOTES_PLAN, _public_table(), bins, CENTROIDS, digest, embedder="any", key=b"key")
    table, _ = mechanism.run(charge)
    votes: npt.NDArray[np.int64] = table.collect()["noisy_votes"].to_numpy()
    return votes


def _public_table() -> PrivateTable:
    owned = [(unit_id, bin_id) for unit_id, bins in BINS_OF_ROWS.items() for bin_id in bins]
    rows = pl.LazyFrame(
        {
            "unit_id": [unit_id for unit_id, _ in owned],
            "instruction_id": [f"row-{number}" for number in range(len(owned))],
            "cohort": "all",
            "split": "train",
            "vector": CENTROIDS[[bin_id for _, bin_id in owned]],
        },
        schema_overrides={"vector": pl.Array(pl.Float32, len(CENTROIDS))},
    )
    return PrivateTable(rows, corpus_id=CORPUS, snapshot=SNAPSHOT, preparation="user-wise")
