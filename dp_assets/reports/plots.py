"""Pictures of released figures: votes, training curves, the map of the synthetic set, trade-off curve, epsilon spent.

A function draws what it is given; the caller must pass released data only. Labels are beside what they name, so no
legend of colors is needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from dp_assets.arrays import Floats
from dp_assets.evaluation.agreement import total_variation
from dp_assets.evaluation.synthetic_map import SyntheticMap
from dp_assets.reports.plot_style import (
    LIGHT,
    PERCENT,
    Theme,
    as_percent,
    dress,
    new_figure,
    note,
    rate_axis,
    series_colors,
    without_ticks,
)
from dp_assets.statements.history import CohortHistory

# The figures of a training curve that are drawn, if they exist, in this order. Others are in the record only.
CURVES = {
    "loss": "loss",
    "token_accuracy": "share of tokens predicted",
    "accuracy": "share of pairs ranked right",
    "reward": "mean reward",
    "kl": "KL to the SFT model",
    "answer_tokens": "tokens an answer",
    "distinct_1": "share of distinct words",
    "distinct_2": "share of distinct word pairs",
}
MOST_COLUMNS = 3
ROOM_FOR_VALUE = 0.26
"""The space to the right of a curve for its last value, as a share of its width."""
MARKED_RATES = (0.001, 0.01)
LOWEST_RATE = 1e-4
# More points than this hide each other and make the picture larger without showing more.
MOST_MAP_POINTS = 4000
NUMBER_SIZE, MOST_MOVES = 0.06, 100
SIDEWAYS = np.array([1.0, 0.0])
MOST_NAMED_COHORTS = 5
MOST_NAMED_CHARGES = 8


def agreement_figure(sets: Sequence[Mapping[str, Any]], *, sampling_floor: float, theme: Theme = LIGHT) -> Figure:
    """Draw how near each set is to the real rows: estimates with intervals, and the distance to the noisy votes.

    Args:
      sets: with `title`, and `estimated_total_variation`, `estimated_frontier_score`, their `_low` and `_high`, and
        `total_variation`; the first is drawn on top.
      sampling_floor: the total variation that random real rows would show.
      theme: the colors.
    """
    figure = new_figure(
        theme,
        height=1.7 + 0.5 * len(sets),
        title="How near each set comes to the real rows",
        subtitle="Dots: estimates over what the exact votes may have been; lines: intervals at 95 %.\n"
        "Crosses: the distance to the noisy votes as they are, which flatters what was resampled to them.",
    )
    left, right = figure.subplots(1, 2, sharey=True)
    panels = (
        (left, "estimated_total_variation", "in the wrong bin, lower is better"),
        (right, "estimated_frontier_score", "frontier score, higher is better"),
    )
    for axes, key, title in panels:
        dress(axes, theme, title=title)
        axes.grid(visible=False)
        for index, each in enumerate(sets):
            _estimate(axes, theme, each, key, len(sets) - 1 - index)
        axes.set_ylim(-0.6, len(sets) - 0.4)
        axes.set_xlim(left=0, right=1.12 * max(each[f"{key}_high"] for each in sets) or 1.0)
    left.axvline(sampling_floor, color=theme.quiet, linewidth=1.2, linestyle=(0, (4, 3)))
    left.set_xlabel("dashed: real rows at random, at equal size", color=theme.quiet, fontsize=9.5)
    left.set_yticks(range(len(sets)), [each["title"] for each in reversed(sets)])
    left.xaxis.set_major_formatter(PERCENT)
    return figure


def _estimate(axes: Axes, theme: Theme, figures: Mapping[str, Any], key: str, height: float) -> None:
    color = theme.series[0]
    axes.plot([figures[f"{key}_low"], figures[f"{key}_high"]], [height] * 2, color=color, linewidth=3, alpha=0.45)
    axes.plot([figures[key]], [height], "o", color=color, markersize=7)
    if key == "estimated_total_variation":
        axes.plot([figures["total_variation"]], [height], "x", color=theme.series[1], markersize=7, markeredgewidth=2)


def votes_figure(
    noisy_shares: Floats,
    before_shares: Floats,
    after_shares: Floats,
    noise_share_stddev: float,
    *,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw every bin's share of the noisy votes, against the pool in one panel and the filtered set in the other.

    Args:
      noisy_shares: shares of the noisy votes, shape (num_bins,). The largest bins are drawn first.
      before_shares: shares of the synthetic pool, shape (num_bins,).
      after_shares: shares of the resampled set, shape (num_bins,).
      noise_share_stddev: standard deviation of the noise on one bin, as a share of all votes.
      theme: the colors.
    """
    figure = new_figure(
        theme,
        height=5.4,
        title="Noisy votes of the real units against the synthetic set",
        subtitle="Grey: each bin's share of the votes, the lighter edge is one standard deviation of their noise.\n"
        "Dots: the bin's share of the synthetic rows; a line joins a dot to the votes.",
    )
    order = np.argsort(-noisy_shares, kind="stable")
    panels = np.atleast_1d(figure.subplots(2, 1, sharex=True, sharey=True))
    sets = (("Synthetic pool", before_shares, theme.series[1]), ("After filtering", after_shares, theme.series[0]))
    for axes, (name, shares, color) in zip(panels, sets, strict=True):
        title = f"{name}: {total_variation(shares, noisy_shares):.1%} of the rows lie in another bin than the votes"
        _votes_panel(axes, theme, noisy_shares[order], shares[order], noise_share_stddev, color)
        dress(axes, theme, title=title, color=color)
    panels[-1].set_xlabel("bins, largest share of the votes first", color=theme.quiet, fontsize=9.5)
    return figure


