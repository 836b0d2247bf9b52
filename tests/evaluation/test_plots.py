"""Every figure becomes a picture of some substance, inline ones stay small, and pyplot is never touched."""

import base64
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from dp_assets.evaluation import plots


def votes_figure() -> Figure:
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.full(200, 0.5), size=3)
    return plots.votes_figure(*shares, noise_share_stddev=0.002)


def curve_figure() -> Figure:
    curve = [{"step": step, "loss": 4 / (1 + step), **({"reward": step} if step % 2 else {})} for step in range(20)]
    return plots.curve_figure(curve, x="step", ys=["loss", "reward"], title="Training")


def embedding_map_figure() -> Figure:
    xy = plots.project_2d(np.random.default_rng(0).normal(size=(9000, 6)).astype(np.float32))
    return plots.embedding_map_figure(xy, xy[:500], xy[:20])


def tradeoff_figure() -> Figure:
    fpr = np.linspace(0, 1, 200)
    return plots.tradeoff_figure(fpr, np.sqrt(fpr), title="Trade-off")


def epsilon_figure() -> Figure:
    rows = [{"cohort": cohort, "charge": 1, "epsilon": 2.0, "budget": 8.0} for cohort in ("2024-Q1", "2024-Q2")]
    return plots.epsilon_figure(rows)


FIGURES = [votes_figure, curve_figure, embedding_map_figure, tradeoff_figure, epsilon_figure]


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_becomes_a_png_with_something_on_it(draw: Callable[[], Figure], tmp_path: Path) -> None:
    plots.to_png(draw(), tmp_path / "figure.png")
    image = imread(tmp_path / "figure.png")
    assert image.shape[1] > 1000
    assert image[..., :3].std() > 0.03


@pytest.mark.parametrize("draw", FIGURES)
def test_an_inline_figure_is_a_png_below_sixty_kilobytes(draw: Callable[[], Figure]) -> None:
    markdown = plots.to_markdown_png(draw(), 'votes of "all" <bins>')
    assert len(markdown) < 60_000
    assert markdown.startswith("![votes of &quot;all&quot; &lt;bins&gt;](data:image/png;base64,")
    image = imread(io.BytesIO(base64.b64decode(markdown.split("base64,")[1].removesuffix(")"))))
    assert image.shape[1] >= 400


def test_the_ledger_without_a_charge_has_a_figure_too(tmp_path: Path) -> None:
    plots.to_png(plots.epsilon_figure([]), tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 2000


def test_bins_are_drawn_from_the_largest_vote_down() -> None:
    figure = plots.votes_figure(np.array([0.1, 0.6, 0.3]), np.full(3, 1 / 3), np.array([0.2, 0.5, 0.3]), 0.01)
    _, after = figure.axes[0].collections
    np.testing.assert_allclose(np.asarray(after.get_offsets())[:, 1], [0.5, 0.3, 0.2])


def test_projection_keeps_the_two_directions_of_largest_variance() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(400, 5)) * np.array([0.1, 5.0, 0.1, 2.0, 0.1]) + 7
    xy = plots.project_2d(vectors)
    np.testing.assert_allclose(np.abs(np.corrcoef(xy[:, 0], vectors[:, 1])[0, 1]), 1, atol=1e-2)
    np.testing.assert_allclose(np.abs(np.corrcoef(xy[:, 1], vectors[:, 3])[0, 1]), 1, atol=1e-2)
    np.testing.assert_allclose(xy.mean(axis=0), 0, atol=1e-9)


def test_projection_does_not_depend_on_where_the_vectors_lie_or_their_order() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 5))
    np.testing.assert_allclose(plots.project_2d(vectors + 3)[::-1], plots.project_2d(vectors[::-1]), atol=1e-9)


def test_one_vector_spans_no_plane() -> None:
    with pytest.raises(ValueError, match="two rows"):
        plots.project_2d(np.ones((1, 5)))


def test_drawing_needs_no_pyplot_and_leaves_the_global_settings_alone() -> None:
    script = (
        "import sys, numpy as np, matplotlib; before = matplotlib.rcParams.copy()\n"
        "from dp_assets.evaluation import plots\n"
        "figure = plots.votes_figure(*np.full((3, 4), 0.25), 0.1); plots.to_markdown_png(figure, 'x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules and before == matplotlib.rcParams.copy()"
    )
    root = Path(__file__).parents[2]
    finished = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
