"""A quality report in which every text is hostile, and what stands on a page."""

from html.parser import HTMLParser
from typing import Any

import numpy as np

from dp_assets.evaluation.quality import ComparedSets, SyntheticSet, quality_report
from dp_assets.evaluation.settings import ReportSettings
from dp_assets.evaluation.synthetic_map import NotedBin, SyntheticMap
from dp_assets.selection.histogram import NoisyHistogram

HOSTILE = '<script>alert(1)</script> ![x](https://y.example/z.png) <img src="https://y.example/z.png">'


def quality() -> dict[str, Any]:
    """A quality report's data with a map, in which every text is hostile."""
    some = SyntheticSet([HOSTILE] * 4, np.arange(4))
    histogram = NoisyHistogram(np.array([60, 30, 10, -4]), 2.0)
    settings = ReportSettings(baseline_samples=1, examples=2, mauve_buckets=2, seed=0)
    report = quality_report(ComparedSets(some, some, some), histogram, settings, target=4, shortage=0).data
    xy = np.arange(8.0).reshape(4, 2)
    noted = NotedBin(1, 0, (0.0, 1.0), 0.6, 0.25, 0.25, HOSTILE)
    return {**report, "map": SyntheticMap(xy, xy, (noted,)).to_json()}


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
