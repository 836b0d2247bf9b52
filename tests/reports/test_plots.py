"""Every figure becomes a picture of some substance, inline ones stay small, and pyplot is never touched."""

import base64
import io
import subprocess
import sys
from collections.abc import Callable
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from dp_assets.evaluation.synthetic_map import NotedBin, SyntheticMap
from dp_assets.reports import plot_style, plots
from dp_assets.reports.plot_style import DARK, LIGHT, Theme
from dp_assets.statements.history import CohortHistory


def votes_figure(theme: Theme = LIGHT) -> Figure:
    generator = np.random.default_rng(0)
    before, votes, after = generator.dirichlet(np.full(200, 0.5), size=3)
    return plots.votes_figure(votes, before, after, 0.002, theme=theme)


def agreement_figure(theme: Theme = LIGHT) -> Figure:
    one = {"total_variation": 0.1}
    for key, value in (("total_variation", 0.2), ("frontier_score", 0.8)):
        one |= {f"estimated_{key}": value, f"estimated_{key}_low": value - 0.05, f"estimated_{key}_high": value + 0.05}
    titles = ("before", "after", "epsilon zero", "epsilon zero, filtered")
    return plots.agreement_figure([{**one, "title": title} for title in titles], sampling_floor=0.05, theme=theme)


def curve_figure(theme: Theme = LIGHT) -> Figure:
    curve = [{"step": step, "loss": 4 / (1 + step), **({"reward": step} if step % 2 else {})} for step in range(20)]
    return plots.curve_figure(curve, x="step", ys=["loss", "reward"], title="Training", theme=theme)


def map_figure(theme: Theme = LIGHT) -> Figure:
    xy = np.random.default_rng(0).normal(size=(9000, 2))
    noted = [NotedBin(n, n, (float(xy[n, 0]), float(xy[n, 1])), n / 20, 0.2, 0.2, "Why?") for n in range(1, 11)]
    return plots.map_figure(SyntheticMap(xy, xy[:500], tuple(noted)), theme=theme)


def tradeoff_figure(theme: Theme = LIGHT) -> Figure:
    fpr = np.geomspace(plots.LOWEST_RATE, 1, 200)
    curves = {"everything released for the cohort": np.sqrt(fpr), "this release alone": fpr**0.7}
    return plots.tradeoff_figure(fpr, curves, title="Trade-off", theme=theme)


def epsilon_figure(theme: Theme = LIGHT) -> Figure:
    histories = [
        CohortHistory(cohort, ["booked\n2026-11-24", "dp_generator\neps-8\n2026-11-25"], [0.0, spent], [6.0, 6.0])
        for cohort, spent in (("2024-Q1", 2.0), ("2024-Q2", 5.5))
    ]
    return plots.epsilon_figure(histories, own="2024-Q2", budget=8.0, theme=theme)


FIGURES = [agreement_figure, votes_figure, curve_figure, map_figure, tradeoff_figure, epsilon_figure]


