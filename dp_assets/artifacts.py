"""The values that assets pass to each other.

    Table         released rows with the ids of the charges they descend from
    PrivateTable  a handle on private rows; opening it needs a charge
    Adapter       a LoRA adapter: tensors, PEFT configuration, charge ids
    Document      a JSON value and its Markdown (and perhaps HTML) rendering, with charge ids

A `LazyFrame` cannot carry the ids of the charges behind it through an in-memory run, hence `Table`. The IO managers
store the ids with the artifact itself (Parquet key-value metadata, a JSON file beside an adapter), so an artifact that
is copied elsewhere keeps its provenance. Tensors are NumPy arrays: this module is imported wherever assets are, and
must not pull in torch.
"""

import hashlib
import json
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

TRAIN_SPLIT = "train"
UNKNOWN_PREPARATION = "unknown"
EMBEDDER = "embedder"
"""Under this name a table of vectors, or of bins, says which embedder made them."""
SHORTAGE = "shortage"
"""Under this name the filtered set says how many of its rows stand in for rows that their bins could not give."""


def column_types(schema: pl.Schema) -> dict[str, str]:
    """The type of each column in words, in the order of the columns; arrays of one element type are alike."""
    return {
        name: f"Array({kind.inner})" if isinstance(kind, pl.Array) and len(kind.shape) == 1 else str(kind)
        for name, kind in schema.items()
    }


def union_of_ids(*artifacts: "Table | Adapter | Document | Iterable[str]") -> tuple[str, ...]:
    """The sorted set union of the charge ids of several artifacts, so that a diamond in the graph counts once."""
    ids: set[str] = set()
    for artifact in artifacts:
        ids.update(artifact.charge_ids if isinstance(artifact, Table | Adapter | Document) else artifact)
    return tuple(sorted(ids))


@dataclass(frozen=True)
class Table:
    """Released rows, the ids of every charge they descend from, and public facts about how they came about."""

    rows: pl.LazyFrame
    charge_ids: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def collect(self) -> pl.DataFrame:
        return self.rows.collect()


@dataclass(frozen=True)
class Adapter:
    """A PEFT LoRA adapter.

    `weights` maps PEFT state-dict names to float32 arrays, `config` is the content of `adapter_config.json`,
    `base_model` the id under which users find the base model, `record` public facts about the training; those of
    alignment have the form that `alignment/record.py` describes.
    """

    weights: Mapping[str, npt.NDArray[np.float32]]
    config: Mapping[str, Any]
    base_model: str
    charge_ids: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


