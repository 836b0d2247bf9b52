"""Tables on a terminal of any width: no word of a heading or cell is cut."""

import io
import re

import pytest
from rich.console import Console

from dp_assets.cli._tables import print_table

ROWS = [
    ("eps-8", "7.9994", "of a mean bin", "/data/" + "folder/" * 12 + "file.parquet"),
    ("eps-2.86", "2.8", "two lines\nof one cell", "[bold]no markup[/]"),
]
HEADINGS = ("level", "epsilon, one replaced", "signal / noise", "where it lies")
CHARGES = [("0123456789abcdef0123456789abcdef", "1")]


def printed(width: int, headings: tuple[str, ...] = HEADINGS, **options: object) -> list[str]:
    stream = io.StringIO()
    rows = ROWS if headings == HEADINGS else CHARGES
    print_table(Console(file=stream, width=width, soft_wrap=True), headings, rows, **options)  # type: ignore[arg-type]
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 50, 60, 80, 200])
def test_a_table_keeps_the_words_of_headings_and_cells_at_every_width(width: int) -> None:
    lines = printed(width, folding=("where it lies",))
    text = "\n".join(lines)
    for word in " ".join(HEADINGS).split():
        assert re.search(rf"(^|\s){re.escape(word)}:?(\s|$)", text, re.MULTILINE), (word, text)
    for word in ("eps-2.86", "7.9994", "mean", "markup[/]"):
        assert word in text
    assert "\u2026" not in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_is_no_wider_than_the_terminal_and_loses_no_letter_of_a_long_path(width: int) -> None:
    lines = printed(width, folding=("where it lies",))
    assert max(map(len, lines)) <= width
    first, second = (number for number, line in enumerate(lines) if line.startswith("eps-"))
    assert "".join(line.split()[-1] for line in lines[first:second]).endswith(ROWS[0][3])


@pytest.mark.parametrize("width", [10, 30, 80])
def test_a_column_that_is_to_be_copied_stays_on_one_line(width: int) -> None:
    assert any(CHARGES[0][0] in line for line in printed(width, ("charge", "spare steps"), whole=("charge",)))
