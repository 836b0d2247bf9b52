"""`dp-instructions verify`: whether the figures of a statement follow from its events."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dp_assets.cli._console import out, refusals
from dp_assets.privacy.statement import StatementError, verify


@refusals
def verify_statement(
    statement: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A statement's document.json")],
) -> None:
    """Recompute a statement's figures from its events, offline. Proves arithmetic, not that the events are what ran."""
    try:
        verify(json.loads(statement.read_text())["data"])
    except StatementError:
        raise
    except (KeyError, TypeError, ValueError):
        raise StatementError(f"{statement} is not the document.json of a privacy statement, or lacks a part") from None
    out.print("every figure follows from the statement's events; that these are the ones which ran is not proved here")
