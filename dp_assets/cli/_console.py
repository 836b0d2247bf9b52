"""The common parts of all commands: consoles, the reporting of refusals, and the ledger."""

import errno
import json
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import duckdb
import typer
from rich.console import Console
from rich.markup import escape

from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.labels import Zone
from resources.ledger.ledger_resource import Ledger
from resources.private.private_step import PrivateStepFailed
from resources.storage.zones import data_home

WRONG_USAGE, INTERRUPTED = 2, 130


class HandoffRefused(PublicError, ValueError):
    """A handoff to people is not possible, or its result cannot be taken back; the message says what to do."""


UNUSABLE_PLACE = frozenset(
    [errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP]
)
PLACE_REMEDY = "check the path, DP_INSTRUCTIONS_HOME and who may write there"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value for scripts.")]

# Lines are not wrapped, so that paths can be copied and scripts can read them. Tables fit the terminal (`_tables`).
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON value on standard output, without colors. Unprintable and bidirectional characters are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print("".join(letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in text))


def refusals(command: Callable[..., None]) -> Callable[..., None]:
    """Print a public error as one message and exit with 1. Any other error is a defect and keeps its traceback.

    DuckDB's errors about its own files are shown too, because only the owner uses the terminal.
    """

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except PrivateStepFailed as failure:
            complain("failed", str(failure))
            raise typer.Exit(1) from None
        except OSError as error:
            if error.errno not in UNUSABLE_PLACE:
                raise
            complain("refused", f"{error}; {PLACE_REMEDY}")
            raise typer.Exit(1) from None
        except (PublicError, duckdb.Error) as refusal:
            complain("refused", str(refusal))
            raise typer.Exit(1) from None

    return run


def complain(what: str, reason: str) -> None:
    """Print one message on standard error. Brackets in a reason are not markup, and long lines are not wrapped."""
    err.print(f"[bold red]{what}[/]: {escape(reason)}")


def open_ledger() -> Ledger:
    return Ledger(private_root=str(data_home() / Zone.PRIVATE))
