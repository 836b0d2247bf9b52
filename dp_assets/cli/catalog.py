"""`dp-instructions sql`: questions to the catalog of everything released."""

from typing import Annotated

import duckdb
import typer
from rich.markup import escape
from rich.table import Column
from rich.table import Table as RichTable

from dp_assets.cli._console import open_ledger, out, refusals
from resources.zones import data_home


@refusals
def sql(query: Annotated[str, typer.Argument(help="A query, for example 'from metrics'.")]) -> None:
    """Ask the catalog: a view over every released table, and the tables lineage, costs and metrics."""
    from resources.catalog import rebuild

    path = rebuild(data_home(), open_ledger().state())
    with duckdb.connect(str(path), read_only=True) as connection:
        result = connection.execute(query)
        table = RichTable(*(Column(column[0], overflow="fold") for column in result.description or []))
        for row in result.fetchall():
            table.add_row(*(escape(str(value)) for value in row))
    out.print(table)
