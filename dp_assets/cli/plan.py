"""`dp-instructions plan`: the cost of each level, and whether it can work, before anything is spent.

It reads the profile and the public configuration of the language model. It reads no private row and writes nothing, so
the corpus need not be registered, nor even exist. The number of units is the owner's public guess.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from dp_assets.cli._adapter import Speed, measure_speed, num_adapter_parameters
from dp_assets.cli._console import AsJson, out, print_json, refusals
from dp_assets.cli._tables import print_table
from dp_assets.planning import planner
from dp_assets.planning.planner import LevelReport, Suggestion
from dp_assets.privacy.accounting import round_up
from dp_assets.privacy.plan import target_of
from dp_assets.settings.named import selected_profile
from dp_assets.settings.profile import Profile

SECONDS_AN_HOUR = 3600


def check_levels(levels: list[str] | None) -> list[str] | None:
    """Return the levels given on the command line; refuse invalid ones as wrong usage."""
    try:
        for level in levels or ():
            target_of(level)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return levels


@dataclass(frozen=True)
class Planned:
    """Everything that the command prints. `num_units` counts units of the training split; None if unknown."""

    reports: tuple[LevelReport, ...]
    joint_epsilon: float
    budget_epsilon: float
    num_parameters: int | None
    why_unknown: str | None
    num_units: int | None
    suggestions: tuple[Suggestion, ...]
    speed: Speed | None
    advice: tuple[str, ...]

    def hours(self, report: LevelReport) -> float | None:
        """Return the hours of one level's training on this machine if every row had the greatest length."""
        if self.speed is None:
            return None
        seconds = self.speed.seconds(steps=report.plan.dpsgd.steps, expected_batch=report.expected_batch)
        return seconds / SECONDS_AN_HOUR

    def to_json(self) -> dict[str, Any]:
        """Return one JSON value for scripts."""
        return {
            "levels": [report.to_json() | {"hours": self.hours(report)} for report in self.reports],
            "joint_epsilon": self.joint_epsilon,
            "budget_epsilon": self.budget_epsilon,
            "num_parameters": self.num_parameters,
            "num_units": self.num_units,
            "suggestions": [asdict(suggestion) for suggestion in self.suggestions],
            "tokens_per_second": None if self.speed is None else self.speed.tokens_per_second,
            "advice": list(self.advice),
        }


