"""A query's result in batches: from DuckDB, which also reads Parquet and other files, or from any SQLAlchemy database.

Databases are only read from. What they say when they refuse a query may quote rows, so it is printed, which leads to
the private log, and the error names its kind only.

Left out: whether a query in another dialect than DuckDB's treats rows apart; no parser here reads them all.
"""

import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import polars as pl
import sqlalchemy

ROWS_IN_A_BATCH = 5_000
IN_MEMORY = ":memory:"
# Parts of DuckDB's form of a query, by key and value, that make a row's fate depend on other rows.
ACROSS_ROWS = {
    ("type", "LIMIT_MODIFIER"): "LIMIT",
    ("type", "LIMIT_PERCENT_MODIFIER"): "LIMIT",
    ("type", "DISTINCT_MODIFIER"): "DISTINCT",
    ("type", "RECURSIVE_CTE_NODE"): "WITH RECURSIVE",
    ("type", "SHOW_REF"): "SUMMARIZE or DESCRIBE",
    ("class", "WINDOW"): "a window function",
    ("aggregate_handling", "FORCE_AGGREGATES"): "GROUP BY",
    ("setop_type", "EXCEPT"): "EXCEPT",
    ("setop_type", "INTERSECT"): "INTERSECT",
}


class QueryRefused(ValueError):
    """A query that cannot be run as configured. The message quotes configuration only."""


def duckdb_batches(database: Path | None, query: str, spill_folder: Path) -> Iterator[pl.DataFrame]:
    """Rows of one SELECT on a DuckDB file, opened read-only, or on what the query itself names, such as Parquet files.

    Raises:
      QueryRefused: the file cannot be opened, the query is no single SELECT, DuckDB refuses it, or it is not row-wise.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "temp_directory": str(spill_folder),
        "autoinstall_known_extensions": "false",
    }
    try:
        connection = duckdb.connect(database or IN_MEMORY, read_only=database is not None, config=settings)
    except duckdb.Error as error:
        raise _refusal(f"source.path {database} cannot be opened as a DuckDB database", error) from None
    with connection:
        try:
            statements = connection.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise QueryRefused("source.query must be one SELECT")
            _require_row_wise(connection, query)
            result = connection.sql(query)
            reader: Any = result.to_arrow_reader(ROWS_IN_A_BATCH)
        except duckdb.Error as error:
            raise _refusal("DuckDB refuses source.query", error) from None
        yield _frame(reader.schema.empty_table())
        yield from map(_frame, reader)


def sql_batches(url_variable: str, query: str) -> Iterator[pl.DataFrame]:
    """Rows of a SELECT on the database whose SQLAlchemy address is in an environment variable, as strings.

    Nothing is committed. A value's type decides nothing: each becomes a string by itself, or null if it has no text.

    Raises:
      QueryRefused: the variable is not set, the database cannot be reached, or it refuses the query.
    """
    address = os.environ.get(url_variable)
    if not address:
        raise QueryRefused(f"the environment variable {url_variable}, named by source.url_variable, is not set")
    if query.split(maxsplit=1)[0].lower() not in ("select", "with"):
        raise QueryRefused("source.query must be one SELECT")
    try:
        engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool, hide_parameters=True)
        connection = engine.connect()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        # The address may hold a password, so nothing of what is said about it is repeated, even inside.
        raise QueryRefused(
            f"the database of {url_variable} cannot be reached ({type(error).__name__}); check the address, and that"
            " its driver is installed"
        ) from None
    with connection:
        try:
            result = connection.execution_options(yield_per=ROWS_IN_A_BATCH).execute(sqlalchemy.text(query))
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise _refusal("the database refuses source.query", error) from None
        schema = dict.fromkeys(result.keys(), pl.String())
        yield pl.DataFrame(schema=schema)
        for rows in result.partitions(ROWS_IN_A_BATCH):
            yield pl.DataFrame([[_as_text(value) for value in row] for row in rows], schema=schema, orient="row")


def _require_row_wise(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse a query that lets rows decide about each other, as far as its form shows it."""
    (form,) = connection.execute("select json_serialize_sql(?::varchar)", [query]).fetchone() or ("{}",)
    listed = connection.execute("select function_name, function_type from duckdb_functions()").fetchall()
    scalar = {name for name, kind in listed if kind != "aggregate"}
    aggregates = {name for name, kind in listed if kind == "aggregate"} - scalar
    read = Counter(_tables(json.loads(form)))
    twice = {f"the table {name} twice" for name, times in read.items() if times > 1}
    found = sorted({*_across_rows(json.loads(form), aggregates), *twice})
    if found:
        raise QueryRefused(
            f"source.query uses {', '.join(found)}, which lets one person's rows decide about another's; select rows"
            " one by one, and leave duplicates and bounds to corpus.max_rows_per_unit"
        )


def _tables(form: Any) -> Iterator[str]:
    """The name of each table that a query reads, as often as it does."""
    if isinstance(form, Mapping) and form.get("type") == "BASE_TABLE":
        yield str(form["table_name"]).lower()
    parts = form.values() if isinstance(form, Mapping) else form if isinstance(form, list) else ()
    for part in parts:
        yield from _tables(part)


def _across_rows(form: Any, aggregates: set[str]) -> Iterator[str]:
    """What in a query's form looks at several rows at once, however deep it lies."""
    if isinstance(form, list):
        for part in form:
            yield from _across_rows(part, aggregates)
    if not isinstance(form, Mapping):
        return
    for key, value in form.items():
        if isinstance(value, str) and (key, value) in ACROSS_ROWS:
            yield ACROSS_ROWS[key, value]
        yield from _across_rows(value, aggregates)
    if form.get("group_expressions"):
        yield "GROUP BY"
    if form.get("sample"):
        yield "SAMPLE"
    if form.get("setop_type") == "UNION" and not form.get("setop_all"):
        yield "UNION without ALL"
    if form.get("class") == "FUNCTION" and form.get("function_name") in aggregates:
        yield f"the aggregate {form['function_name']}"


def _frame(batch: Any) -> pl.DataFrame:
    return pl.DataFrame(batch)


def _as_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, date):  # a time is a date too
        return value.isoformat()
    return str(value) if isinstance(value, int | float | Decimal | UUID) else None


def _refusal(what: str, error: Exception) -> QueryRefused:
    traceback.print_exception(error, file=sys.stderr)
    return QueryRefused(f"{what} ({type(error).__name__}); try it in the database itself to see why")
