"""What a plan will cost and whether it can work, computed before anything is spent.

Everything follows from public constants: the plans, the size of the adapter, and the owner's guess of the number of
units. No private row is read and nothing is charged. The guess must come from outside the data: a count of the rows
would be a release.

The suggestions are rules of thumb for the choices that cost no privacy when made beforehand:

    batch   as many units as the published recipe samples (4,096), at most a quarter of the corpus a step
    steps   ten passes over the corpus, fewer where a step would be mostly noise
    adapter as many parameters as keep the signal of a step above 0.3 of its noise
    bins    as many as keep the quotas within an expected total variation of 0.12 of the exact votes. More bins blur
            the votes, fewer distinguish texts less (docs/results/resampling.md)

Left out: learning rate and clip norm, which affect quality and not privacy, and quality itself, which only a run shows.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dp_assets.planning.expected_variation import expected_total_variation, most_bins
from dp_assets.privacy import accounting
from dp_assets.privacy.plan import PrivacyPlan, UnreachableTarget, calibrated
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.vocabulary import Rule

FALSE_POSITIVE_RATES = (0.001, 0.01)
LEAST_SIGNAL_TO_NOISE = 0.3
SMALLEST_ADAPTER = 4_000
"""About rank 1 on the query and value projections of the last two blocks of a model of 135 million parameters."""
USUAL_BATCH, LARGEST_SHARE = 4096, 0.25
PASSES = (10.0, 5.0, 2.5, 1.0)
FEWEST_VOTES = 5
"""The smallest mean number of votes per bin with two bins, in standard deviations of the noise."""
SUGGESTED_VARIATION, MOST_VARIATION = 0.12, 0.25
"""Expected total variation between quotas and exact votes: what is suggested, and the limit beyond which we warn."""
DEFAULT_RULE: Rule = "smoothed"
UNITS_A_DELTA = 10


@dataclass(frozen=True)
class LevelReport:
    """The cost of one level and the strength of its signal. Epsilons and rates are rounded up; None means unknown.

    group_epsilons      for the unit `instruction`, the epsilon of a person by the number of their instructions
    true_positive_rates an attacker's largest true-positive rate by false-positive rate
    expected_batch      in units
    error_per_bin       the expected absolute error, in votes
    expected_variation  the expected total variation between the quotas of the rule and the exact votes
    """

    plan: PrivacyPlan
    epsilon: float
    replace_one_epsilon: float
    group_epsilons: dict[int, float]
    true_positive_rates: dict[float, float]
    signal_to_noise: float | None
    expected_batch: float
    error_per_bin: float
    relative_error_per_bin: float | None
    expected_variation: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the plan's constants and every figure. An unbounded epsilon is null."""
        return self.plan.to_json() | {
            "epsilon": _json_number(self.epsilon),
            "replace_one_epsilon": _json_number(self.replace_one_epsilon),
            "group_epsilons": {str(size): _json_number(value) for size, value in self.group_epsilons.items()},
            "true_positive_rates": {f"{rate:g}": value for rate, value in self.true_positive_rates.items()},
            "signal_to_noise": None if self.signal_to_noise is None else _json_number(self.signal_to_noise),
            "expected_batch": self.expected_batch,
            "error_per_bin": self.error_per_bin,
            "relative_error_per_bin": self.relative_error_per_bin,
            "expected_variation": self.expected_variation,
        }


@dataclass(frozen=True)
class Suggestion:
    """Constants that suit a corpus of `num_units` units at the level's target. `too_small` names what does not fit."""

    level: str
    num_units: int
    sampling_probability: float
    expected_batch_size: int
    steps: int
    noise_multiplier: float
    most_parameters: int
    num_bins: int
    expected_variation: float
    too_small: tuple[str, ...]


def report_level(
    plan: PrivacyPlan, *, num_parameters: int | None, num_units: int | None, rule: Rule = DEFAULT_RULE
) -> LevelReport:
    """Return the report of one level, for an adapter of `num_parameters` and a corpus of about `num_units` units."""
    event, delta, noise = plan.event, plan.delta, plan.votes.noise_stddev
    expected_batch = plan.dpsgd.expected_batch_size if num_units is None else _expected_batch(plan, num_units)
    error = noise * math.sqrt(2 / math.pi)
    of_one_person = accounting.GROUP_SIZES if plan.unit is PrivacyUnit.INSTRUCTION else ()
    return LevelReport(
        plan=plan,
        epsilon=plan.epsilon,
        replace_one_epsilon=accounting.replace_one_epsilon(event, delta),
        group_epsilons={size: accounting.group_epsilon(event, delta, size) for size in of_one_person},
        true_positive_rates=accounting.trade_off(event, FALSE_POSITIVE_RATES),
        signal_to_noise=None if num_parameters is None else _signal_to_noise(plan, expected_batch, num_parameters),
        expected_batch=expected_batch,
        error_per_bin=error,
        relative_error_per_bin=None if num_units is None else error * plan.votes.num_bins / num_units,
        expected_variation=None if num_units is None else _variation(plan, plan.votes.num_bins, num_units, rule),
    )


