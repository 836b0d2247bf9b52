"""White-box audits of private training and votes: the samples to find each fault, and lower bounds on epsilon.

    python -m benchmarks.audit_white_box [--repeats 3] [--pairs 5000] [--runs 1000]

Faults: the audits of `tests/audit` at significance 1e-4, each fault planted `--repeats` times, and the code as it is.
Samples are noisy steps of private training, or releases of votes.

Lower bounds: private training of the tiny model with and without a canary, with noise calibrated to an epsilon at delta
1e-5, for single steps (`--pairs` of each) and for runs of ten steps (`--runs` of each). The canary is sampled with
probability 0.25, and always. The score of a run is the log likelihood ratio of the plan, summed over its steps. The
first quarter of the scores chooses thresholds, the others give the bounds, at confidence 95 %:

    sequential          `epsilon_lower_bound`, valid whenever sampling stops; knows nothing of the plan
    Clopper-Pearson     from one threshold and both error rates; knows nothing of the plan either
    family of the plan  the same error rates against the certified trade-off curves of the plan with other noise: the
                        largest noise that allows them, and its epsilon (as in Nasr et al., arXiv 2302.07956)

The last is a bound for code that follows its plan except for the noise multiplier, and not for any mechanism. Writes a
page beside the JSON.
"""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from dp_accounting import DpEvent
from scipy import stats
from scipy.optimize import brentq

from benchmarks.harness import options, store
from dp_assets.audit.sequential import PlannedStep, epsilon_lower_bound
from dp_assets.privacy import accounting
from dp_assets.privacy.events import dpsgd_event
from dp_assets.privacy.plan import DpSgdPlan
from tests.audit.faults import TRAINING_FAULTS, VOTES_FAULTS, Plant
from tests.audit.white_box import ORDINARY_UNITS, PLAN, UnitRows, Verdict, WhiteBox, audit_votes
from tests.conftest import save_tiny_model

Array = npt.NDArray[np.float64]

LEVEL = 1e-4
MOST_STEPS, MOST_RELEASES = 2_000, 400
STEPS_AS_IT_IS, RELEASES_AS_IT_IS = 1_000, 200
DELTA, CONFIDENCE = 1e-5, 0.95
CLAIMED, TEN = (1.0, 8.0), 10
SAMPLED = (0.25, 1.0)
CHOSEN_FROM, THRESHOLDS = 1 / 4, 24
LEAST_NOISE, MOST_NOISE = 0.3, 20.0
OF_FAMILY = 0.5, 20.0  # times the planned noise
STEPS_A_RUN = 1_000  # of training, which holds many runs of one step or of ten


