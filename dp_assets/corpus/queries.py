"""A database query as a source. The caller passes the reader, which knows the database.

The query is part of the preparation, so it must treat users independently: one user's rows must not affect what it
returns for another. Each row of the result should be one instruction.
"""

import hashlib
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dp_assets.corpus.columns import as_stored, check_mapping, require_columns, source_rows
from dp_assets.corpus.spool import spool, spooled

VERBATIM = re.compile(
    r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\$(\w*)\$.*?\$\2\$|(?:--|#)[^\n]*\n?|/\*.*?\*/)|\s+", re.DOTALL
)
"""Group 1 is what some dialect may quote or comment out, which stays as written; the rest is white space."""

ReadQuery = Callable[[Path], Generator[pl.DataFrame, None, None]]
"""Yields a query's result in batches, an empty one if there is no row. The folder is for files the database spills.

A column from a database without types has the type Object, with the values that the driver returns."""


def query_digest(query: str) -> str:
    """Return a digest of a query that does not depend on its white space."""
    written = VERBATIM.sub(lambda part: part[1] or " ", query)
    return hashlib.sha256(written.strip().encode()).hexdigest()


@dataclass(frozen=True)
class QuerySource:
    """The rows of `query` on a database.

    database     its public name: a path or the name of a variable, never an address
    columns      our column names to the result's
    read         reads the result
    columns_of   opens the database without reading rows; returns the result's columns if they are known then

    Raises:
      SourceError: the mapping lacks `text` or has an unknown name.
    """

    database: str
    query: str
    columns: Mapping[str, str]
    read: ReadQuery
    columns_of: Callable[[], list[str] | None] = lambda: None

    def __post_init__(self) -> None:
        check_mapping(self.columns)

    @property
    def locator(self) -> str:
        """The name of the database alone. The query is separate, because other queries concern the same people."""
        return f"sql:{self.database}"

    def scan(self, scratch: Path) -> pl.LazyFrame:
        """Return the result, which is in `scratch` when this returns.

        Raises:
          SourceError: the query is refused, or its result lacks a mapped column or holds one of another type.
        """
        rows, spilled = scratch / "rows", scratch / "spilled"
        rows.mkdir()
        spilled.mkdir()
        with closing(self.read(spilled)) as batches:  # closes the database too, also after an error
            spool(map(self._typed, batches), rows)
        return spooled(rows)

    def require_opened(self) -> None:
        """Open the database and require the mapped columns in the result, without reading rows.

        Raises:
          SourceError: the database cannot be opened, the query is refused, or a column is missing.
        """
        columns = self.columns_of()
        if columns is not None:
            require_columns(sorted(set(self.columns.values())), columns, place="the result of source.query")

    def _typed(self, batch: pl.DataFrame) -> pl.DataFrame:
        require_columns(sorted(set(self.columns.values())), batch.columns, place="the result of source.query")
        objects = [column for column in batch.select(set(self.columns.values())) if column.dtype == pl.Object]
        texts = [as_stored(column.to_list(), column.name) for column in objects]
        return source_rows(batch.with_columns(texts).lazy(), self.columns).collect()
