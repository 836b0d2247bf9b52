"""Tables that fit a terminal of any width without truncation.

A column is as wide as its text if there is room. Otherwise the widest columns wrap, without breaking a heading or a
word of an ordinary cell. Where even that does not fit, each row is printed as a list of its columns.
"""

from collections.abc import Collection, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

GAP = 2
LEAST = 12
"""Cells of texts without spaces, such as paths, are broken into lines of at least this many characters."""


def print_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str | None = None,
    whole: Collection[str] = (),
    folding: Collection[str] = (),
) -> None:
    """Print rows of cells under headings.

    Args:
      console: decides how wide the table may be.
      headings: one for each cell of a row.
      rows: their cells, shown as plain text unless they are `Text`.
      title: stands above the table.
      whole: headings whose cells stay on one line, so that they can be copied.
      folding: headings whose cells may be broken anywhere, such as paths.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    if title is not None:
        console.print(Text(title, style="bold"))
    widths = _widths(headings, cells, console.width, whole, folding)
    if widths is None:
        _print_rows(console, headings, cells)
        return
    table = RichTable(
        *(Column(heading, overflow="fold", width=width) for heading, width in zip(headings, widths, strict=True)),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console.print(table, soft_wrap=False)


def _widths(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    room: int,
    whole: Collection[str],
    folding: Collection[str],
) -> list[int] | None:
    """Return the width of each column; None if the columns do not fit side by side."""
    natural, least = [], []
    for number, heading in enumerate(headings):
        cells = [row[number] for row in rows]
        widest = max(_longest(text.split("\n")) for text in (heading, *cells))
        words = _longest(word for text in cells for word in text.split())
        narrowest = widest if heading in whole else min(words, LEAST) if heading in folding else words
        natural.append(widest)
        least.append(max(narrowest, _longest(heading.split())))
    widths = natural.copy()
    room -= GAP * (len(headings) - 1)
    while sum(widths) > room:
        shrinkable = [number for number, width in enumerate(widths) if width > least[number]]
        if not shrinkable:
            return None
        widths[max(shrinkable, key=lambda number: widths[number])] -= 1
    return widths


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _print_rows(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        for number, (heading, cell) in enumerate(zip(headings, row, strict=True)):
            console.print(Text(f"{'- ' if number == 0 else '  '}{heading}: {cell}"))
