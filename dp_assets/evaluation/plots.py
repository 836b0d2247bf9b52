"""Pictures of released figures: votes, training curves, embeddings, trade-off curve, epsilon over charges.

Figures are built with matplotlib's object interface and never through pyplot, so no global state is touched and no
window system is needed. Colours are those of Okabe and Ito, which people with the common kinds of colour blindness can
tell apart. A function draws what it is given; that it is released is the caller's duty.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Floats = npt.NDArray[np.floating[Any]]

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
SERIES_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
INK, QUIET, PALE = "#222222", "#6B6B6B", "#DDDDDD"

PNG_DPI = 144
INLINE_BYTES = 60_000
INLINE_DPIS = (110, 90, 72, 56, 40)
# More points than this hide each other and make a large picture without telling more.
MOST_MAP_POINTS = 4000


def votes_figure(
    noisy_shares: Floats, before_shares: Floats, after_shares: Floats, noise_share_stddev: float
) -> Figure:
    """The share of every bin in the noisy votes, and in the synthetic set before and after resampling.

    Args:
      noisy_shares: shares of the noisy votes, shape (num_bins,), largest bins are drawn first.
      before_shares: shares of the synthetic pool, shape (num_bins,).
      after_shares: shares of the resampled set, shape (num_bins,).
      noise_share_stddev: standard deviation of the noise on one bin, as a share of all votes.
    """
    figure, axes = _canvas(
        "Synthetic set against the noisy votes", "bins, largest share of the votes first", "share of rows"
    )
    order = np.argsort(-noisy_shares, kind="stable")
    votes, ranks = noisy_shares[order], np.arange(len(order))
    edges, size = np.arange(len(order) + 1) - 0.5, float(np.clip(1600 / len(order), 4, 40))
    low, high = np.maximum(votes - noise_share_stddev, 0), votes + noise_share_stddev
    axes.stairs(votes, edges, fill=True, color=PALE, label="noisy votes")
    axes.stairs(high, edges, baseline=low, fill=True, color=SKY, alpha=0.45, label="one standard deviation of noise")
    axes.scatter(ranks, before_shares[order], s=size, marker="D", color=ORANGE, linewidth=0, label="before resampling")
    axes.scatter(ranks, after_shares[order], s=size, color=BLUE, linewidth=0, label="after resampling")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_percent)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes, loc="upper right")
    return figure


def curve_figure(curve: Sequence[Mapping[str, float]], *, x: str, ys: Sequence[str], title: str) -> Figure:
    """Training curves, one panel for each of `ys` above a common axis `x`; points without a value are left out.

    Args:
      curve: one record a point, with the keys `x` and some of `ys`.
    """
    figure = Figure(figsize=(8, 1.2 + 2.0 * len(ys)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(ys), 1, sharex=True))
    for panel, name, colour in zip(panels, ys, _colours(len(ys)), strict=True):
        points = [(record[x], record[name]) for record in curve if record.get(name) is not None]
        marker = "o" if len(points) <= 40 else None
        panel.plot(*_columns(points), color=colour, linewidth=1.8, marker=marker, markersize=3.5)
        _dress(panel, ylabel=name.replace("_", " "))
        panel.margins(x=0.02, y=0.12)
    panels[-1].set_xlabel(x.replace("_", " "), color=QUIET)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=all(float(record[x]).is_integer() for record in curve)))
    _title(panels[0], title)
    return figure


def project_2d(vectors: Floats) -> Floats:
    """The two principal components of vectors (n, d), as float64 (n, 2).

    Sets that shall share a map are projected in one call. The sign of each axis is fixed, so that equal vectors give
    equal maps on every machine.

    Raises:
      ValueError: there are fewer than two rows or two dimensions.
    """
    if min(vectors.shape) < 2:
        raise ValueError("vectors need at least two rows and two dimensions to span a plane")
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    # The d x d scatter has the same right singular vectors as the n x d data and does not grow with the pool.
    axes = np.linalg.svd(centred.T @ centred, hermitian=True)[2][:2]
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[[0, 1], largest])[:, None]
    projected: Floats = centred @ axes.T
    return projected


def embedding_map_figure(pool_xy: Floats, filtered_xy: Floats, centroids_xy: Floats) -> Figure:
    """Maps of the pool and of the resampled set, each over the bins; inputs are (n, 2) from `project_2d`."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    panels = ((left, pool_xy, ORANGE, "Synthetic pool"), (right, filtered_xy, BLUE, "Resampled to the votes"))
    for panel, points, colour, title in panels:
        shown = points[:: max(1, -(-len(points) // MOST_MAP_POINTS))]
        panel.scatter(*shown.T, s=5, color=colour, alpha=0.35, linewidth=0)
        panel.scatter(*centroids_xy.T, s=16, marker="+", color=INK, linewidth=0.7)
        _dress(panel)
        panel.set(xticks=[], yticks=[], aspect="equal")
        _title(panel, f"{title}, {len(points):,} rows")
    figure.supxlabel("First two principal components; each cross is the centre of a bin", fontsize=9, color=QUIET)
    return figure


def tradeoff_figure(fpr: Floats, tpr: Floats, *, title: str, marked_fprs: Sequence[float] = (0.001, 0.01)) -> Figure:
    """What any membership attack can reach: its largest true-positive rate for each false-positive rate.

    Args:
      fpr: increasing false-positive rates, shape (n,); those that are 0 have no place on the logarithmic axis.
      tpr: the largest true-positive rate at each, shape (n,).
      title: names the mechanism or the privacy plan.
      marked_fprs: rates at which the value is written on the curve.
    """
    figure, axes = _canvas(title, "false-positive rate of the attack", "true-positive rate, at most")
    drawn = fpr > 0
    lowest = float(max(fpr[drawn].min(), min(marked_fprs) / 10))
    chance = np.geomspace(lowest, 1, 100)
    axes.fill_between(fpr[drawn], fpr[drawn], tpr[drawn], color=BLUE, alpha=0.12, linewidth=0)
    axes.plot(fpr[drawn], tpr[drawn], color=BLUE, linewidth=2, label="bound under the guarantee")
    axes.plot(chance, chance, color=QUIET, linewidth=1.2, linestyle="--", label="guessing")
    for rate in marked_fprs:
        reached = float(np.interp(rate, fpr, tpr))
        axes.plot([rate], [reached], "o", color=BLUE, markersize=5)
        note = f"{_as_percent(round(reached, 4))} at {_as_percent(rate)}"
        axes.annotate(note, (rate, reached), xytext=(-6, 8), textcoords="offset points", ha="right", color=INK)
    axes.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_formatter(_percent)
    _legend(axes, loc="upper left")
    return figure


def epsilon_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Epsilon spent by each cohort over its charges, with its budget as a dashed line.

    Args:
      rows: one record a charge with `cohort` (str), `charge` (its number within the cohort, from 1), `epsilon` (over
        this and all earlier charges of the cohort) and `budget` (the cohort's epsilon, constant).
    """
    figure, axes = _canvas("Epsilon spent, by cohort", "charge", "epsilon")
    cohorts = list(dict.fromkeys(str(row["cohort"]) for row in rows))
    for cohort, colour in zip(cohorts, _colours(len(cohorts)), strict=True):
        points = [(0, 0.0), *((row["charge"], row["epsilon"]) for row in rows if row["cohort"] == cohort)]
        axes.plot(*_columns(points), color=colour, linewidth=1.8, marker="o", markersize=5, label=cohort)
    budgets = sorted({row["budget"] for row in rows})
    for budget in budgets:
        holders = sorted({str(row["cohort"]) for row in rows if row["budget"] == budget})
        note = f"budget {budget:g}" + (f": {', '.join(holders)}" if len(budgets) > 1 else "")
        axes.axhline(budget, color=QUIET, linewidth=1.2, linestyle="--")
        axes.annotate(note, (0, budget), xytext=(0, 4), textcoords="offset points", color=QUIET, fontsize=9)
    axes.set_ylim(0, 1.12 * max((max(row["epsilon"], row["budget"]) for row in rows), default=1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if cohorts:
        _legend(axes, loc="lower right")
    return figure


def to_png(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file."""
    path.write_bytes(_png(figure, PNG_DPI))


def to_markdown_png(figure: Figure, alt: str) -> str:
    """The figure as Markdown with the PNG inline, at the finest resolution that keeps the text below 60 kB.

    Raises:
      ValueError: not even the coarsest resolution fits.
    """
    for dpi in INLINE_DPIS:
        image = f"![{html.escape(alt)}](data:image/png;base64,{base64.b64encode(_png(figure, dpi)).decode('ascii')})"
        if len(image) < INLINE_BYTES:
            return image
    raise ValueError("figure is too detailed to be shown inline; draw fewer points or a smaller figure")


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", pil_kwargs={"optimize": True})
    return buffer.getvalue()


def _canvas(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    _dress(axes, ylabel=ylabel)
    axes.set_xlabel(xlabel, color=QUIET)
    _title(axes, title)
    return figure, axes


def _dress(axes: Axes, ylabel: str = "") -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=QUIET, labelsize=9, length=3)
    axes.tick_params(which="both", color=PALE)
    axes.set_ylabel(ylabel, color=QUIET)


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold", pad=10)


def _legend(axes: Axes, **placement: Any) -> None:
    axes.legend(**placement, fontsize=9, frameon=False, labelcolor=INK)


def _colours(count: int) -> list[str]:
    return [SERIES_COLOURS[number % len(SERIES_COLOURS)] for number in range(count)]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _as_percent(value: float, _: float | None = None) -> str:
    return f"{100 * value:.4g}%"


_percent = FuncFormatter(_as_percent)
