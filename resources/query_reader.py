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

# The place of a row among others, as a column and as a function.
POSITIONS, BY_POSITION = frozenset(["rowid", "file_row_number"]), frozenset(["nextval", "currval"])
ONE_BY_ONE = frozenset(["unnest", "range", "generate_series"])  # table functions of constants or of a row's own list


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
    """Refuse a query unless its form shows that it takes rows one by one: tables once each, and scalar functions."""
    (text,) = connection.execute("select json_serialize_sql(?::varchar)", [query]).fetchone() or ("{}",)
    named = "select function_name from duckdb_functions() where function_type = 'scalar'"
    scalar = {name for (name,) in connection.execute(named).fetchall()} - BY_POSITION
    parts = list(_parts(json.loads(text)))
    read = Counter(table for part in parts if (table := _table(part)) is not None)
    twice = {f"{table} twice" for table, times in read.items() if times > 1}
    found = sorted(twice.union(*(_across_rows(part, scalar) for part in parts)))
    if found:
        raise QueryRefused(
            f"source.query uses {', '.join(found)}, which can let one person's rows decide about another's; select rows"
            " one by one with scalar functions, and leave duplicates and bounds to corpus.max_rows_per_unit"
        )


def _parts(form: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in a query's form, however deep it lies."""
    if isinstance(form, Mapping):
        yield form
    for part in form.values() if isinstance(form, Mapping) else form if isinstance(form, list) else ():
        yield from _parts(part)


def _table(part: Mapping[str, Any]) -> str | None:
    """What a part of the form reads. All Parquet files are one, since two patterns may name the same file."""
    if part.get("type") != "BASE_TABLE":
        return None
    name = str(part["table_name"]).lower()
    return "Parquet files" if _is_file(name) else f"the table {name}"


def _is_file(name: str) -> bool:
    return "." in name or "/" in name


def _across_rows(part: Mapping[str, Any], scalar: set[str]) -> Iterator[str]:
    """What in one part of the form looks at several rows, or at the place of a row among others."""
    yield from (said for (key, value), said in ACROSS_ROWS.items() if part.get(key) == value)
    if part.get("group_expressions"):
        yield "GROUP BY"
    if part.get("sample"):
        yield "SAMPLE"
    if part.get("setop_type") == "UNION" and not part.get("setop_all"):
        yield "UNION without ALL"
    if part.get("type") == "BASE_TABLE" and _is_file(name := str(part["table_name"])) and not name.endswith(".parquet"):
        yield "a file that is no .parquet, whose types would be guessed from all rows (see source.kind = 'file')"
    is_table_function = part.get("type") == "TABLE_FUNCTION"
    if is_table_function and part["function"]["function_name"] not in ONE_BY_ONE:
        yield f"the table function {part['function']['function_name']}"
    if part.get("class") == "FUNCTION" and part["function_name"] not in scalar | ONE_BY_ONE:
        yield f"the function {part['function_name']}"
    if part.get("class") == "COLUMN_REF" and part["column_names"][-1].lower() in POSITIONS:
        yield f"the column {part['column_names'][-1]}"


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
