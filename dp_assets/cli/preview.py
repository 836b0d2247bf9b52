"""`dp-instructions corpus preview`: show the owner what is read of the source, before anything is spent.

A preview shows private rows. So it is printed on a terminal only, in no log, metadata or file, and nothing of it is
stored. With `--json` the owner takes responsibility for where the output goes.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import typer
from rich.markup import escape

from dp_assets.cli._console import AsJson, open_ledger, out, print_json, refusals
from dp_assets.cli._tables import print_table
from dp_assets.corpus.text_files import BrokenDocument
from dp_assets.settings.named import selected_profile
from dp_assets.settings.profile import Profile
from resources.ledger.ledger_resource import Ledger

FILES_SHOWN, LONGEST_CELL, LONGEST_TEXT = 20, 40, 120
NO_TERMINAL = (
    "standard output is no terminal, and a preview shows private rows: run it on a terminal, or add --json to have it"
    " written wherever standard output leads, which then holds private rows"
)


@refusals
def preview(as_json: AsJson = False) -> None:
    """Read the source and show, on the terminal only, what a run would make of it. Spends and stores nothing.

    The preview has files, rows, units, missing values, what each step of the preparation drops with an example, the
    sizes of cohorts and the first rows. All of it is private: do not pass it on.
    """
    from dp_assets.stages.preview import preview_of

    if as_json:
        print_json(preview_of(open_ledger(), selected_profile()))
        return
    if not on_terminal():
        raise typer.BadParameter(NO_TERMINAL)
    show_preview(open_ledger(), selected_profile())


def show_preview(ledger: Ledger, profile: Profile) -> None:
    """Read and print a preview on the present terminal, or the reason why a document cannot be read.

    Raises:
      typer.Exit: a document cannot be read.
    """
    from dp_assets.stages.preview import preview_of

    try:
        print_preview(preview_of(ledger, profile, on_terminal=True))
    except BrokenDocument as error:
        out.print(f"[bold red]failed[/]: {escape(visible(str(error)))}")
        raise typer.Exit(1) from None


def on_terminal() -> bool:
    """Return whether a person sees the output, even where colors are forced."""
    return sys.stdout.isatty()


def somebody_answers() -> bool:
    """Return whether a person sees the output and can answer a question."""
    return on_terminal() and sys.stdin.isatty()


def print_preview(shown: Mapping[str, Any]) -> None:
    """Print a preview, with the warnings last, where they are noticed."""
    files, rows, units = shown["files"], shown["rows"], shown["units"]
    _print_table("files", ("file", "rows", "no user"), _files(files))
    columns = ((ours, column["from"], _share(column["missing"], rows)) for ours, column in shown["columns"].items())
    _print_table("columns", ("ours", "read from", "missing"), columns)
    nobodys = f"; rows that name no user, each a unit of its own: {units['rows_as_units']}"
    out.print(f"rows: {rows}; users: {units['users']}{nobodys if units['rows_as_units'] else ''}\n")
    _print_table("units", ("rows of a unit", "units"), units["rows_of_a_unit"].items())
    busiest = ((_cut(user["user_id"], LONGEST_CELL), user["rows"]) for user in units["busiest_users"])
    _print_table("busiest users", ("user", "rows"), busiest)
    _print_table("steps: rows that ...", ("", "reached", "dropped", "such as"), _steps(shown["steps"]))
    cohorts = (
        (each["cohort"], each["rows"], each["units"], each["rows_to_train_on"], each["units_to_train_on"])
        for each in shown["cohorts"]
    )
    _print_table("cohorts", ("cohort", "rows", "units", "rows to train on", "units to train on"), cohorts)
    _print_table("first rows, as read", ("user", "time", "language", "text"), map(_row, shown["first_rows"]))
    for warning in shown["warnings"]:
        out.print(f"[bold yellow]look:[/] {escape(visible(warning))}")


def _files(files: Iterable[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    files = list(files)
    for file in files[:FILES_SHOWN]:
        yield file["name"], file["rows"], _share(file["missing"].get("user_id", file["rows"]), file["rows"])
    if rest := files[FILES_SHOWN:]:
        yield f"and {len(rest)} more", sum(file["rows"] for file in rest), ""


def _steps(steps: Iterable[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    for step in steps:
        example = step["example"]
        yield step["rows_that"], step["reached"], step["dropped"], "" if example is None else _example(example)


def _example(row: Mapping[str, Any]) -> str:
    """Return a row on one line: the columns that a step may have read, then its text, which may be long."""
    names = ("user_id", "language", "created_at")
    others = (f"{name} {_cell(row, name)}" for name in names if row[name] is not None)
    return "; ".join((*others, _text(row)))


def _row(row: Mapping[str, Any]) -> tuple[object, ...]:
    return _cell(row, "user_id"), _cell(row, "created_at"), _cell(row, "language"), _text(row)


def _cell(row: Mapping[str, Any], name: str) -> str:
    """Return a value, `-` where it is missing, with a mark where it was not understood."""
    mark = " (not understood)" if row["not_understood"] == name else ""
    return _cut(row[name] or "-", LONGEST_CELL) + mark


def _text(row: Mapping[str, Any]) -> str:
    if row["text"] is None:
        which = f": row {row['row']}" if "row" in row else ""
        return f"a broken line{which}" if row["not_understood"] == "line" else "no text"
    mark = "not understood: " if row["not_understood"] == "text" else ""
    return mark + repr(_cut(row["text"], LONGEST_TEXT))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _share(part: int, whole: int) -> str:
    """Return a count and its percentage, which rounds neither a few to none nor nearly all to all."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < part < whole:
        percent = min(max(percent, 0.1), 99.9)
    return f"{part} ({percent:.1f}%)" if part else "0"


def visible(text: str) -> str:
    """Return the text with control characters escaped, so that it cannot move the cursor or change colors."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _print_table(title: str, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table if it has rows."""
    shown = [[visible(str(cell)) for cell in row] for row in rows]
    if shown:
        print_table(out, columns, shown, title=title, folding=columns)
        out.print()