def joint_epsilon(plans: Sequence[PrivacyPlan]) -> float:
    """Return the certified epsilon of these levels together on the same units, all fixed beforehand; 0 for none."""
    if len(plans) < 2:
        return sum(plan.epsilon for plan in plans)
    return accounting.epsilon(accounting.compose([plan.event for plan in plans]), max(plan.delta for plan in plans))


def suggest(plan: PrivacyPlan, *, num_units: int, num_parameters: int | None, rule: Rule = DEFAULT_RULE) -> Suggestion:
    """Suggest batch, steps, adapter and bins for the level of `plan` on a corpus of about `num_units` units.

    `num_parameters` is the size of the current adapter (None: unknown). The largest number of passes that allows such
    an adapter is chosen. If none does, it is the smallest number of passes, which allows the largest adapter.

    Raises:
      UnreachableTarget: the votes' noise alone exceeds the target.
      ValueError: `num_units` is not positive, or the level has no noise.
    """
    if num_units < 1 or not plan.is_private:
        raise ValueError("num_units must be at least 1, and the level one with noise")
    needed_parameters = SMALLEST_ADAPTER if num_parameters is None else num_parameters
    best, room = plan, -1
    for candidate in _schedules(plan, num_units):
        best, room = candidate, _most_parameters(candidate, num_units)
        if room >= needed_parameters:
            break
    num_bins = most_bins(
        num_units=num_units, noise_stddev=plan.votes.noise_stddev, rule=rule, total_variation=SUGGESTED_VARIATION
    )
    return Suggestion(
        level=plan.level,
        num_units=num_units,
        sampling_probability=best.dpsgd.sampling_probability,
        expected_batch_size=best.dpsgd.expected_batch_size,
        steps=best.dpsgd.steps,
        noise_multiplier=best.dpsgd.noise_multiplier,
        most_parameters=room,
        num_bins=num_bins,
        expected_variation=_variation(plan, num_bins, num_units, rule),
        too_small=tuple(_too_small(plan, num_units=num_units, most_parameters=room)),
    )


def _variation(plan: PrivacyPlan, num_bins: int, num_units: int, rule: Rule) -> float:
    return expected_total_variation(
        num_units=num_units, num_bins=num_bins, noise_stddev=plan.votes.noise_stddev, rule=rule
    )


def _schedules(plan: PrivacyPlan, num_units: int) -> Iterator[PrivacyPlan]:
    """Yield the plan with the usual batch for each number of passes that can meet the target, most passes first."""
    chance = min(LARGEST_SHARE, USUAL_BATCH / num_units)
    batch = max(1, round(chance * num_units))
    for passes in PASSES:
        steps = max(1, round(passes / chance))
        dpsgd = replace(plan.dpsgd, sampling_probability=chance, expected_batch_size=batch, steps=steps)
        with contextlib.suppress(UnreachableTarget):
            yield calibrated(replace(plan, dpsgd=dpsgd))


def _expected_batch(plan: PrivacyPlan, num_units: int) -> float:
    """Return the expected number of units in a step's batch."""
    return plan.dpsgd.sampling_probability * num_units


def _signal_to_noise(plan: PrivacyPlan, expected_batch: float, num_parameters: int) -> float:
    return accounting.signal_to_noise(
        expected_batch_size=expected_batch,
        noise_multiplier=plan.dpsgd.noise_multiplier,
        num_parameters=num_parameters,
    )


def _most_parameters(plan: PrivacyPlan, num_units: int) -> int:
    """Return the size of the largest adapter whose signal is at least `LEAST_SIGNAL_TO_NOISE` of a step's noise."""
    return int(_signal_to_noise(plan, _expected_batch(plan, num_units), 1) ** 2 / LEAST_SIGNAL_TO_NOISE**2)


def _too_small(plan: PrivacyPlan, *, num_units: int, most_parameters: int) -> list[str]:
    """Return the ways in which the corpus is too small for the level, with the number of units that would suffice."""
    reasons = []
    if most_parameters < SMALLEST_ADAPTER:
        reasons.append(
            f"{num_units} units are too few to train at {plan.level}: even in one pass a step is mostly noise for an"
            f" adapter of more than {most_parameters} parameters; collect more units, choose a larger level, or sample"
            " the public model without training"
        )
    needed = math.ceil(2 * FEWEST_VOTES * plan.votes.noise_stddev)
    if num_units < needed:
        reasons.append(
            f"{num_units} units are too few for votes with noise {plan.votes.noise_stddev:g}: two bins need {needed};"
            " lower votes.noise_stddev, or collect more units"
        )
    return reasons


