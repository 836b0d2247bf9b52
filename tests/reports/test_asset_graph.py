"""Rows follow the edges, zones keep their side, nothing overlaps, and every asset is named."""

from graphlib import CycleError
from itertools import combinations

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from dp_assets.reports.asset_graph import draw_asset_graph, longest_path_rows

NODES = [
    ("real", "private"),
    ("mechanism", "mechanism"),
    ("pool", "released"),
    ("bins", "released"),
    ("kept", "released"),
    ("answers", "released"),
    ("report", "released"),
    ("statement", "released"),
    ("restricted", "private"),
]
EDGES = [
    ("real", "mechanism"),
    ("mechanism", "pool"),
    ("pool", "bins"),
    ("pool", "kept"),
    ("bins", "kept"),
    ("mechanism", "kept"),
    ("kept", "answers"),
    ("kept", "report"),
    ("pool", "report"),
    ("kept", "statement"),
    ("mechanism", "statement"),
    ("real", "restricted"),
    ("kept", "restricted"),
]


def boxes(figure: Figure) -> dict[str, FancyBboxPatch]:
    """The box of each asset, by its name; the names are drawn in the order of the boxes."""
    found = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    return {name: box for (name, _), box in zip(NODES, found, strict=True)}


@pytest.fixture(scope="module")
def figure() -> Figure:
    return draw_asset_graph(NODES, EDGES, {"pool": "generation"})


def test_the_row_of_an_asset_is_the_longest_path_to_it() -> None:
    rows = longest_path_rows([name for name, _ in NODES], EDGES)
    assert rows == {
        "real": 0, "mechanism": 1, "pool": 2, "bins": 3, "kept": 4, "answers": 5, "report": 5, "statement": 5,
        "restricted": 5,
    }  # fmt: skip


def test_every_asset_and_stage_is_named(figure: Figure) -> None:
    shown = {text.get_text() for text in figure.axes[0].findobj(Text)}  # type: ignore[attr-defined]
    assert {name for name, _ in NODES} | {"generation", "private zone", "released zone"} <= shown


def test_private_assets_stand_left_of_the_boundary_released_ones_right_and_mechanisms_on_it(figure: Figure) -> None:
    (line,) = figure.axes[0].get_lines()
    boundary = line.get_xdata()[0]
    for name, label in NODES:
        box = boxes(figure)[name]
        left, right = box.get_x(), box.get_x() + box.get_width()
        side = "private" if right < boundary else "released" if left > boundary else "mechanism"
        assert side == label, name


def test_no_two_assets_overlap_and_all_lie_inside_the_figure(figure: Figure) -> None:
    extents = [box.get_window_extent() for box in boxes(figure).values()]
    assert not any(first.overlaps(second) for first, second in combinations(extents, 2))
    assert all(figure.bbox.x0 <= each.x0 and each.x1 <= figure.bbox.x1 and each.y0 >= 0 for each in extents)


def test_names_fit_into_their_boxes() -> None:
    name = "annotated_instructions"
    figure = draw_asset_graph([(name, "released")], [])
    (text,) = [each for each in figure.axes[0].texts if each.get_text() == name]
    (box,) = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    assert text.get_window_extent().width < 0.95 * box.get_window_extent().width


def test_a_cycle_an_unknown_asset_and_an_unknown_label_are_refused() -> None:
    with pytest.raises(CycleError):
        draw_asset_graph(NODES, [*EDGES, ("kept", "pool")])
    with pytest.raises(ValueError, match="not among the nodes: elsewhere"):
        draw_asset_graph(NODES, [("real", "elsewhere")])
    with pytest.raises(ValueError, match="label must be one of"):
        draw_asset_graph([("real", "secret")], [])
