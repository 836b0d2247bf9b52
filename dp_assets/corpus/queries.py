"""A database query as a source. The reader, which knows the database, is handed in.

The query belongs to the preparation, so it has to treat rows apart: what one person wrote must not decide what becomes
of another's rows. Each row of the result should be one instruction.
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
"""What may stand between quotes or behind signs of a comment in some dialect; else white space."""

ReadQuery = Callable[[Path], Generator[pl.DataFrame, None, None]]
"""Batches of a query's result, an empty one if there is no row; the folder is for what the database spills.

A column of a database that has no types is one of objects, as its driver gives them."""


def query_digest(query: str) -> str:
    """A digest of a query, the same however it is laid out."""
    written = VERBATIM.sub(lambda part: part[1] or " ", query)
    return hashlib.sha256(written.strip().encode()).hexdigest()


@dataclass(frozen=True)
class QuerySource:
    """The rows of `query` on `database`, a public name of it: a path or the name of a variable, never an address.

    `columns_of` opens the database without reading rows, and says which columns the result has if that is known then.

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
        """Without the query, a term of its own: another one on the same database is about the same people."""
        return f"sql:{self.database}"

    def scan(self, scratch: Path) -> pl.LazyFrame:
        """The result, which lies in `scratch` by the time this returns.

        Raises:
          SourceError: the query is refused, or its result lacks a mapped column or holds one of another type.
        """
        rows, spilled = scratch / "rows", scratch / "spilled"
        rows.mkdir()
        spilled.mkdir()
        with closing(self.read(spilled)) as batches:  # the database too, wherever reading ends
            spool(map(self._typed, batches), rows)
        return spooled(rows)

    def require_opened(self) -> None:
        """Open the database, and see whether the result has the mapped columns, without reading rows.

        Raises:
          SourceError: it cannot be opened, the query is refused, or a column is missing.
        """
        found = self.columns_of()
        if found is not None:
            require_columns(sorted(set(self.columns.values())), found, place="the result of source.query")

    def _typed(self, batch: pl.DataFrame) -> pl.DataFrame:
        require_columns(sorted(set(self.columns.values())), batch.columns, place="the result of source.query")
        objects = [column for column in batch.select(set(self.columns.values())) if column.dtype == pl.Object]
        texts = [as_stored(column.to_list(), column.name) for column in objects]
        return source_rows(batch.with_columns(texts).lazy(), self.columns).collect()