@dataclass(frozen=True)
class Found:
    """What the audits of one fault, or of the code as it is, said."""

    rejected: int
    audits: int
    median_samples: float
    most_samples: int
    median_seconds: float
    bet: str


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on epsilon against a claim at `DELTA`, at `CONFIDENCE`."""

    claimed: float
    steps: int
    sampling_probability: float
    noise_multiplier: float
    pairs: int
    seconds: float
    sequential: float
    clopper_pearson: float
    family_of_the_plan: float


# Faults


def found(audit: Callable[[], Verdict], plant: Plant | None, *, repeats: int) -> Found:
    """Plant a fault and audit its outputs, several times."""
    with pytest.MonkeyPatch.context() as patch:
        if plant is not None:
            plant(patch)
        verdicts = [audit() for _ in range(repeats)]
    samples = [verdict.samples for verdict in verdicts]
    leading = [verdict.leading for verdict in verdicts]
    return Found(
        rejected=sum(verdict.is_rejected for verdict in verdicts),
        audits=repeats,
        median_samples=float(np.median(samples)),
        most_samples=max(samples),
        median_seconds=round(float(np.median([verdict.seconds for verdict in verdicts])), 2),
        bet=max(set(leading), key=leading.count),
    )


def faults(folder: Path, *, repeats: int) -> dict[str, Found]:
    white_box = WhiteBox(folder, ORDINARY_UNITS)

    training = partial(white_box.audit, significance=LEVEL)
    of_training = partial(training, most_steps=MOST_STEPS)
    of_votes = partial(audit_votes, significance=LEVEL, most_releases=MOST_RELEASES)
    return {
        "training as it is": found(partial(training, most_steps=STEPS_AS_IT_IS), None, repeats=1),
        **{name: found(of_training, plant, repeats=repeats) for name, plant in TRAINING_FAULTS.items()},
        "votes as they are": found(
            partial(audit_votes, significance=LEVEL, most_releases=RELEASES_AS_IT_IS), None, repeats=1
        ),
        **{name: found(of_votes, plant, repeats=repeats) for name, plant in VOTES_FAULTS.items()},
    }


# Lower bounds


@dataclass(frozen=True)
class Sampling:
    """Runs of so many steps, in each of which the canary is sampled with this probability."""

    probability: float
    steps: int

    def epsilon(self, noise_multiplier: float) -> float:
        return accounting.epsilon(self._event(noise_multiplier), DELTA)

    def most_true_positives(self, noise_multiplier: float, false_positives: float) -> float:
        return accounting.trade_off(self._event(noise_multiplier), [false_positives])[false_positives]

    def noise_for(self, epsilon: float) -> float:
        """The noise multiplier that is calibrated to this epsilon, rounded up."""
        root = brentq(lambda noise: self.epsilon(noise) - epsilon, LEAST_NOISE, MOST_NOISE, xtol=1e-5)
        return accounting.round_up(float(root), 4)

    def _event(self, noise_multiplier: float) -> DpEvent:
        return dpsgd_event(sampling_probability=self.probability, noise_multiplier=noise_multiplier, steps=self.steps)


def scores(white_box: WhiteBox, units: UnitRows, dpsgd: DpSgdPlan, *, steps: int, runs: int) -> Array:
    """The score of each of so many runs of `steps` steps."""
    planned = PlannedStep(dpsgd.sampling_probability, dpsgd.noise_multiplier, white_box.directions.shift)
    outputs = np.zeros(0)
    while len(outputs) < runs * steps:
        of_training = replace(dpsgd, steps=min(STEPS_A_RUN, runs * steps - len(outputs)))
        outputs = np.concatenate([outputs, white_box.along(units, of_training)])
    of_runs: Array = planned.log_likelihood_ratio(outputs).reshape(runs, steps).sum(axis=1)
    return of_runs


def error_rates(with_canary: Array, without_canary: Array, threshold: float) -> tuple[float, float]:
    """Bounds of false and of true positives at a threshold that hold together at `CONFIDENCE` (Clopper-Pearson)."""
    side = (1 - CONFIDENCE) / 2
    false, true = int((without_canary >= threshold).sum()), int((with_canary >= threshold).sum())
    most_false = stats.beta.isf(side, false + 1, len(without_canary) - false) if false < len(without_canary) else 1.0
    least_true = stats.beta.ppf(side, true, len(with_canary) - true + 1) if true else 0.0
    return float(most_false), float(least_true)


def of_rates(false_positives: float, true_positives: float) -> float:
    return max(0.0, math.log(max(true_positives - DELTA, 1e-300) / false_positives))


def separation(false_positives: float, true_positives: float) -> float:
    """How far apart two Gaussians with these error rates are; only to choose a threshold by."""
    return float(stats.norm.ppf(true_positives) - stats.norm.ppf(false_positives))


def of_family(false_positives: float, true_positives: float, planned: float, sampling: Sampling) -> float:
    """The epsilon of the plan with the most noise that allows these error rates; 0 if the most noise tried does."""
    least, most = (planned * factor for factor in OF_FAMILY)

    def room(noise_multiplier: float) -> float:
        return sampling.most_true_positives(noise_multiplier, false_positives) - true_positives

    if room(most) >= 0:
        return 0.0
    precision = 1e-3 * planned
    largest = least if room(least) < 0 else float(brentq(room, least, most, xtol=precision)) + precision
    return sampling.epsilon(largest)


def bounds(white_box: WhiteBox, claimed: float, sampling: Sampling, *, runs: int) -> Bounds:
    started = time.process_time()
    noise_multiplier = sampling.noise_for(claimed)
    dpsgd = replace(PLAN.dpsgd, sampling_probability=sampling.probability, noise_multiplier=noise_multiplier)
    sides = [
        scores(white_box, units, dpsgd, steps=sampling.steps, runs=runs)
        for units in (white_box.with_canary, white_box.without_canary)
    ]
    chosen = round(CHOSEN_FROM * runs)
    (first_with, with_canary), (first_without, without_canary) = ((side[:chosen], side[chosen:]) for side in sides)
    thresholds = np.quantile(np.concatenate([first_with, first_without]), np.linspace(0.02, 0.998, THRESHOLDS))
    rates = {threshold: error_rates(first_with, first_without, threshold) for threshold in thresholds.tolist()}
    by_ratio = max(rates, key=lambda threshold: of_rates(*rates[threshold]))
    by_separation = max(rates, key=lambda threshold: separation(*rates[threshold]))
    sequential = epsilon_lower_bound(
        with_canary, without_canary, delta=DELTA, thresholds=thresholds, significance=1 - CONFIDENCE
    )
    of_both = error_rates(with_canary, without_canary, by_separation)
    return Bounds(
        claimed=claimed,
        steps=sampling.steps,
        sampling_probability=sampling.probability,
        noise_multiplier=noise_multiplier,
        pairs=runs,
        sequential=round(sequential, 2),
        clopper_pearson=round(of_rates(*error_rates(with_canary, without_canary, by_ratio)), 2),
        family_of_the_plan=round(of_family(*of_both, noise_multiplier, sampling), 2),
        seconds=round(time.process_time() - started, 1),
    )


# The page


def page(of_faults: dict[str, Found], of_bounds: list[Bounds]) -> str:
    """The results as Markdown tables."""
    rows = [
        f"| {name} | {each.rejected} of {each.audits} | {each.median_samples:g} | {each.most_samples} |"
        f" {each.median_seconds:g} | {each.bet if each.rejected else ''} |"
        for name, each in of_faults.items()
    ]
    bound_rows = [
        f"| {each.claimed:g} | {each.steps} | {each.sampling_probability:g} | {each.noise_multiplier:g} |"
        f" {each.pairs:,} | {each.sequential:g} | {each.clopper_pearson:g} | {each.family_of_the_plan:g} |"
        f" {each.seconds:g} |"
        for each in of_bounds
    ]
    tightest = [f"- {_tightest(of_bounds, claimed, steps)}" for claimed in CLAIMED for steps in (1, TEN)]
    return PAGE.format(faults="\n".join(rows), bounds="\n".join(bound_rows), tightest="\n".join(tightest))


def _tightest(of_bounds: list[Bounds], claimed: float, steps: int) -> str:
    these = [each for each in of_bounds if (each.claimed, each.steps) == (claimed, steps)]
    free = max(max(each.sequential, each.clopper_pearson) for each in these)
    family = max(each.family_of_the_plan for each in these)
    return (
        f"Claim {claimed:g}, {'one step' if steps == 1 else 'ten steps'}: {free:g} without an assumption,"
        f" {family:g} within the family of the plan."
    )


PAGE = """# White-box audits of private training and votes

    python -m benchmarks.audit_white_box

