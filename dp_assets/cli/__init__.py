"""The command `dp-instructions`.

Exit codes: 0 done, 1 refused or failed (the reason is printed), 2 wrong usage, 130 interrupted.
"""

import sys

import typer

from dp_assets.cli._console import INTERRUPTED
from dp_assets.cli.backfill import backfill, snapshot
from dp_assets.cli.catalog import sql
from dp_assets.cli.config import config_app
from dp_assets.cli.corpus import corpus_app, erase, register
from dp_assets.cli.export import export
from dp_assets.cli.handoff import handoff_app
from dp_assets.cli.ledger import ledger_app
from dp_assets.cli.lineage import lineage
from dp_assets.cli.pipeline import demo, home, run
from dp_assets.cli.plan import plan
from dp_assets.cli.quiet import let_interrupts_end_waits, quiet_process
from dp_assets.cli.statements import verify_statement
from dp_assets.progress import keep_terminal

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for command in (register, plan, run, backfill, snapshot, demo, home, sql, erase, lineage, export):
    app.command()(command)
app.command("verify")(verify_statement)
app.add_typer(corpus_app, name="corpus")
app.add_typer(ledger_app, name="ledger")
app.add_typer(handoff_app, name="handoff")
app.add_typer(config_app, name="config")


def main() -> None:
    """Run the command. An interrupt outside a run ends with the same exit code as one inside."""
    quiet_process()
    let_interrupts_end_waits()
    keep_terminal()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
