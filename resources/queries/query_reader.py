"""Read a query's result in batches, from DuckDB, which also reads Parquet and other files, or by SQLAlchemy.

Databases are only read. Their error messages may quote rows, so such a message is printed, which leads to the private
log, and the raised error names its type only.

A DuckDB query runs only if it is row-wise (`row_wise`). For other dialects the owner has to check this, because no
parser here reads them all.
"""

import json
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import sqlalchemy

from resources.queries.row_wise import Catalog, columns_named, files_read, not_row_wise

ROWS_IN_A_BATCH = 5_000
IN_MEMORY = ":memory:"
LEADING = re.compile(r"(?:[\s;]|--[^\n]*(?:\n|$)|/\*.*?\*/)+", re.DOTALL)
"""Characters without meaning before a statement and after its end."""
TOKENS = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/|(?P<end>;)", re.DOTALL
)
"""Tokens that may contain a semicolon which ends nothing, and the semicolon that ends a statement."""
MIXED = """
select name from (
    select file_name, name, list_sort(list(distinct if(type in ('FLOAT', 'DOUBLE'), type, ''))) as kinds
    from parquet_schema(?) where type is not null group by all
) group by name having count(distinct kinds) > 1
"""
"""Selects the columns that are floats of one width in some files only."""
NOT_READ = ("interval", "union")  # DuckDB types without a Polars type


class QueryRefused(ValueError):
    """A query cannot be run as configured. The message quotes configuration only."""


def duckdb_batches(database: Path | None, query: str, spill_folder: Path) -> Generator[pl.DataFrame, None, None]:
    """Yield the rows of one SELECT on a DuckDB file, opened read-only, or on files that the query itself names.

    Raises:
      QueryRefused: the file cannot be opened, the query is no single SELECT, DuckDB refuses it, or it is not row-wise.
    """
    with _in_duckdb(database, query, {"temp_directory": str(spill_folder)}) as relation:
        try:
            reader: Any = relation.to_arrow_reader(ROWS_IN_A_BATCH)
        except duckdb.Error as error:
            raise _refusal("DuckDB refuses source.query", error) from None
        yield _frame(reader.schema.empty_table())
        yield from map(_frame, reader)


def duckdb_columns(database: Path | None, query: str) -> list[str]:
    """Return the column names of the same result. No row of it is computed.

    Raises:
      QueryRefused: see `duckdb_batches`.
    """
    with _in_duckdb(database, query, {}) as relation:
        return list(relation.columns)


@contextmanager
def _in_duckdb(database: Path | None, query: str, settings: Mapping[str, str]) -> Iterator[duckdb.DuckDBPyRelation]:
    """Yield the lazy result of a query.

    Raises:
      QueryRefused: see `duckdb_batches`.
    """
    config: dict[str, str | bool | int | float | list[str]] = {"autoinstall_known_extensions": "false", **settings}
    try:
        connection = duckdb.connect(database or IN_MEMORY, read_only=database is not None, config=config)
    except (duckdb.Error, OSError) as error:
        raise _refusal(f"source.path {database} cannot be opened as a DuckDB database", error) from None
    with connection:
        try:
            statements = connection.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise QueryRefused("source.query must be one SELECT; write it as one, without further statements")
            _require_row_wise(connection, query)
            relation = connection.sql(query)
            _require_distinct(relation.columns)
            _require_types(relation)
        except duckdb.Error as error:
            raise _refusal("DuckDB refuses source.query", error) from None
        yield relation


def sql_batches(url_variable: str, query: str) -> Generator[pl.DataFrame, None, None]:
    """Yield the rows of a SELECT on the database whose SQLAlchemy address is in an environment variable.

    Nothing is committed. Columns hold objects as the driver gives them, because a database may hold any type in any
    row.

    Raises:
      QueryRefused: the variable is not set, the database cannot be reached, or it refuses the query.
    """
    with _connected(url_variable, query) as (connection, statement):
        try:
            # The statement is sent as it is: a colon or a percent sign in it names no parameter.
            options = connection.execution_options(yield_per=ROWS_IN_A_BATCH, no_parameters=True)
            result = options.exec_driver_sql(statement)
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise _refusal("the database refuses source.query", error) from None
        names = list(result.keys())
        _require_distinct(names)
        yield _objects(names, [])
        for rows in result.partitions(ROWS_IN_A_BATCH):
            yield _objects(names, rows)


def require_database(url_variable: str, query: str) -> None:
    """Connect to the database of `sql_batches` without sending a query.

    Raises:
      QueryRefused: the variable is not set, the database cannot be reached, or the query is no SELECT.
    """
    with _connected(url_variable, query):
        pass


