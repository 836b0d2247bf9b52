"""The process that streams a data set: `python -m dp_assets.corpus.hub_reader`, which `hub.py` starts.

It reads a request from standard input and writes the rows to disk batch by batch, so it needs the memory of one batch
for any number of rows. Standard output carries one thing only: the message of a `SourceError`, which concerns the
configuration. Everything else goes to standard error.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from dp_assets.corpus.columns import SourceError, other_spellings, require_columns, source_rows
from dp_assets.corpus.hub import REFUSED
from dp_assets.corpus.presets import PRESETS
from dp_assets.corpus.settings import PresetSteps
from dp_assets.corpus.spool import ROWS_IN_A_BATCH, spool

STORED_WITH_TYPES = ("parquet", "arrow")


def main() -> int:
    """Read one request, and return the exit status."""
    request = json.load(sys.stdin)
    with _kept_for_refusals() as answer:
        try:
            if request["only_open"]:
                opened(request)
            else:
                spool(batches_of(request), Path(request["rows"]))
        except SourceError as refusal:
            print(refusal, end="", file=answer)
            return REFUSED
    return 0


@contextmanager
def _kept_for_refusals() -> Iterator[TextIO]:
    """Yield the real standard output, and redirect what libraries print there to standard error."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        yield answer


def batches_of(request: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
    """Yield the data set in batches with the columns of `SCANNED_ROWS`, after the steps of its preset.

    Raises:
      SourceError: see `HubSource.scan`.
    """
    preset, place = PRESETS.get(request["preset"] or ""), _place(request)
    names, stream = opened(request)
    for batch in stream.with_format("arrow").iter(batch_size=ROWS_IN_A_BATCH):
        rows = pl.DataFrame(batch).lazy()
        require_columns(names, rows.collect_schema().names(), place=place)
        columns = request["own_columns"] if preset is None else preset.columns
        try:
            remaining = rows if preset is None else preset.steps(rows, PresetSteps(**request["steps"]))
            remaining.collect_schema()
        except (pl.exceptions.PolarsError, TypeError):
            _explain()
            raise SourceError(
                f"the columns of {place} do not have the types of preset {request['preset']}; leave the"
                " preset out and map `columns`"
            ) from None
        yield source_rows(remaining, columns).collect()


def opened(request: Mapping[str, Any]) -> tuple[Sequence[str], Any]:
    """Return the names of the columns to read, and the split as a stream of them. No row is read.

    Raises:
      SourceError: see `HubSource.scan`.
    """
    preset, place = PRESETS.get(request["preset"] or ""), _place(request)
    names = sorted(set(request["own_columns"].values())) if preset is None else preset.read
    stream = _open(request, names, place)
    if stream.features is not None:
        require_columns(names, list(stream.features), place=place)
        others = other_spellings(stream.features, names).values()
        stream = stream.select_columns([*names, *chain(*others)])
    return names, stream


def _place(request: Mapping[str, Any]) -> str:
    return f"the data set {request['dataset'] or request['path']}"


def _open(request: Mapping[str, Any], names: Sequence[str], place: str) -> Any:
    """Return the split as a stream. No row is read."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise SourceError("source.kind 'huggingface' needs the package datasets: pip install datasets") from None
    try:
        builder = datasets.load_dataset_builder(**_where(request))
    except Exception as error:
        _explain()
        raise SourceError(
            f"{place} cannot be opened ({type(error).__name__}): check source.dataset or path, subset and revision, the"
            " network, and for a gated data set that its terms are accepted and HF_TOKEN is set"
        ) from None
    if builder.name not in STORED_WITH_TYPES:
        raise SourceError(
            f"{place} is stored as {builder.name}, whose types would be guessed from its rows; for one on the hub set"
            " source.revision to 'refs/convert/parquet', for local files use source.kind 'file'"
        )
    try:
        return _with_checked_files(builder, names, place).as_streaming_dataset(split=request["split"])
    except ValueError:
        _explain()
        raise SourceError(f"{place} has no split {request['split']!r}; correct source.split") from None
    except Exception as error:  # a file that is not Parquet, a missing file, a host that does not answer
        _explain()
        raise SourceError(
            f"the files of {place} cannot be opened ({type(error).__name__}); download them again"
        ) from None


def _with_checked_files(builder: Any, names: Sequence[str], place: str) -> Any:
    """Return a builder that requires the columns in each file.

    The library's own builder fills a column with nulls where only the first file has it.
    """
    cast = builder._cast_table

    def checked(table: Any) -> Any:
        require_columns(names, table.column_names, place=f"a file of {place}")
        first = builder.info.features.arrow_schema
        for name in set(names) & set(first.names):
            if _is_floating(table.schema, name) != _is_floating(first, name):
                raise SourceError(f"column {name!r} of {place} holds floats in one file and others in another")
        return cast(table)

    builder._cast_table = checked
    return builder


def _is_floating(schema: Any, name: str) -> bool:
    return pl.DataFrame(schema.empty_table().select([name])).dtypes[0].is_float()


def _where(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the library's arguments for a data set on the hub, a folder or a single file."""
    path = request["path"]
    if path is not None and Path(path).is_file():
        return {"path": "parquet", "data_files": {request["split"]: path}}
    return {"path": path or request["dataset"], "name": request["subset"], "revision": request["revision"]}


def _explain() -> None:
    """Print the traceback to standard error, which leads to the private log: it may depend on rows."""
    traceback.print_exc(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
