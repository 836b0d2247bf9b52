"""Blocks of a page, rendered as Markdown and as one self-contained HTML page.

The HTML loads nothing, is printable, and follows the reader's light or dark setting. Text in a cell stays text and
cannot become markup.
"""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.25; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { border: 1px solid #8888; padding: .35rem .6rem; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
th { background: #8882; }
@media print {
  body { font-size: 11px; max-width: none; margin: 0; }
  h2 { break-after: avoid; }
  tr { break-inside: avoid; }
}
"""

# An underscore inside a word is not markup.
MARKUP = re.compile(r"[\\`*~\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


@dataclass(frozen=True)
class Heading:
    """A title (level 1), or the heading of a section (level 2) or subsection (level 3)."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text. Two asterisks enclose bold text."""

    text: str


@dataclass(frozen=True)
class Grid:
    """A table."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A picture in a light and a dark version, as data addresses that hold the image. `alt` describes it in words."""

    light: str
    dark: str
    alt: str


Block = Heading | Paragraph | Grid | Items | Picture


def markdown_page(blocks: Sequence[Block]) -> str:
    """Return the blocks as Markdown."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def html_page(title: str, blocks: Sequence[Block], *, further_head: str = "") -> str:
    """Return the blocks as an HTML page. `further_head` is put into its head unescaped."""
    head = f'<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n<style>{STYLE}</style>{further_head}'
    body = "\n".join(_html(block) for block in blocks)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def visible(text: str) -> str:
    """Return the text with escapes for characters that are invisible or change the direction of the text."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def number(value: float | None) -> str:
    """Format a figure in at most ten digits if these are exact, else in full, so that it is never rounded."""
    if value is None:
        return "unbounded"
    short = f"{value:.10g}"
    return short if float(short) == value else repr(value)


def share(value: float) -> str:
    """Format a fraction in percent, rounded up."""
    return f"{math.ceil(round(value * 1e6) / 100) / 1e4:.2%}"


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_cell(block.text)}"
        case Paragraph():
            return block.text
        case Items():
            return "\n".join(f"- {item}" for item in block.items)
        case Picture():
            return f"![{_cell(block.alt)}]({block.light})"
        case Grid():
            lines = (block.header, ("---",) * len(block.header), *block.rows)
            return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Escape a table cell."""
    escaped = MARKUP.sub(r"\\\g<0>", text.replace("&", "&amp;").replace("|", "&#124;").replace("<", "&lt;"))
    return visible(" ".join(escaped.split()))


def _html(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{_with_bold(html.escape(block.text, quote=False))}</p>"
        case Items():
            return f"<ul>{''.join(f'<li>{html.escape(item, quote=False)}</li>' for item in block.items)}</ul>"
        case Picture():
            return _html_picture(block)
        case Grid():
            rows = "\n".join(_row("td", row) for row in block.rows)
            return f"<table>\n<thead>{_row('th', block.header)}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _html_picture(picture: Picture) -> str:
    """Render a picture. The dark version is for dark screens only, because paper is light."""
    dark = f'<source media="screen and (prefers-color-scheme: dark)" srcset="{html.escape(picture.dark)}">'
    light = f'<img src="{html.escape(picture.light)}" alt="{html.escape(picture.alt)}">'
    return f"<picture>{dark}{light}</picture>"


def _with_bold(text: str) -> str:
    parts = enumerate(text.split("**"))
    return "".join(f"<strong>{part}</strong>" if index % 2 else part for index, part in parts)


def _row(tag: str, cells: Sequence[str]) -> str:
    texts = (html.escape(visible(" ".join(cell.split())), quote=False) for cell in cells)
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in texts)}</tr>"