def adapter_digest(weights: Mapping[str, npt.NDArray[np.float32]], config: Mapping[str, Any]) -> str:
    """A hash of an adapter: its tensors by name, and its configuration."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


CONTENT = "content_sha256"
"""Under this name a release says what it holds, as those observed it who watched it being made."""


def content_digest(artifact: Table | Adapter) -> str:
    """A hash of what a release holds: columns, types, rows and their order, or tensors and configuration."""
    if isinstance(artifact, Adapter):
        return adapter_digest(artifact.weights, {**artifact.config, "base_model": artifact.base_model})
    rows = artifact.collect()
    schema = [f"{name} {dtype}" for name, dtype in rows.schema.items()]
    return hashlib.sha256(json.dumps([schema, rows.rows()], default=repr).encode()).hexdigest()


@dataclass(frozen=True)
class Document:
    """A report: `data` is JSON-serialisable, `markdown` says the same for people, and so does `html` if it is there."""

    data: Mapping[str, Any]
    markdown: str
    charge_ids: tuple[str, ...] = ()
    html: str | None = None


class OpenableCharge(Protocol):
    """What a `PrivateTable` asks of a charge. The ledger resource implements it."""

    @property
    def corpus_id(self) -> str: ...

    @property
    def snapshot(self) -> str: ...

    @property
    def cohort(self) -> str: ...

    def mark_opened(self) -> None:
        """Record durably, before any row is read, that private rows were read under this charge."""


class ResumableCharge(OpenableCharge, Protocol):
    """What a mechanism that can be interrupted asks of its charge besides."""

    @property
    def charge_id(self) -> str: ...

    def continued(self, checkpoint: str) -> "ResumableCharge":
        """Record durably that the run goes on from this checkpoint; the result opens tables as a continuation."""


class ChargeMismatch(ValueError):
    """Rows of another corpus or snapshot than the charge's, or the other table's, were asked for."""


class PrivateTable:
    """A handle on private rows whose `repr` says nothing and that refuses to be pickled.

    Rows leave it in two ways only: `open(charge)`, for a mechanism, with `as_stored` for its evidence, and `map`, whose
    result is private again.
    `preparation` is the verdict of a probe on how the rows came about, such as "user-wise" (`corpus/stability.py`).
    `made_with` names the models and the versions of libraries that made the rows. It is public: a release that reads
    the table repeats it. `empty_cohorts` names planned cohorts that the preparation left without a row to train on; it
    is as private as the rows. `held` lives as long as this table and those made from it, such as a folder of its rows.
    `widths` are those of its columns of arrays, where they are known without opening the rows.
    """

    __slots__ = (
        "_held",
        "_opened_under",
        "_rows",
        "_widths",
        "corpus_id",
        "empty_cohorts",
        "made_with",
        "preparation",
        "snapshot",
    )

    def __init__(
        self,
        rows: pl.LazyFrame,
        *,
        corpus_id: str,
        snapshot: str,
        preparation: str = UNKNOWN_PREPARATION,
        made_with: Mapping[str, str] | None = None,
        empty_cohorts: Iterable[str] = (),
        held: object = None,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        self._rows = rows
        self._held = held
        self._widths = widths
        self._opened_under: OpenableCharge | None = None
        self.corpus_id = corpus_id
        self.snapshot = snapshot
        self.preparation = preparation
        self.made_with = dict(made_with or {})
        self.empty_cohorts = tuple(sorted(empty_cohorts))

    def open(self, charge: OpenableCharge) -> pl.LazyFrame:
        """The training rows of the charge's cohort; the charge is marked as opened first.

        Raises:
          ChargeMismatch: the charge was booked for another corpus or snapshot.
        """
        if (charge.corpus_id, charge.snapshot) != (self.corpus_id, self.snapshot):
            raise ChargeMismatch(
                "charge.corpus_id or charge.snapshot differs from the table's; materialize real_instructions and"
                " real_embeddings again from the registered source before running this mechanism"
            )
        charge.mark_opened()
        self._opened_under = charge
        return self._rows.filter(pl.col("cohort") == charge.cohort, pl.col("split") == TRAIN_SPLIT)

    def as_stored(self, charge: OpenableCharge) -> pl.LazyFrame:
        """The rows that `open` should have given, read again, so that evidence can compare what a mechanism used.

        Shares no code with `open`, which may be changed.

        Raises:
          ChargeMismatch: the table was not opened under this charge.
        """
        if self._opened_under is not charge:
            raise ChargeMismatch("the table was not opened under this charge; open it before its rows are compared")
        of_charge = {"cohort": charge.cohort, "split": TRAIN_SPLIT}
        return self._rows.filter(pl.all_horizontal(pl.col(name).is_in([value]) for name, value in of_charge.items()))

    def map(
        self,
        transform: Callable[..., pl.LazyFrame],
        *others: "PrivateTable",
        made_with: Mapping[str, str] | None = None,
        held: object = None,
    ) -> "PrivateTable":
        """Private rows computed from the rows of this and other private tables, passed in order.

        `transform` must not keep or show what it sees, and must compute each row from rows of the same unit: the
        result is called prepared as the tables are, where they agree. It is made with what the tables are made with,
        and `made_with`; `held` is what its own rows need.

        Raises:
          ChargeMismatch: the tables hold different corpora or snapshots.
        """
        tables = (self, *others)
        if len({(table.corpus_id, table.snapshot) for table in tables}) > 1:
            raise ChargeMismatch(
                "the private tables hold different corpora or snapshots; materialize real_instructions and"
                " real_embeddings again"
            )
        preparations = {table.preparation for table in tables}
        return PrivateTable(
            transform(*(table._rows for table in tables)),
            corpus_id=self.corpus_id,
            snapshot=self.snapshot,
            preparation=self.preparation if len(preparations) == 1 else UNKNOWN_PREPARATION,
            made_with=dict(ChainMap(dict(made_with or {}), *(table.made_with for table in tables))),
            empty_cohorts={cohort for table in tables for cohort in table.empty_cohorts},
            held=(held, *(table._held for table in tables)),
        )

    def width(self, column: str) -> int:
        """How long each array of a column is: public, since it follows from configuration and never from a row.

        Asked before a charge, so a stored table answers without opening its rows.
        """
        if self._widths is not None and column in self._widths:
            return self._widths[column]
        stored = self._rows.collect_schema()[column]
        if not isinstance(stored, pl.Array):
            raise TypeError(f"the column {column} holds no arrays of a fixed length")
        return stored.size

    def store(self, write: Callable[[pl.LazyFrame], None]) -> None:
        """Hand the rows to a writer of the private zone. For IO managers only."""
        write(self._rows)

    def release(self) -> None:
        """Let go of what was `held` for the rows, which are read from where they are stored. For IO managers only."""
        self._held = None

    def __repr__(self) -> str:
        return "PrivateTable(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PrivateTable is never pickled: its rows stay in the private zone")
