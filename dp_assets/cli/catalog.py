"""`dp-instructions sql`: queries on the catalog of everything released."""

import math
from typing import Annotated, Any

import duckdb
import typer

from dp_assets.cli._console import AsJson, err, open_ledger, out, print_json, refusals
from dp_assets.cli._tables import print_table
from resources.storage.zones import data_home


@refusals
def sql(
    query: Annotated[str, typer.Argument(help="A query, for example 'from metrics'.")], as_json: AsJson = False
) -> None:
    """Query the catalog: a view over every released table, and the tables lineage, costs, statements and metrics."""
    from resources.storage.catalog import rebuild

    path = rebuild(data_home(), open_ledger().state())
    with duckdb.connect(str(path), read_only=True) as connection:
        result = connection.execute(query)
        columns = [column[0] for column in result.description or []]
        rows = result.fetchall()
    if as_json:
        print_json({"columns": columns, "rows": [[in_json(value) for value in row] for row in rows]})
        return
    print_table(out, columns, [[_shown(value) for value in row] for row in rows], folding=columns)


def _shown(value: Any) -> str:
    """Return a value as shown in a table; `--json` prints every digit."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def refresh() -> None:
    """Rebuild the catalog for its readers after a run. A failure is reported but does not fail the run."""
    from resources.storage.catalog import rebuild

    try:
        rebuild(data_home(), open_ledger().state())
    except (duckdb.Error, OSError, ValueError) as error:
        err.print(f"the catalog was not rebuilt, `dp-instructions sql` tries again: {error}", markup=False)


def in_json(value: Any) -> Any:
    """Return a database value as JSON: types that JSON lacks become strings, numbers that are not finite null."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case bool() | int() | str() | None:
            return value
        case list() | tuple():
            return [in_json(item) for item in value]
        case dict():
            return {str(name): in_json(item) for name, item in value.items()}
        case _:
            return str(value)
