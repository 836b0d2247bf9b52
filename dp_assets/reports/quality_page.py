"""The quality report as one self-contained page, and as a section of the release report.

It is made from the report's data alone, so it may be shared like the report. It loads nothing, follows the reader's
light or dark setting, and prints on white.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dp_assets.evaluation.quality import SET_TITLES, excerpt, figure_rows, summary
from dp_assets.evaluation.synthetic_map import SyntheticMap
from dp_assets.reports.pictures import Drawing, agreement_drawing, map_drawing, noted_rows, votes_drawing
from dp_assets.reports.plot_style import DARK, LIGHT
from dp_assets.statements.pages import Block, Grid, Heading, Items, Paragraph, html_page

PAGE_HEAD = f"""
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ max-width: 58rem; background: {LIGHT.ground}; color: {LIGHT.ink}; }}
h1 {{ margin-bottom: .5rem; }}
h2 {{ margin-top: 3rem; padding-top: 1rem; border-top: 1px solid #8886; }}
picture img {{ display: block; width: 100%; max-width: 50rem; height: auto; margin: 1.5rem 0; }}
table {{ font-size: .9rem; font-variant-numeric: tabular-nums; }}
td:not(:last-child) {{ overflow-wrap: normal; }}
@media screen and (prefers-color-scheme: dark) {{ body {{ background: {DARK.ground}; color: {DARK.ink}; }} }}
@media print {{
  h2 {{ margin-top: 1.5rem; }}
  picture img {{ max-width: 100%; margin: .75rem 0; break-inside: avoid; }}
  table {{ font-size: 9px; }}
}}
</style>"""

TITLE = "Quality of the synthetic set"
HOW_TO_READ = (
    "Bins are groups of texts of like meaning, found on synthetic texts. Each real unit voted for one bin, and noise"
    " was added to every bin's votes before anybody saw them.",
    "Estimates ask what the exact votes may have been: the ratio of real to pool rows of a bin is drawn from a"
    " distribution that the votes themselves suggest, and the figure is averaged over such draws.",
    "Epsilon zero is the public model sampled without private training; filtered, it shows what the votes alone"
    " achieve. A release is worth its training where the resampled set does better than that column.",
    "The bins say nothing about how well a text is put. Read the examples.",
)


def quality_page(data: Mapping[str, Any], *, charge_ids: Sequence[str]) -> str:
    """Return the whole page, from the data of a quality report with its map."""
    drawings = {
        "agreement": agreement_drawing(data),
        "votes": votes_drawing(data),
        "map": map_drawing(SyntheticMap.from_json(data["map"])),
    }
    blocks: list[Block] = [
        Heading(1, TITLE),
        *quality_blocks(data, drawings),
        Heading(2, "Where it comes from"),
        Grid(("what", "value"), (("charges it descends from", ", ".join(charge_ids)),)),
    ]
    return html_page(TITLE, blocks, further_head=PAGE_HEAD)


def quality_blocks(data: Mapping[str, Any], drawings: Mapping[str, Drawing]) -> Iterator[Block]:
    """Yield the report's sentences, pictures, figures and examples. `drawings` are by the pictures' names."""
    yield Paragraph(summary(data))
    yield drawings["agreement"].block()
    yield Items(HOW_TO_READ)
    yield drawings["votes"].block()
    header, *rows = figure_rows(data)
    yield Grid(header, tuple(rows))
    yield drawings["map"].block()
    header, *rows = noted_rows(SyntheticMap.from_json(data["map"]))
    yield Grid(header, tuple(rows))
    yield Heading(2, "Example texts")
    for name, texts in data["examples"].items():
        if texts:
            yield Grid((SET_TITLES[name],), tuple((excerpt(text),) for text in texts))