def texts_of(figure: Figure) -> list[Text]:
    """Headline, titles, axis labels and notes of a figure, after it was laid out."""
    plot_style.png(figure, dpi=100)
    parts = [(*axes.texts, axes.xaxis.label, axes.title, axes._left_title) for axes in figure.axes]
    return [text for text in (*figure.texts, *chain(*parts)) if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("draw", FIGURES)
def test_no_text_is_cut_off_at_the_edge(draw: Callable[[], Figure]) -> None:
    figure = draw()
    texts, page = texts_of(figure), figure.bbox
    assert texts
    for text in texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
        assert page.y0 <= box.y0 <= box.y1 <= page.y1, text


@pytest.mark.parametrize("draw", FIGURES)
def test_no_two_headings_or_labels_cover_each_other(draw: Callable[[], Figure]) -> None:
    boxes = [(text, text.get_window_extent()) for text in texts_of(draw())]
    for (first, one), (second, other) in combinations(boxes, 2):
        assert not one.overlaps(other), (first, second)


@pytest.mark.parametrize("draw", FIGURES)
def test_a_dark_page_has_a_dark_ground_and_light_text(draw: Callable[..., Figure]) -> None:
    image = imread(io.BytesIO(plot_style.png(draw(theme=DARK), dpi=60)))[..., :3]
    assert np.median(image) < 0.2
    assert image.max() > 0.8


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_becomes_a_png_with_something_on_it(draw: Callable[[], Figure]) -> None:
    image = imread(io.BytesIO(plot_style.png(draw())))
    assert image.shape[1] > 1000
    assert image[..., :3].std() > 0.03


@pytest.mark.parametrize("draw", FIGURES)
def test_an_inline_figure_is_a_png_below_sixty_kilobytes(draw: Callable[[], Figure]) -> None:
    markdown = plot_style.to_markdown_png(draw(), 'votes of "all" <bins>')
    assert len(markdown) < 60_000
    assert markdown.startswith("![votes of &quot;all&quot; &lt;bins&gt;](data:image/png;base64,")
    image = imread(io.BytesIO(base64.b64decode(markdown.split("base64,")[1].removesuffix(")"))))
    assert image.shape[1] >= 400


def test_the_ledger_without_a_charge_has_a_figure_too() -> None:
    assert len(plot_style.png(plots.epsilon_figure([], own="all", budget=8.0))) > 2000


def test_a_cohort_that_nothing_bounds_any_more_is_drawn_up_to_there() -> None:
    closed = CohortHistory("all", ["booked", "dp_generator", "dp_generator"], [0.0, 5.0, np.inf], [8.0, 8.0, np.inf])
    figure = plots.epsilon_figure([closed], own="all", budget=8.0)
    assert "all: no bound" in [text.get_text() for text in texts_of(figure)]


def test_bins_are_drawn_from_the_largest_vote_down() -> None:
    figure = plots.votes_figure(np.array([0.1, 0.6, 0.3]), np.full(3, 1 / 3), np.array([0.2, 0.5, 0.3]), 0.01)
    points = figure.axes[1].collections[-1]
    np.testing.assert_allclose(np.asarray(points.get_offsets()), [[1, 0.5], [2, 0.3], [3, 0.2]])


def test_each_panel_says_how_far_its_set_lies_from_the_votes() -> None:
    figure = plots.votes_figure(np.array([0.1, 0.6, 0.3]), np.full(3, 1 / 3), np.array([0.2, 0.5, 0.3]), 0.01)
    assert ["26.7%" in figure.axes[0].get_title("left"), "10.0%" in figure.axes[1].get_title("left")] == [True, True]


def test_the_curve_is_marked_at_a_thousandth_and_a_hundredth_of_false_positives() -> None:
    labels = [text.get_text() for text in texts_of(tradeoff_figure())]
    assert "10% at 1%" in labels
    assert any(label.endswith("at 0.1%") for label in labels)


def test_curves_of_one_point_have_no_picture() -> None:
    curve = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "reward": 3.0}]
    assert plots.shown_curves(curve) == ["loss"]


def test_a_text_with_dollar_signs_is_drawn_as_it_stands() -> None:
    curve = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    figure = plots.curve_figure(curve, x="step", ys=["loss"], title="costs $x_1$ and $")
    assert len(plot_style.png(figure)) > 2000


def test_drawing_needs_no_pyplot_and_leaves_the_global_settings_alone() -> None:
    script = (
        "import sys, numpy as np, matplotlib; before = matplotlib.rcParams.copy()\n"
        "from dp_assets.reports import plot_style, plots\n"
        "figure = plots.votes_figure(*np.full((3, 4), 0.25), 0.1); plot_style.to_markdown_png(figure, 'x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules and before == matplotlib.rcParams.copy()"
    )
    root = Path(__file__).parents[2]
    finished = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
