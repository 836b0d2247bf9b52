"""The style of pictures: two themes, the style of axes, and figures as PNG files or inline in Markdown.

Figures are built with matplotlib's object interface and never through pyplot, so no global state changes and no window
system is needed. The colors of light pages are those of Okabe and Ito; those of dark pages are lighter ones of the same
hues. A test simulates the common kinds of color blindness and measures how distinguishable a theme's colors remain.
"""

import base64
import html
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, QUIET = "#1F2328", "#5C636B"


@dataclass(frozen=True)
class Theme:
    """Colors by role: background, text, secondary text, grid lines, areas behind data, and data series."""

    ground: str
    ink: str
    quiet: str
    grid: str
    area: str
    series: tuple[str, ...]


LIGHT = Theme("#FFFFFF", INK, QUIET, "#E6E8EB", "#C9CED4", (BLUE, VERMILLION, GREEN, PURPLE))
DARK = Theme("#15181C", "#E8EAED", "#A3ABB4", "#2A2F36", "#4A525C", ("#5AB4F0", "#FF8C3B", "#1FBF92", "#F0B3D6"))

WIDTH = 8.0
"""In inches. At 100 pixels an inch, this is about the width in the Dagster UI and the report."""
TITLE_HEIGHT, LINE_HEIGHT = 0.42, 0.26
PNG_DPI = 192
INLINE_BYTES = 60_000
INLINE_DPIS = (144, 120, 96, 80, 64, 48)
PALETTE_COLORS = 96


def new_figure(theme: Theme, *, height: float, title: str, subtitle: str = "") -> Figure:
    """Return an empty figure of this height (in inches) with a headline that no axes will cover."""
    figure = Figure(figsize=(WIDTH, height), facecolor=theme.ground)
    lines = subtitle.splitlines()
    header = TITLE_HEIGHT + LINE_HEIGHT * len(lines) + 0.06
    engine = ConstrainedLayoutEngine(rect=(0.008, 0.01, 0.984, 1 - header / height - 0.01))
    figure.set_layout_engine(engine)
    alignment: dict[str, Any] = {"x": 0.12 / WIDTH, "va": "baseline", "parse_math": False}
    figure.text(y=1 - 0.3 / height, s=title, color=theme.ink, fontsize=13, fontweight="bold", **alignment)
    for number, line in enumerate(lines):
        y = 1 - (TITLE_HEIGHT + LINE_HEIGHT * (number + 0.55)) / height
        figure.text(y=y, s=line, color=theme.quiet, fontsize=9.5, **alignment)
    return figure


def dress(axes: Axes, theme: Theme, *, title: str = "", color: str | None = None, xlabel: str = "") -> None:
    """Style axes with a faint grid, no box, and a title instead of a label on the y axis."""
    axes.set_facecolor(theme.ground)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.quiet)
    axes.spines["bottom"].set_linewidth(0.8)
    axes.tick_params(which="both", colors=theme.quiet, labelsize=9.5, length=0)
    axes.tick_params(axis="x", which="major", length=3)
    axes.set_xlabel(xlabel, color=theme.quiet, fontsize=9.5)
    axes.set_title(title, loc="left", color=color or theme.ink, fontsize=10.5, fontweight="bold", parse_math=False)


def note(
    axes: Axes,
    theme: Theme,
    text: str,
    at: tuple[float, float],
    *,
    offset: tuple[float, float] = (0, 0),
    color: str = "",
    ha: str = "left",
    bold: bool = False,
) -> Annotation:
    """Put a label at a position in the data, shifted by `offset` points, readable over lines and points."""
    return axes.annotate(
        text,
        at,
        xytext=offset,
        textcoords="offset points",
        ha=ha,
        va="center",
        color=color or theme.ink,
        fontsize=9.5,
        fontweight="bold" if bold else "normal",
        parse_math=False,
        annotation_clip=False,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": theme.ground, "edgecolor": "none", "alpha": 0.75},
    )


def as_percent(value: float, _: float | None = None) -> str:
    """Format a fraction in percent, for labels and for matplotlib's ticks."""
    return f"{100 * value:.4g}%"


PERCENT = FuncFormatter(as_percent)


def rate_axis(axes: Axes, lowest: float) -> None:
    """Make the x axis logarithmic for rates up to 1, with a tick for each power of ten."""
    axes.set(xscale="log", xlim=(lowest, 1))
    axes.xaxis.set_major_locator(LogLocator(base=10))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(PERCENT)


def png(figure: Figure, dpi: int = PNG_DPI) -> bytes:
    """Return the figure as a PNG of few colors, which keeps text sharp in a third of the bytes."""
    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    buffer = io.BytesIO()
    picture.quantize(PALETTE_COLORS, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def data_uri(figure: Figure, dpi: int = PNG_DPI) -> str:
    """Return the figure as a data address that contains the PNG."""
    return f"data:image/png;base64,{base64.b64encode(png(figure, dpi)).decode('ascii')}"


def to_markdown_png(figure: Figure, alt: str) -> str:
    """Return the figure as Markdown with the PNG inline, at the highest resolution that keeps the text below 60 kB.

    Raises:
      ValueError: not even the coarsest resolution fits.
    """
    for dpi in INLINE_DPIS:
        image = f"![{html.escape(alt)}]({data_uri(figure, dpi)})"
        if len(image) < INLINE_BYTES:
            return image
    raise ValueError("figure is too detailed to be shown inline; draw fewer points or a smaller figure")


def series_colors(theme: Theme, count: int) -> list[str]:
    """Return `count` colors of the theme in order, starting again from the first if there are too few."""
    return [theme.series[number % len(theme.series)] for number in range(count)]


def without_ticks(axes: Axes) -> None:
    """Style axes as a map: equal scales, no ticks and no box."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    settings: dict[str, Any] = {"xticks": [], "yticks": [], "aspect": "equal"}
    axes.set(**settings)