def advice(
    reports: Sequence[LevelReport],
    *,
    budget_epsilon: float,
    num_units: int | None,
    num_parameters: int | None,
    rule: Rule = DEFAULT_RULE,
    suggestions: Sequence[Suggestion] = (),
) -> tuple[str, ...]:
    """Return what the owner should change before registering, one step a line; nothing if no change is needed.

    Args:
      reports: of all levels.
      budget_epsilon: the registered budget.
      num_units: the owner's guess; None if there is none.
      num_parameters: the size of the current adapter; None if unknown.
      rule: the resampling rule.
      suggestions: for a level that has one, the numbers are those of the suggestion.
    """
    suggested = {suggestion.level: suggestion for suggestion in suggestions}
    plans = [report.plan for report in reports if report.plan.is_private]
    lines = list(_about_the_budget(plans, budget_epsilon))
    for report in reports:
        if report.plan.is_private:
            lines += _about_a_signal(report, num_parameters, suggested.get(report.plan.level))
            lines += _about_a_person(report)
    if num_units is not None and plans:
        lines += _about_the_size(plans[0], num_units)
        lines += _about_the_bins(plans[0], num_units, rule)
    return tuple(lines)


def _about_the_budget(plans: Sequence[PrivacyPlan], budget_epsilon: float) -> list[str]:
    together = joint_epsilon(plans)
    if together <= budget_epsilon:
        return []
    return [
        f"together these levels cost epsilon {together:g}, more than the budget of {budget_epsilon:g}: plan fewer or"
        " smaller levels, or register a larger corpus.budget_epsilon"
    ]


def _about_a_signal(report: LevelReport, num_parameters: int | None, suggestion: Suggestion | None) -> list[str]:
    """Return the advice on a weak signal; nothing for a corpus that is too small, which its suggestion covers."""
    signal, size = report.signal_to_noise, num_parameters or 0
    if signal is None or signal >= LEAST_SIGNAL_TO_NOISE or (suggestion is not None and suggestion.too_small):
        return []
    room = int(size * (signal / LEAST_SIGNAL_TO_NOISE) ** 2)
    step = f"shrink the adapter to {room} parameters (generator.rank, target_modules or last_layers)"
    if suggestion is not None:
        room = suggestion.most_parameters
        shrunk = f", with an adapter of at most {room} parameters (generator.rank, target_modules or last_layers)"
        step = f"take the suggested sampling probability, batch and steps{shrunk if room < size else ''}"
    return [f"{report.plan.level}: a step's signal is at most {signal:.2f} of its noise: {step}"]


def _about_a_person(report: LevelReport) -> list[str]:
    if not report.group_epsilons:
        return []
    size, worst = max(report.group_epsilons.items())
    return [
        f"{report.plan.level} bounds one instruction: for a person who wrote {size} of them it means epsilon {worst:g};"
        " where rows name users, corpus.unit 'user' bounds the person"
    ]


def _about_the_size(plan: PrivacyPlan, num_units: int) -> list[str]:
    lines, batch = [], _expected_batch(plan, num_units)
    if plan.delta > 1 / (UNITS_A_DELTA * num_units):
        lines.append(
            f"delta {plan.delta:g} is large for {num_units} units: lower corpus.delta to"
            f" {1 / (UNITS_A_DELTA * num_units):.1g} or less"
        )
    if not 0.75 <= plan.dpsgd.expected_batch_size / batch <= 1.25:
        lines.append(
            f"a step draws {batch:.0f} units on average but divides by {plan.dpsgd.expected_batch_size}, which changes"
            f" the learning rate: set generator.expected_batch_size to {max(1, round(batch))}"
        )
    return lines


def _about_the_bins(plan: PrivacyPlan, num_units: int, rule: Rule) -> list[str]:
    votes, expected = plan.votes, _variation(plan, plan.votes.num_bins, num_units, rule)
    most = most_bins(
        num_units=num_units, noise_stddev=votes.noise_stddev, rule=rule, total_variation=SUGGESTED_VARIATION
    )
    if expected <= MOST_VARIATION or votes.num_bins <= most:
        return []
    return [
        f"noise of {votes.noise_stddev:g} on {votes.num_bins} bins will move {expected:.0%} of the quotas away from the"
        f" votes of {num_units} units: lower votes.num_bins to {most}"
    ]


def _json_number(value: float) -> float | None:
    return None if math.isinf(value) else value
