"""`dp-instructions verify`: check that a statement follows from its events, and its files are those it names.

The command needs neither the ledger nor a data folder, and compares with a ledger where there is one. Everything it
prints comes from the statement that was rebuilt, or was found wrong. `statements/verification.py` says what the result
proves, and the command prints that.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from dp_assets.cli._console import AsJson, out, print_json, refusals
from dp_assets.cli._released_files import Shelf, file_findings
from dp_assets.cli._stated_profile import profile_finding
from dp_assets.cli._tables import print_table
from dp_assets.privacy.labels import Zone
from dp_assets.statements.against_ledger import ledger_findings
from dp_assets.statements.pages import visible
from dp_assets.statements.reading import StatementError
from dp_assets.statements.statement_pages import summary, to_html, to_markdown
from dp_assets.statements.verification import (
    MOST_BYTES_OF_A_STATEMENT,
    PROVES,
    Finding,
    Outcome,
    Verification,
    verification_of_file,
)
from resources.ledger.ledger_file import LedgerFile
from resources.storage.artifact_files import DOCUMENT, HTML_PAGE, MARKDOWN_PAGE
from resources.storage.digests import code_digest, holds, is_plain
from resources.storage.zones import data_home

SPELLINGS = (os.path.abspath, os.path.realpath)
COLORS = {Outcome.AGREES: "green", Outcome.DIFFERS: "bold red", Outcome.NOT_CHECKED: "yellow", Outcome.NOTE: "yellow"}
PAGES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {MARKDOWN_PAGE: to_markdown, HTML_PAGE: to_html}
DECLARED = (
    "Declared, and so taken from the statement: its terms and budget, how much noise was added in how many steps, which"
    " runs are booked or charged, hashes of files and code, names of the model and the corpus."
)


@refusals
def verify_statement(
    statement: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A statement's document.json")],
    artifacts: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Where the released files lie; default: beside the statement."),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A data folder whose ledger to compare with, as it is now."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute what a statement says from its events and compare its pages and files, offline.

    Ends with 1 if anything differs.

    Proves arithmetic and integrity, not that the events are those that ran. With --home, or for a statement in a data
    folder with a ledger, the ledger is compared too.
    """
    checked = checked_statement(statement, artifacts, home)
    if as_json:
        rows = [
            {"check": finding.check, "outcome": str(finding.outcome), "detail": finding.detail}
            for finding in checked.findings
        ]
        figures = None if checked.wrong or checked.rebuilt is None else checked.rebuilt["guarantee"]
        proves = None if checked.wrong else PROVES
        print_json({"verified": not checked.wrong, "findings": rows, "figures": figures, "proves": proves})
    else:
        _print(checked)
    if checked.wrong:
        raise StatementError(visible("; ".join(checked.wrong)))


def checked_statement(path: Path, artifacts: Path | None = None, home: Path | None = None) -> Verification:
    """Return findings on a statement by itself, with its pages, files and code, and with a ledger.

    Raises:
      StatementError: the file is not a statement that this version verifies.
    """
    if not is_plain(path):
        raise StatementError(f"{path.name} is a link or another special file; give the statement itself")
    try:
        with path.open("rb") as stream:
            verification = verification_of_file(stream.read(MOST_BYTES_OF_A_STATEMENT + 1))
    except StatementError as error:
        raise StatementError(visible(f"{path.name} is no privacy statement that can be verified: {error}")) from None
    findings = [*verification.findings]
    if verification.rebuilt is not None and not verification.wrong:
        findings += _beside(path, verification.rebuilt, artifacts, home)
    return Verification(tuple(findings), verification.rebuilt)


def _beside(path: Path, statement: Mapping[str, Any], artifacts: Path | None, home: Path | None) -> Iterator[Finding]:
    """Yield findings on everything outside the document that it can be compared with."""
    shelf = Shelf.of(path, statement["files"], artifacts)
    yield profile_finding(statement["configuration"]["profile"])
    yield from _place(shelf, statement)
    yield from _pages(shelf, path, statement)
    yield from file_findings(shelf, statement)
    yield _code(statement)
    if ledger := _ledger(path, home):
        yield from ledger_findings(statement, ledger.entries())


def _ledger(path: Path, home: Path | None) -> LedgerFile | None:
    """Return the ledger to compare with: that of `home`, or of this data folder if the statement lies in it.

    A ledger that comes with another person's statement proves nothing, and is not opened.
    """
    own = data_home().absolute()
    if home is None and not any(Path(spell(path)).is_relative_to(spell(own)) for spell in SPELLINGS):
        return None
    ledger = LedgerFile((home or own) / Zone.PRIVATE)
    if home is not None and not ledger.is_used():
        raise StatementError(f"there is no ledger in {home}; give the data folder in which the statement was made")
    return ledger if ledger.is_used() else None


def _place(shelf: Shelf, statement: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding if the statement lies in the folder of a partition: whether it is that partition's."""
    partition, release = shelf.partition(), statement["release"]
    if not partition:
        return
    cohort, level = partition
    own = cohort in release["cohorts"] and level in release["levels"]
    yield Finding(
        "place", *((Outcome.AGREES,) if own else (Outcome.DIFFERS, "it is the statement of another partition"))
    )


def _pages(shelf: Shelf, path: Path, statement: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for every page of the statement and of its copy, compared byte by byte."""
    rendered = {name: render(statement).encode() for name, render in PAGES.items()}
    for folder in shelf.statements():
        for name, content in {**rendered, DOCUMENT: path.read_bytes()}.items():
            page = folder / name
            if page != Path(os.path.abspath(path)) and (page.is_symlink() or page.exists()):
                what = (
                    (Outcome.AGREES,)
                    if holds(page, content)
                    else (Outcome.DIFFERS, "it does not say what the statement says")
                )
                yield Finding(f"page {name}", *what)


def _code(statement: Mapping[str, Any]) -> Finding:
    code, installed = statement["code"], code_digest()
    name = f"{code['package']} {code['version']}"
    if code == installed:
        return Finding("code", Outcome.AGREES, f"{name} as installed here")
    return Finding("code", Outcome.NOTE, f"made by other sources of {name} than installed")


def _print(checked: Verification) -> None:
    rows = [
        (visible(finding.check), Text(finding.outcome, style=COLORS[finding.outcome]), visible(finding.detail))
        for finding in checked.findings
    ]
    print_table(out, ("check", "found", "detail"), rows, folding=("check", "detail"))
    if checked.rebuilt is not None and not checked.wrong:
        figures = [(visible(name), visible(value)) for name, value in summary(checked.rebuilt)]
        print_table(out, ("recomputed", "value"), figures, folding=("value",))
        out.print(DECLARED)
        out.print(PROVES)