The benchmark writes this page and [audit_white_box.json](audit_white_box.json), which has versions and hardware.

## Faults

Real private training and real votes run on public rows, and a test looks at their outputs only, never at the evidence
of the run. The test is sequential (`dp_assets/audit/sequential.py`): it may stop after any sample, and it rejects code
that follows its plan with probability at most 1e-4. A sample is one noisy step of training or one release of votes.
Seconds are those of one processor core, and include the start of each run of 50 steps. `tests/audit/test_white_box.py`
runs the same audits.

| code | rejected | samples (median) | most | seconds (median) | bet that won most |
| --- | ---: | ---: | ---: | ---: | --- |
{faults}

## Lower bounds on epsilon

Private training runs with and without a canary whose gradient is a fixed direction. The noise is calibrated to the
claim at delta 1e-5. Each bound holds with confidence 95 %.

| claimed | steps | sampled | noise multiplier | runs of each | sequential | Clopper-Pearson | family | seconds |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{bounds}

*Sampled* is the sampling probability, and *family* the bound within the family of the plan. The tightest bounds:

{tightest}

The first two bounds assume nothing about the outputs. From n runs they can show at most about log(n), and less where
the canary is seldom sampled. The last bound assumes that the outputs follow the plan except for the noise multiplier.
How near it comes to the claim shows how much of the account such a canary uses up.
"""


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--pairs", type=int, default=5_000, help="single steps, with the canary and without")
    parser.add_argument("--runs", type=int, default=1_000, help="runs of ten steps, with the canary and without")
    parser.set_defaults(repeats=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = save_tiny_model(Path(folder))
        of_faults = faults(model, repeats=given.repeats)
        alone = WhiteBox(model, {})
        of_bounds = [
            bounds(alone, claimed, Sampling(probability, steps), runs=runs)
            for claimed, probability in product(CLAIMED, SAMPLED)
            for steps, runs in ((1, given.pairs), (TEN, given.runs))
        ]
    results = {"faults": of_faults, "bounds": [asdict(each) for each in of_bounds]}
    path = store("audit_white_box", results, given)
    path.with_suffix(".md").write_text(page(of_faults, of_bounds))


if __name__ == "__main__":
    main()
