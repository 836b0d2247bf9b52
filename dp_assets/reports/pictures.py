"""Every picture of a release with its alternative text, for the Dagster UI and for the report.

Pictures are drawn from released data only: the data of the quality report, the record of an adapter, the facts of the
privacy statement, and the history of the ledger.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dp_assets.evaluation.agreement import total_variation
from dp_assets.evaluation.quality import COLUMN_TITLES, escape_markdown, excerpt, markdown_table, sets_of
from dp_assets.evaluation.synthetic_map import SyntheticMap
from dp_assets.reports.plot_style import DARK, LIGHT, Theme, as_percent, data_uri, to_markdown_png
from dp_assets.reports.plots import (
    CURVES,
    LOWEST_RATE,
    MARKED_RATES,
    agreement_figure,
    curve_figure,
    epsilon_figure,
    map_figure,
    shown_curves,
    tradeoff_figure,
    votes_figure,
)
from dp_assets.statements.figures import trade_off_curves
from dp_assets.statements.history import CohortHistory
from dp_assets.statements.pages import Picture

CURVE_POINTS = 81


@dataclass(frozen=True)
class Drawing:
    """A picture that can be drawn in any theme, and its alternative text."""

    draw: Callable[..., Figure]
    alt: str

    def figure(self, theme: Theme = LIGHT) -> Figure:
        """Draw the picture."""
        return self.draw(theme=theme)

    def markdown(self) -> str:
        """Return the picture inline, for a page with a light background."""
        return to_markdown_png(self.figure(), self.alt)

    def block(self) -> Picture:
        """Return the picture as a block of a page, light and dark."""
        return Picture(data_uri(self.figure(LIGHT)), data_uri(self.figure(DARK)), self.alt)


def agreement_drawing(report: Mapping[str, Any]) -> Drawing:
    """Draw the estimates in a quality report's data, for each of its sets."""
    sets = [{**report[name], "title": COLUMN_TITLES[name]} for name in sets_of(report)]
    distances = ", ".join(
        f"{each['title']} {each['estimated_total_variation']:.1%} and {each['estimated_frontier_score']:.2f}"
        for each in sets
    )
    alt = (
        "Estimated share of rows in another bin than the real rows, and estimated frontier score, by set, with"
        f" intervals: {distances}."
    )
    return Drawing(partial(agreement_figure, sets, sampling_floor=report["sampling_floor"]), alt)


def votes_drawing(report: Mapping[str, Any]) -> Drawing:
    """Draw the bins in a quality report's data."""
    bins = report["bins"]
    votes, before, after = (np.asarray(bins[name], dtype=np.float64) for name in ("votes", "before", "after"))
    alt = (
        f"Shares of {len(votes)} bins in the noisy votes, the synthetic pool and the filtered set. Against the votes,"
        f" {total_variation(before, votes):.1%} of the pool's rows lie in another bin, and"
        f" {total_variation(after, votes):.1%} after filtering."
    )
    return Drawing(partial(votes_figure, votes, before, after, bins["noise_share_stddev"]), alt)


def map_drawing(synthetic_map: SyntheticMap) -> Drawing:
    """Draw the map of pool and filtered set. A table lists its example texts by number (`noted_rows`)."""
    grown = sum(noted.grown for noted in synthetic_map.noted)
    alt = (
        "Two maps side by side, of the synthetic pool and of the filtered set: near points are texts of like meaning."
        f" {len(synthetic_map.noted)} bins carry a number, {grown} of which the votes asked for more of; a table lists"
        " them with an example text each."
    )
    return Drawing(partial(map_figure, synthetic_map), alt)


def map_markdown(synthetic_map: SyntheticMap) -> str:
    """Return the map with the table of its noted bins, whose texts are escaped."""
    header, *rows = noted_rows(synthetic_map)
    escaped = [(*row[:-1], escape_markdown(row[-1])) for row in rows]
    return f"{map_drawing(synthetic_map).markdown()}\n\n{markdown_table([header, *escaped])}\n"


def noted_rows(synthetic_map: SyntheticMap) -> list[tuple[str, ...]]:
    """Return the numbered bins of the map as a table with its header: the shares and an example text of each."""
    rows = [
        (
            f"{noted.number} ({'more' if noted.grown else 'less'})",
            *(f"{share:.1%}" for share in (noted.votes, noted.before, noted.after)),
            excerpt(noted.text),
        )
        for noted in synthetic_map.noted
    ]
    return [("bin", "votes", "pool", "filtered", "example"), *rows]


def training_drawing(title: str, curve: Sequence[Mapping[str, float]]) -> Drawing | None:
    """Draw the curves of a training; None if no curve has two points."""
    names = shown_curves(curve)
    if not names:
        return None
    changes = []
    for name in names:
        values = [point[name] for point in curve if point.get(name) is not None]
        changes.append(f"{CURVES[name]} from {values[0]:.3g} to {values[-1]:.3g}")
    alt = f"{title}, {len(curve)} steps: {'; '.join(changes)}."
    return Drawing(partial(curve_figure, curve, x="step", ys=names, title=title), alt)


def tradeoff_drawing(statement: Mapping[str, Any]) -> Drawing:
    """Draw the trade-off curves behind a privacy statement's figures."""
    rates = np.geomspace(LOWEST_RATE, 1, CURVE_POINTS)
    at = sorted({*rates.tolist(), *MARKED_RATES})
    curves = {name: np.asarray(values) for name, values in trade_off_curves(statement, at).items()}
    named = {"everything released for the cohort": curves["cohort"]}
    if not np.array_equal(curves["cohort"], curves["lineage"]):
        named["this release alone"] = curves["lineage"]
    reached = [
        f"{as_percent(round(float(np.interp(rate, at, curves['cohort'])), 4))} at {as_percent(rate)}"
        for rate in MARKED_RATES
    ]
    alt = (
        "The largest share of present people that an attacker can find, for each share of absent people wrongly"
        f" accused: at most {' and '.join(reached)}, where guessing finds as many as it accuses wrongly."
    )
    title = "What an attacker can tell about who took part"
    return Drawing(partial(tradeoff_figure, np.asarray(at), named, title=title), alt)


def epsilon_drawing(histories: Sequence[CohortHistory], *, own: str, budget: float) -> Drawing:
    """Draw the histories of a corpus's cohorts. `own` is the cohort that the picture is about."""
    ends = [f"{history.cohort} {history.spent[-1]:.4g}" for history in histories]
    alt = f"Epsilon spent by cohort, of a budget of {budget:g}: {', '.join(ends) or 'nothing yet'}."
    return Drawing(partial(epsilon_figure, histories, own=own, budget=budget), alt)