@contextmanager
def _connected(url_variable: str, query: str) -> Iterator[tuple[sqlalchemy.Connection, str]]:
    """Yield a connection, and the query as it is to be sent."""
    address = os.environ.get(url_variable, "").strip()
    if not address:
        raise QueryRefused(
            f"the environment variable {url_variable}, named by source.url_variable, is not set; export the database's"
            " address in it"
        )
    statement = _one_select(query)
    try:
        engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool, hide_parameters=True)
        connection = None if _lacks_its_file(engine.url) else engine.connect()
    except Exception as error:  # drivers raise their own types
        # The address may hold a password, so no message about it is repeated, not even as a cause.
        raise QueryRefused(
            f"the database of {url_variable} cannot be reached ({type(error).__name__}); check the address, and that"
            " its driver is installed"
        ) from None
    if connection is None:
        raise QueryRefused(
            f"the database of {url_variable} cannot be reached: its file is not there; correct the address"
        )
    with connection:
        yield connection, statement


def _lacks_its_file(address: sqlalchemy.URL) -> bool:
    """Return whether an SQLite address names a missing file, which SQLite would create."""
    name = address.database or IN_MEMORY
    is_file = address.get_backend_name() == "sqlite" and name != IN_MEMORY and not name.startswith("file:")
    return is_file and not Path(name).is_file()


def _one_select(query: str) -> str:
    """Return the query without surrounding comments and semicolons.

    Raises:
      QueryRefused: the query is no SELECT, or more than one statement.
    """
    ends = [token for token in TOKENS.finditer(query) if token.lastgroup == "end"]
    rest = query[ends[0].end() :] if ends else ""
    statement = _stripped(query[: ends[0].start()] if ends else query)
    if _stripped(rest) or not re.match(r"[(\s]*(?:select|with)\b", statement, re.IGNORECASE):
        raise QueryRefused("source.query must be one SELECT; write it as one, without further statements")
    return statement


def _stripped(text: str) -> str:
    """Return the text without leading white space, comments and semicolons."""
    leading = LEADING.match(text)
    return text[leading.end() :] if leading else text


def _require_distinct(names: Iterable[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise QueryRefused(f"source.query gives the column {twice[0]!r} twice; name one of them with AS")


def _require_row_wise(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse a query unless its parsed form shows that it takes each row by itself."""
    (text,) = connection.execute("select json_serialize_sql(?::varchar)", [query]).fetchone() or ("{}",)
    form = json.loads(text)
    if form.get("error", True):
        raise QueryRefused("source.query must be one SELECT; write it as one, without further statements")
    faults = not_row_wise(form, _catalog(connection))
    if faults:
        raise QueryRefused(
            f"source.query uses {', '.join(faults)}, which can let one person's rows decide about another's; select"
            " rows of one table or of Parquet files one by one, with the functions that docs/guides/own-corpus.md"
            " lists, and leave duplicates and bounds to corpus.max_rows_per_unit"
        )
    _require_like_floats(connection, form)


def _require_like_floats(connection: duckdb.DuckDBPyConnection, form: Mapping[str, Any]) -> None:
    """Refuse files read as one table with a column of floats in one and whole numbers in another.

    DuckDB would cast them silently.
    """
    named = columns_named(form)
    for files in files_read(form):
        mixed = [name for (name,) in connection.execute(MIXED, [files]).fetchall()]
        columns = sorted(name for name in mixed if named is None or name.lower() in named)
        if columns:
            raise QueryRefused(
                f"source.query reads the column {columns[0]!r} as floats from one file and as another type from"
                " another; write it with one type, or select the columns that are needed by name"
            )


def _catalog(connection: duckdb.DuckDBPyConnection) -> Catalog:
    tables = "select database_name, schema_name, table_name from duckdb_tables()"
    views = "select database_name, schema_name, view_name from duckdb_views() where not internal"
    macros = "select function_name from duckdb_functions() where not internal"
    return Catalog(
        tables=_names(connection, tables),
        computed=_names(connection, f"{tables} where sql ilike '%generated always as%'"),
        views=_names(connection, views),
        macros=_names(connection, macros),
    )


def _names(connection: duckdb.DuckDBPyConnection, query: str) -> frozenset[str]:
    """Return names in lower case as a query may write them: with database and schema, with the schema, or alone."""
    rows = connection.execute(query).fetchall()
    return frozenset(".".join(row[start:]).lower() for row in rows for start in range(len(row)))


def _require_types(result: duckdb.DuckDBPyRelation) -> None:
    refused = [
        f"{name} ({kind})" for name, kind in zip(result.columns, result.types, strict=True) if kind.id in NOT_READ
    ]
    if refused:
        raise QueryRefused(
            f"source.query selects {', '.join(refused)}, which is not read; cast it to varchar or leave it out"
        )


def _frame(batch: Any) -> pl.DataFrame:
    return pl.DataFrame(batch)


def _objects(names: Sequence[str], rows: Sequence[Any]) -> pl.DataFrame:
    return pl.DataFrame(
        [pl.Series(name, [row[index] for row in rows], dtype=pl.Object) for index, name in enumerate(names)]
    )


def _refusal(what: str, error: Exception) -> QueryRefused:
    traceback.print_exception(error, file=sys.stderr)
    return QueryRefused(f"{what} ({type(error).__name__}); try it in the database itself to see why")
