"""`dp-instructions verify`: whether a statement's figures follow from its events, and its hashes from what lies beside.

Needs neither the ledger nor a data folder. What it proves is said in `statements/verification.py`, and printed.
"""

import json
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as RichTable

from dp_assets.cli._console import AsJson, out, print_json, refusals
from dp_assets.statements.statement import StatementError
from dp_assets.statements.statement_pages import to_html, to_markdown
from dp_assets.statements.verification import PROVES, Finding, Outcome, findings
from resources.artifact_files import HTML_PAGE, MARKDOWN_PAGE, stored_charge_ids
from resources.digests import code_digest, folder_digest

COLOURS = {Outcome.AGREES: "green", Outcome.DIFFERS: "bold red", Outcome.NOT_CHECKED: "yellow", Outcome.NOTE: "yellow"}
PAGES = {MARKDOWN_PAGE: to_markdown, HTML_PAGE: to_html}


@refusals
def verify_statement(
    statement: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A statement's document.json")],
    artifacts: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Where the artifacts lie; default: beside the statement."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute a statement's figures from its events and compare its hashes, offline. Ends with 1 if anything differs.

    Proves arithmetic and integrity, not that the events are the ones which ran.
    """
    found = list(all_findings(statement, artifacts or _beside(statement)))
    wrong = [f"{one.check}: {one.detail}" for one in found if one.outcome is Outcome.DIFFERS]
    if as_json:
        rows = [{"check": one.check, "outcome": str(one.outcome), "detail": one.detail} for one in found]
        print_json({"verified": not wrong, "findings": rows, "proves": PROVES})
    else:
        _print(found)
    if wrong:
        raise StatementError("; ".join(wrong))


def all_findings(path: Path, artifacts: Path) -> Iterator[Finding]:
    """What the statement's own checks, its pages, its artifacts and its code come to.

    Raises:
      StatementError: the file is not a statement.
    """
    document = _document(path)
    statement = document["data"]
    yield from findings(statement)
    if document["charge_ids"] != statement["ledger"]["charge_ids"]:
        yield Finding("document", Outcome.DIFFERS, "charge_ids are not those of the statement")
    same_code = statement["code"]["sha256"] == code_digest()["sha256"]
    yield from (_page(path.parent / name, statement, same_code) for name in PAGES if (path.parent / name).exists())
    covered = set(statement["ledger"]["charge_ids"])
    yield from (_artifact(artifacts, place, stated, covered) for place, stated in statement["artifacts"].items())
    yield _code(statement, same_code)


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text())
    except ValueError:
        document = None
    if not isinstance(document, dict) or not {"data", "charge_ids"} <= set(document):
        raise StatementError(f"{path} is not the document.json of a privacy statement")
    return document


def _beside(path: Path) -> Path:
    """The folder `artifacts` of a released zone in which `privacy_statement/<cohort>/<level>/document.json` lies."""
    return path.absolute().parents[3] if len(path.absolute().parents) > 3 else path.absolute().parent


def _artifact(artifacts: Path, place: str, stated: str, covered: Set[str]) -> Finding:
    folder = artifacts / place
    if not folder.is_dir():
        return Finding(f"artifact {place}", Outcome.NOT_CHECKED, f"not found in {artifacts}")
    if folder_digest(folder) != stated:
        return Finding(f"artifact {place}", Outcome.DIFFERS, "it is not the artifact that the statement was made for")
    if not set(stored_charge_ids(folder)) <= covered:
        return Finding(f"artifact {place}", Outcome.DIFFERS, "it descends from charges that the statement lacks")
    return Finding(f"artifact {place}", Outcome.AGREES)


def _page(page: Path, statement: Mapping[str, Any], same_code: bool) -> Finding:
    if page.read_text() == PAGES[page.name](statement):
        return Finding(f"page {page.name}", Outcome.AGREES)
    if same_code:
        return Finding(f"page {page.name}", Outcome.DIFFERS, "it does not say what the statement says")
    return Finding(f"page {page.name}", Outcome.NOT_CHECKED, "it was written by other code")


def _code(statement: Mapping[str, Any], same_code: bool) -> Finding:
    code = statement["code"]
    if same_code:
        return Finding("code", Outcome.AGREES, f"{code['package']} {code['version']} as installed here")
    return Finding("code", Outcome.NOTE, f"made by other sources of {code['package']} {code['version']} than installed")


def _print(found: list[Finding]) -> None:
    table = RichTable("check", "found", "detail")
    for one in found:
        table.add_row(one.check, f"[{COLOURS[one.outcome]}]{one.outcome}[/]", one.detail)
    out.print(table)
    out.print(PROVES, highlight=False)