@refusals
def plan(
    levels: Annotated[
        list[str] | None, typer.Argument(callback=check_levels, help="Such as eps-8; default: the planned ones.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(min=1, help="Your public guess of the units in a cohort; never counted from rows.")
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="Load the model and time a step of public rows here.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what each level costs and whether it can work, before anything is spent. Reads no private data."""
    profile = selected_profile()
    planned = _planned(profile, levels or list(profile.corpus.planned_levels), units=units, time=time)
    if as_json:
        print_json(planned.to_json())
        return
    _print_plans(planned)
    _print_meaning(planned)
    _print_groups(planned.reports)
    _print_suggestions(planned)
    _print_lines(planned)


def _planned(profile: Profile, levels: Sequence[str], *, units: int | None, time: bool) -> Planned:
    plans = [profile.plan(level) for level in levels]
    num_units = None if units is None else max(1, int(units * profile.corpus.train_fraction))
    num_parameters, why_unknown = _adapter_size(profile)
    rule = profile.selection.rule
    reports = tuple(
        planner.report_level(level_plan, num_parameters=num_parameters, num_units=num_units, rule=rule)
        for level_plan in plans
    )
    private, budget = [level_plan for level_plan in plans if level_plan.is_private], profile.corpus.budget_epsilon
    suggestions = tuple(
        planner.suggest(level_plan, num_units=num_units, num_parameters=num_parameters, rule=rule)
        for level_plan in private
        if num_units is not None
    )
    return Planned(
        reports=reports,
        joint_epsilon=planner.joint_epsilon(private),
        budget_epsilon=budget,
        num_parameters=num_parameters,
        why_unknown=why_unknown,
        num_units=num_units,
        suggestions=suggestions,
        speed=measure_speed(profile) if time else None,
        advice=planner.advice(
            reports,
            budget_epsilon=budget,
            num_units=num_units,
            num_parameters=num_parameters,
            rule=rule,
            suggestions=suggestions,
        ),
    )


def _adapter_size(profile: Profile) -> tuple[int | None, str | None]:
    """Return the number of trained parameters, or the reason why it is unknown."""
    try:
        return num_adapter_parameters(profile), None
    except ValueError as error:
        return None, str(error)


def _print_plans(planned: Planned) -> None:
    columns = ("level", "epsilon", "delta", "noise multiplier", "histogram noise", "steps", "batch")
    rows = [
        (
            report.plan.level,
            f"{report.epsilon:.4f}",
            f"{report.plan.delta:g}",
            f"{report.plan.dpsgd.noise_multiplier:.4f}",
            f"{report.plan.votes.noise_stddev:g}",
            f"{report.plan.dpsgd.steps} + {report.plan.dpsgd.spare_steps} spare",
            f"{report.expected_batch:.0f} expected",
        )
        for report in planned.reports
    ]
    print_table(out, columns, rows, title="plans")


def _print_meaning(planned: Planned) -> None:
    columns = (
        "level",
        "epsilon, one replaced",
        *(f"found at {rate:.1%} wrong" for rate in planner.FALSE_POSITIVE_RATES),
        "signal / noise",
        "error per bin",
        "of a mean bin",
        "quotas off by",
        *(("hours here, at most",) if planned.speed else ()),
    )
    rows = [
        (
            report.plan.level,
            f"{report.replace_one_epsilon:.4f}",
            *(f"{round_up(rate, 4):.2%}" for rate in report.true_positive_rates.values()),
            _or_unknown(report.signal_to_noise, ".2f"),
            f"{report.error_per_bin:.1f} votes",
            _or_unknown(report.relative_error_per_bin, ".0%"),
            _or_unknown(report.expected_variation, ".0%"),
            *(() if (hours := planned.hours(report)) is None else (f"{hours:.2f}",)),
        )
        for report in planned.reports
    ]
    print_table(out, columns, rows, title="what they mean")


def _or_unknown(value: float | None, form: str) -> str:
    return "unknown" if value is None else f"{value:{form}}"


def _print_groups(reports: Sequence[LevelReport]) -> None:
    """Print epsilons of groups. There are none where a person owns one unit only."""
    sizes = [size for report in reports[:1] for size in report.group_epsilons]
    if not sizes:
        return
    rows = [(one.plan.level, *(f"{value:.4f}" for value in one.group_epsilons.values())) for one in reports]
    columns = ("level", *(str(size) for size in sizes))
    print_table(out, columns, rows, title="epsilon of a person by number of instructions")


def _print_suggestions(planned: Planned) -> None:
    if not planned.suggestions:
        return
    columns = (
        "level",
        "sampling probability",
        "batch",
        "steps",
        "noise multiplier",
        "parameters, at most",
        "bins",
        "off by",
    )
    rows = [
        (
            suggestion.level,
            f"{suggestion.sampling_probability:.4g}",
            f"{suggestion.expected_batch_size}",
            f"{suggestion.steps}",
            f"{suggestion.noise_multiplier:.4f}",
            f"{suggestion.most_parameters}",
            f"{suggestion.num_bins}",
            f"{suggestion.expected_variation:.0%}",
        )
        for suggestion in planned.suggestions
    ]
    print_table(out, columns, rows, title=f"suggested for about {planned.num_units} units to train on")


def _print_lines(planned: Planned) -> None:
    together = f"all of them together: epsilon {planned.joint_epsilon:g} of a budget of {planned.budget_epsilon:g}"
    adapter = f"adapter: {planned.num_parameters} parameters"
    if planned.num_parameters is None:
        adapter = f"adapter: size unknown, and so is the signal of a step: {planned.why_unknown}"
    lines = [together, adapter]
    if planned.speed is not None:
        lines.append(f"speed here: {planned.speed.tokens_per_second:.0f} tokens a second, without drawing the noise")
    for line in lines:
        out.print(escape(line))
    for reason in (reason for suggestion in planned.suggestions for reason in suggestion.too_small):
        out.print(f"[bold red]too small[/]: {escape(reason)}")
    for sentence in planned.advice:
        out.print(f"[yellow]advice[/]: {escape(sentence)}")