def _votes_panel(axes: Axes, theme: Theme, votes: Floats, shares: Floats, stddev: float, color: str) -> None:
    ranks, edges = np.arange(len(votes)) + 1, np.arange(len(votes) + 1) + 0.5
    low, high = np.maximum(votes - stddev, 0), votes + stddev
    axes.stairs(low, edges, fill=True, color=theme.area)
    axes.stairs(high, edges, baseline=low, fill=True, color=theme.area, alpha=0.5)
    axes.vlines(ranks, votes, shares, color=color, linewidth=1, alpha=0.6)
    axes.scatter(ranks, shares, s=float(np.clip(1800 / len(votes), 7, 40)), color=color, linewidth=0, zorder=3)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(PERCENT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def shown_curves(curve: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the figures of a training curve that are drawn: those of `CURVES` with values at two points or more."""
    return [name for name in CURVES if sum(point.get(name) is not None for point in curve) > 1]


def curve_figure(
    curve: Sequence[Mapping[str, float]], *, x: str, ys: Sequence[str], title: str, theme: Theme = LIGHT
) -> Figure:
    """Draw training curves, one panel for each of `ys` over an axis `x`. Points without a value are left out.

    Args:
      curve: one record a point, with the key `x` and some of `ys`.
      x: the key of the axis.
      ys: the keys of the curves.
      title: of the figure.
      theme: the colors.
    """
    rows = -(-len(ys) // MOST_COLUMNS)
    figure = new_figure(theme, height=0.7 + 2.3 * rows, title=title)
    panels = np.ravel(figure.subplots(rows, min(len(ys), MOST_COLUMNS), squeeze=False))
    for panel, name, color in zip(panels, ys, series_colors(theme, len(ys)), strict=False):
        _curve_panel(panel, theme, [(point[x], point[name]) for point in curve if point.get(name) is not None], color)
        dress(panel, theme, title=CURVES.get(name, name.replace("_", " ")), color=color, xlabel=x.replace("_", " "))
    for panel in panels[len(ys) :]:
        panel.set_axis_off()
    return figure


def _curve_panel(axes: Axes, theme: Theme, points: Sequence[tuple[float, float]], color: str) -> None:
    xs, values = _columns(points)
    axes.plot(xs, values, color=color, linewidth=1.8, marker="o" if len(points) <= 40 else None, markersize=3.5)
    axes.margins(x=0.04, y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=all(float(value).is_integer() for value in xs)))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    if points:
        axes.set_xlim(right=xs[-1] + ROOM_FOR_VALUE * max(1.0, xs[-1] - xs[0]))
        note(axes, theme, f"{values[-1]:.3g}", points[-1], offset=(6, 0), color=color, bold=True)


def map_figure(synthetic_map: SyntheticMap, *, theme: Theme = LIGHT) -> Figure:
    """Draw maps of the pool and of the filtered set, with numbers at the bins that changed most."""
    figure = new_figure(
        theme,
        height=5.2,
        title="Map of the synthetic set",
        subtitle="Each dot is a text; texts of like meaning lie near each other. Numbers stand on an example of the\n"
        "bins that changed most: filled where the votes asked for more of the bin, a ring where they asked for less.",
    )
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    panels = (
        (left, synthetic_map.pool_xy, theme.series[1], "Synthetic pool"),
        (right, synthetic_map.filtered_xy, theme.series[0], "After filtering"),
    )
    for panel, points, color, name in panels:
        dots = points[:: max(1, -(-len(points) // MOST_MAP_POINTS))]
        size = float(np.clip(6000 / max(1, len(dots)), 4, 18))
        panel.scatter(*synthetic_map.pool_xy.T, s=size, color=theme.grid, linewidth=0)
        panel.scatter(*dots.T, s=size, color=color, alpha=0.55, linewidth=0)
        dress(panel, theme, title=f"{name}: {len(points):,} rows", color=color)
        without_ticks(panel)
        for noted, position in zip(synthetic_map.noted, _apart(synthetic_map), strict=True):
            _bin_number(panel, theme, str(noted.number), position, grown=noted.grown)
    return figure


def _apart(synthetic_map: SyntheticMap) -> list[tuple[float, float]]:
    """Return the positions of the numbers, moved apart as little as needed so that they do not overlap."""
    everything = np.concatenate([synthetic_map.pool_xy, synthetic_map.filtered_xy])
    distance = NUMBER_SIZE * float(np.ptp(everything, axis=0).max())
    positions = np.array([noted.xy for noted in synthetic_map.noted], dtype=np.float64).reshape(-1, 2)
    for _ in range(MOST_MOVES):
        gaps = positions[:, None] - positions[None]
        lengths = np.linalg.norm(gaps, axis=2)
        close = (lengths < distance) & ~np.eye(len(positions), dtype=bool)
        if not close.any():
            break
        directions = np.where(lengths[..., None] > 0, gaps / np.maximum(lengths, 1e-9)[..., None], SIDEWAYS)
        positions += (directions * ((distance - lengths) / 2 * close)[..., None]).sum(axis=1)
    return [(float(x), float(y)) for x, y in positions]


def _bin_number(axes: Axes, theme: Theme, text: str, at: tuple[float, float], *, grown: bool) -> None:
    face, ink = (theme.ink, theme.ground) if grown else (theme.ground, theme.ink)
    axes.annotate(
        text,
        at,
        ha="center",
        va="center",
        color=ink,
        fontsize=8,
        fontweight="bold",
        bbox={"boxstyle": "circle,pad=0.25", "facecolor": face, "edgecolor": theme.ink, "linewidth": 0.9},
    )


def tradeoff_figure(fpr: Floats, curves: Mapping[str, Floats], *, title: str, theme: Theme = LIGHT) -> Figure:
    """Draw trade-off curves: the largest true-positive rate of any membership inference for each false-positive rate.

    Args:
      fpr: increasing false-positive rates, shape (n,). Rates of 0 are not on the logarithmic axis.
      curves: the largest true-positive rate at each, shape (n,), by name. The values of the first are written at
        `MARKED_RATES`.
      title: of the figure.
      theme: the colors.
    """
    figure = new_figure(
        theme,
        height=4.4,
        title=title,
        subtitle="The most units present that an attacker can find, for each share of absent ones wrongly accused.",
    )
    axes = figure.subplots()
    dress(axes, theme, xlabel="absent units wrongly accused (false positives)", title="present units found, at most")
    positive = fpr > 0
    lowest = float(fpr[positive].min())
    chance = np.geomspace(lowest, 1, 200)
    axes.plot(chance, chance, color=theme.quiet, linewidth=1.4, linestyle=(0, (4, 3)))
    note(axes, theme, "guessing", (0.2, 0.2), offset=(10, -9), color=theme.quiet)
    for (name, rates), color in zip(curves.items(), series_colors(theme, len(curves)), strict=True):
        axes.plot(fpr[positive], rates[positive], color=color, linewidth=2.2)
        is_first = name == next(iter(curves))
        _name_curve(axes, theme, name, fpr[positive], rates[positive], color, first=is_first)
        if is_first:
            _mark_rates(axes, theme, fpr, rates, color)
    axes.set_ylim(0, 1.04)
    rate_axis(axes, lowest)
    axes.yaxis.set_major_formatter(PERCENT)
    return figure


def _mark_rates(axes: Axes, theme: Theme, fpr: Floats, rates: Floats, color: str) -> None:
    for rate in MARKED_RATES:
        reached = float(np.interp(rate, fpr, rates))
        axes.plot([rate], [reached], "o", color=color, markersize=6)
        text = f"{as_percent(round(reached, 4))} at {as_percent(rate)}"
        if reached > 0.8:
            note(axes, theme, text, (rate, reached), offset=(4, -14), color=color, bold=True)
        else:
            note(axes, theme, text, (rate, reached), offset=(-8, 9), color=color, ha="right", bold=True)


def _name_curve(axes: Axes, theme: Theme, name: str, fpr: Floats, rates: Floats, color: str, *, first: bool) -> None:
    """Write the curve's name: above the first curve, and below the second, which is lower."""
    level, offset, ha = (0.62, (-10, 6), "right") if first else (0.3, (12, -8), "left")
    at = (float(np.interp(level, rates, fpr)), level) if rates[0] < level else (float(fpr[0]), float(rates[0]))
    note(axes, theme, name, at, offset=offset, color=color, ha=ha if rates[0] < level else "left")


def epsilon_figure(histories: Sequence[CohortHistory], *, own: str, budget: float, theme: Theme = LIGHT) -> Figure:
    """Draw the epsilon spent by each cohort, entry by entry of the ledger, with the budget as a dashed line.

    Args:
      histories: one for each cohort of a corpus.
      own: the cohort that the picture is about. Its charges are named; the other cohorts are drawn pale.
      budget: the corpus's epsilon.
      theme: the colors.
    """
    figure = new_figure(
        theme,
        height=4.6,
        title="Epsilon spent, by cohort",
        subtitle="Step by step, in the order of the ledger. Line: what ran so far. Shaded: with everything that was\n"
        "booked beforehand, which counts from then on whether or not it runs.",
    )
    axes = figure.subplots()
    dress(axes, theme, title=f"epsilon, of a budget of {budget:g}")
    axes.axhline(budget, color=theme.ink, linewidth=1.2, linestyle=(0, (4, 3)))
    others = [history for history in histories if history.cohort != own]
    for history in others:
        _draw_history(axes, history.spent, theme.quiet, 1.4)
    for history in (history for history in histories if history.cohort == own):
        _shade_history(axes, history.answered, theme.series[0])
        _draw_history(axes, history.spent, theme.series[0], 2.4)
    _name_histories(axes, theme, histories, own)
    highest = [budget, *(value for history in histories for value in history.answered if np.isfinite(value))]
    axes.set_ylim(0, 1.12 * max(highest))
    note(axes, theme, f"budget {budget:g}", (0, budget), offset=(2, 7), ha="left")
    return figure


def _stepped(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return steps and heights of a line that is constant between entries and for half a step after the last.

    An unbounded value ends the line.
    """
    bounded = [value if np.isfinite(value) else np.nan for value in values]
    return [*map(float, range(len(bounded))), len(bounded) - 0.5], [*bounded, *bounded[-1:]]


def _shade_history(axes: Axes, values: Sequence[float], color: str) -> None:
    axes.fill_between(*_stepped(values), step="post", color=color, alpha=0.14, linewidth=0)


def _draw_history(axes: Axes, values: Sequence[float], color: str, linewidth: float) -> None:
    steps, heights = _stepped(values)
    axes.step(steps, heights, where="post", color=color, linewidth=linewidth)
    axes.plot(steps[:-1], heights[:-1], "o", color=color, markersize=linewidth + 2)


def _name_histories(axes: Axes, theme: Theme, histories: Sequence[CohortHistory], own: str) -> None:
    last = max((len(history.spent) for history in histories), default=1) - 1
    axes.set_xlim(-0.25, last + 1.1)
    axes.xaxis.set_minor_locator(NullLocator())
    labels: Sequence[str] = ()
    for history in histories:
        is_own = history.cohort == own
        if is_own or len(histories) <= MOST_NAMED_COHORTS:
            bounded = [value for value in history.spent if np.isfinite(value)]
            end = (len(bounded) - 1, bounded[-1]) if bounded else (0, 0.0)
            color = theme.series[0] if is_own else theme.quiet
            spent = f"{end[1]:.4g}" if len(bounded) == len(history.spent) else "no bound"
            text = f"{history.cohort}: {spent}"
            note(axes, theme, text, end, offset=(9, -9), color=color, bold=is_own)
        labels = history.labels if is_own else labels
    ticks = range(len(labels)) if len(labels) <= MOST_NAMED_CHARGES else range(0, len(labels), -(-len(labels) // 6))
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.set_xticks(list(ticks), [labels[number] for number in ticks])


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]
