"""The picture of the asset graph: sources at the top, private assets on the left, released ones on the right.

A dashed line separates the two zones and runs through the mechanisms, the only assets that stand in both. An edge that
spans several rows runs in a lane beside the assets; all edges of one asset share its lane, so that a line can be
followed to where it comes from. The layout is layered drawing in the manner of Sugiyama et al. (1981), reduced to what
a graph of some twenty assets needs: rows by longest path, order and positions by repeated averaging over neighbours.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path

from dp_assets.reports.plot_style import BLUE, INK, ORANGE, QUIET, VERMILLION

Edge = tuple[str, str]
# An asset's own place is (name, its row); (name, a later row) is its lane beside the assets of that row.
Place = tuple[str, int]

# The zones from left to right, by the privacy label of their assets.
LABELS = ("private", "mechanism", "released")
COLOURS = {"private": VERMILLION, "mechanism": ORANGE, "released": BLUE}
FILLS = {"private": "#FBE3D6", "mechanism": "#FFF1D0", "released": "#DCEBF5"}
KEY = {"private": "private", "mechanism": "mechanism, spends budget", "released": "released"}
ZONES = (
    ("private zone", "real rows, read only under a charge", "#FDF5F1"),
    ("released zone", "synthetic rows and what is made of them", "#F4F8FC"),
)

# Lengths are inches of the figure; y grows downwards.
NODE_WIDTH, NODE_HEIGHT, ROW_HEIGHT = 1.78, 0.46, 0.82
LANE_WIDTH, GAP, PORT_GAP, MARGIN = 0.14, 0.14, 0.2, 0.2
HEADER = 0.95
SWEEPS = 60
# A lane is pulled by its own continuation more than by an asset, which keeps long edges straight.
LANE_WEIGHT = 6.0


class Layout(NamedTuple):
    """Where everything stands: the row of each asset, the x of each place, and the left and right end of each zone."""

    rows: Mapping[str, int]
    x: Mapping[Place, float]
    spans: Mapping[str, tuple[float, float]]

    @property
    def boundary(self) -> float:
        return sum(self.spans["mechanism"]) / 2

    @property
    def size(self) -> tuple[float, float]:
        return self.spans["released"][1] + MARGIN, HEADER + (max(self.rows.values()) + 1) * ROW_HEIGHT


def draw_asset_graph(
    nodes: Sequence[tuple[str, str]], edges: Sequence[Edge], groups: Mapping[str, str] | None = None
) -> Figure:
    """Draw the graph at a size that reads well at a width of 1000 pixels.

    Args:
      nodes: (name, label) of each asset; a label is `private`, `mechanism` or `released`.
      edges: (upstream name, downstream name).
      groups: a stage by name, written below the name of the asset.

    Raises:
      ValueError: a label is unknown, or an edge names an unknown asset.
      graphlib.CycleError: the edges form a cycle.
    """
    labels = dict(nodes)
    _validate(labels, edges)
    layout = _layout(labels, edges)
    width, height = layout.size
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    _draw_zones(axes, layout)
    _draw_key(axes, layout)
    _draw_edges(axes, layout, labels, edges)
    for name, label in nodes:
        _draw_node(axes, layout, name, label, (groups or {}).get(name, ""))
    return figure


def longest_path_rows(names: Iterable[str], edges: Iterable[Edge]) -> dict[str, int]:
    """The row of each asset: the number of edges on the longest path that leads to it."""
    upstream: dict[str, list[str]] = {name: [] for name in names}
    for source, target in edges:
        upstream[target].append(source)
    rows: dict[str, int] = {}
    for name in TopologicalSorter(upstream).static_order():
        rows[name] = max((rows[source] + 1 for source in upstream[name]), default=0)
    return rows


def _validate(labels: Mapping[str, str], edges: Sequence[Edge]) -> None:
    if unknown := set(labels.values()) - set(LABELS):
        raise ValueError(f"label must be one of {', '.join(LABELS)}, not {', '.join(sorted(unknown))}")
    if missing := {name for edge in edges for name in edge} - set(labels):
        raise ValueError(f"edges name assets that are not among the nodes: {', '.join(sorted(missing))}")


def _layout(labels: Mapping[str, str], edges: Sequence[Edge]) -> Layout:
    rows = longest_path_rows(labels, edges)
    neighbours: dict[Place, set[Place]] = defaultdict(set)
    for source, target in edges:
        for above, below in pairwise(_route(source, target, rows)):
            neighbours[above].add(below)
            neighbours[below].add(above)
    places = sorted({*rows.items(), *neighbours}, key=lambda place: (place[1], list(labels).index(place[0])))
    members: dict[tuple[int, str], list[Place]] = defaultdict(list)
    for place in places:
        members[place[1], _zone(place, labels, rows)].append(place)
    spans = _spans(members, rows)
    x = {place: sum(spans[zone]) / 2 for (_, zone), found in members.items() for place in found}
    _relax(x, members, neighbours, spans, rows)
    return Layout(rows, x, spans)


def _route(source: str, target: str, rows: Mapping[str, int]) -> list[Place]:
    return [*((source, row) for row in range(rows[source], rows[target])), (target, rows[target])]


def _zone(place: Place, labels: Mapping[str, str], rows: Mapping[str, int]) -> str:
    """The zone of a place. What leaves a mechanism is released, so its lanes run on that side."""
    label = labels[place[0]]
    return "released" if label == "mechanism" and _is_lane(place, rows) else label


def _spans(
    members: Mapping[tuple[int, str], Sequence[Place]], rows: Mapping[str, int]
) -> dict[str, tuple[float, float]]:
    """Each zone is as wide as its fullest row."""
    spans, left = {}, MARGIN
    for zone in LABELS:
        needs = [sum(_width(place, rows) + GAP for place in found) for (_, z), found in members.items() if z == zone]
        spans[zone] = (left, left := left + max(needs, default=NODE_WIDTH) + GAP)
    return spans


def _width(place: Place, rows: Mapping[str, int]) -> float:
    return LANE_WIDTH if _is_lane(place, rows) else NODE_WIDTH


def _is_lane(place: Place, rows: Mapping[str, int]) -> bool:
    return rows[place[0]] != place[1]


def _relax(
    x: dict[Place, float],
    members: Mapping[tuple[int, str], Sequence[Place]],
    neighbours: Mapping[Place, set[Place]],
    spans: Mapping[str, tuple[float, float]],
    rows: Mapping[str, int],
) -> None:
    """Move every place towards the mean of its neighbours above (odd sweeps: of all), row by row, without overlap."""
    for sweep in range(SWEEPS):
        for (row, zone), found in members.items():
            wanted = {}
            for place in found:
                near = [other for other in neighbours[place] if other[1] < row or sweep % 2]
                wanted[place] = _pull(place, near, x, rows)
            order = sorted(found, key=wanted.__getitem__)
            x.update(_spread(order, wanted, spans[zone], rows))


def _pull(place: Place, near: Sequence[Place], x: Mapping[Place, float], rows: Mapping[str, int]) -> float:
    """The weighted mean position of the neighbours of a place; its own without any."""
    weights = [LANE_WEIGHT if _is_lane(place, rows) and _is_lane(other, rows) else 1.0 for other in near]
    return sum(w * x[other] for w, other in zip(weights, near, strict=True)) / sum(weights) if near else x[place]


def _spread(
    order: Sequence[Place], wanted: Mapping[Place, float], span: tuple[float, float], rows: Mapping[str, int]
) -> dict[Place, float]:
    """Positions in the given order that stay in the span, keep the gap, and are near the wanted ones."""
    halves = [(_width(place, rows) + GAP) / 2 for place in order]
    total = 2 * sum(halves)
    # Each place may move between where the span begins after those before it and where it ends before those behind it.
    before, low, high = 0.0, span[0] + GAP / 2, span[1] - GAP / 2
    positions: dict[Place, float] = {}
    edge = low
    for place, half in zip(order, halves, strict=True):
        latest = high - (total - before) + half
        positions[place] = min(max(wanted[place], edge + half), latest)
        edge, before = positions[place] + half, before + 2 * half
    return positions


def _draw_zones(axes: Axes, layout: Layout) -> None:
    width, height = layout.size
    sides = ((0.0, layout.boundary), (layout.boundary, width))
    for (title, note, ground), (left, right) in zip(ZONES, sides, strict=True):
        axes.add_patch(Rectangle((left, 0), right - left, height, color=ground, linewidth=0, zorder=0))
        axes.text(left + MARGIN, 0.32, title, fontsize=13, fontweight="bold", color=INK, va="center")
        axes.text(left + MARGIN, 0.58, note, fontsize=9, color=QUIET, va="center")
    axes.plot([layout.boundary] * 2, [0, height], color=INK, linewidth=1.4, linestyle=(0, (5, 4)), zorder=0.9)


def _draw_key(axes: Axes, layout: Layout) -> None:
    x = layout.size[0] - MARGIN
    for label in reversed(LABELS):
        text = axes.text(x, 0.32, KEY[label], fontsize=9, color=INK, ha="right", va="center")
        x = text.get_window_extent().transformed(axes.transData.inverted()).x0 - 0.24
        axes.add_patch(Rectangle((x, 0.25), 0.16, 0.14, facecolor=FILLS[label], edgecolor=COLOURS[label]))
        x -= 0.2


def _draw_edges(axes: Axes, layout: Layout, labels: Mapping[str, str], edges: Sequence[Edge]) -> None:
    ports = _ports(layout, edges)
    for source, target in edges:
        route = _route(source, target, layout.rows)
        start = (ports[route[0], route[1]], _middle(route[0]) + NODE_HEIGHT / 2)
        end = (ports[route[-1], route[-2]], _middle(route[-1]) - NODE_HEIGHT / 2)
        lane = [(layout.x[place], _middle(place) + side * NODE_HEIGHT / 2) for place in route[1:-1] for side in (-1, 1)]
        _draw_edge(axes, [start, *lane, end], COLOURS[labels[source]])


def _ports(layout: Layout, edges: Sequence[Edge]) -> dict[tuple[Place, Place], float]:
    """The x at which an edge meets an asset, by asset and next place on the way; in the order of those places."""
    sides: dict[tuple[Place, str], set[Place]] = defaultdict(set)
    for source, target in edges:
        route = _route(source, target, layout.rows)
        sides[route[0], "leaving"].add(route[1])
        sides[route[-1], "arriving"].add(route[-2])
    ports = {}
    for (asset, _), ends in sides.items():
        gap = min(PORT_GAP, 0.8 * NODE_WIDTH / len(ends))
        for number, end in enumerate(sorted(ends, key=layout.x.__getitem__)):
            ports[asset, end] = layout.x[asset] + gap * (number - (len(ends) - 1) / 2)
    return ports


def _draw_edge(axes: Axes, points: Sequence[tuple[float, float]], colour: str) -> None:
    """A line that leaves and enters every row vertically, with an arrow head at its last point."""
    vertices, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Path.CURVE4] * 3
    axes.add_patch(PathPatch(Path(vertices, codes), fill=False, edgecolor=colour, linewidth=1.3, alpha=0.75))
    x, y = points[-1]
    axes.add_patch(Polygon([(x, y), (x - 0.05, y - 0.1), (x + 0.05, y - 0.1)], color=colour, linewidth=0))


def _draw_node(axes: Axes, layout: Layout, name: str, label: str, group: str) -> None:
    x, y = layout.x[name, layout.rows[name]], _middle((name, layout.rows[name]))
    corner, box = (x - NODE_WIDTH / 2, y - NODE_HEIGHT / 2), "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch(
            corner,
            NODE_WIDTH,
            NODE_HEIGHT,
            boxstyle=box,
            facecolor=FILLS[label],
            edgecolor=COLOURS[label],
            linewidth=1.4,
        )
    )
    axes.text(x, y - (0.075 if group else 0), name, fontsize=9.5, color=INK, ha="center", va="center")
    axes.text(x, y + 0.11, group, fontsize=7.5, color=QUIET, ha="center", va="center")


def _middle(place: Place) -> float:
    return HEADER + (place[1] + 0.5) * ROW_HEIGHT
