"""The values that assets pass to each other.

    Table         released rows with the ids of the charges they descend from
    PrivateTable  a handle on private rows; opening it needs a charge
    Adapter       a LoRA adapter: tensors, PEFT configuration, charge ids
    Document      a JSON value and its Markdown (and optional HTML) rendering, with charge ids

A `LazyFrame` cannot carry charge ids through an in-memory run, so `Table` does. The IO managers store the ids with the
artifact itself (in Parquet key-value metadata, or in a JSON file beside an adapter), so a copied artifact keeps its
provenance. Tensors are NumPy arrays, because this module is imported wherever assets are and must not import torch.
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
"""The record key under which a table of vectors, or of bins, names the embedder that made them."""
SHORTAGE = "shortage"
"""The record key under which the filtered set gives the number of rows that replace rows missing in their bins."""


def column_types(schema: pl.Schema) -> dict[str, str]:
    """Return the type of each column in words, in column order, without the lengths of arrays."""
    return {
        name: f"Array({kind.inner})" if isinstance(kind, pl.Array) and len(kind.shape) == 1 else str(kind)
        for name, kind in schema.items()
    }


def union_of_ids(*artifacts: "Table | Adapter | Document | Iterable[str]") -> tuple[str, ...]:
    """Return the sorted union of the charge ids of several artifacts, so that a diamond in the graph counts once."""
    ids: set[str] = set()
    for artifact in artifacts:
        ids.update(artifact.charge_ids if isinstance(artifact, Table | Adapter | Document) else artifact)
    return tuple(sorted(ids))


@dataclass(frozen=True)
class Table:
    """Released rows, the ids of every charge they descend from, and public facts about how they were made."""

    rows: pl.LazyFrame
    charge_ids: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def collect(self) -> pl.DataFrame:
        """Read the rows into memory."""
        return self.rows.collect()


@dataclass(frozen=True)
class Adapter:
    """A PEFT LoRA adapter.

    - `weights` maps PEFT state-dict names to float32 arrays.
    - `config` is the content of `adapter_config.json`.
    - `base_model` is the id under which users find the base model.
    - `record` holds public facts about the training. `alignment/record.py` describes those of aligned models.
    """

    weights: Mapping[str, npt.NDArray[np.float32]]
    config: Mapping[str, Any]
    base_model: str
    charge_ids: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


def adapter_digest(weights: Mapping[str, npt.NDArray[np.float32]], config: Mapping[str, Any]) -> str:
    """Return a hash of an adapter: of its tensors by name, and its configuration."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


CONTENT = "content_sha256"
"""The record key under which a release states the hash of its content, as observed while it was made."""


def content_digest(artifact: Table | Adapter) -> str:
    """Return a hash of a release's content: columns, types, rows and their order, or tensors and configuration."""
    if isinstance(artifact, Adapter):
        return adapter_digest(artifact.weights, {**artifact.config, "base_model": artifact.base_model})
    rows = artifact.collect()
    schema = [f"{name} {dtype}" for name, dtype in rows.schema.items()]
    return hashlib.sha256(json.dumps([schema, rows.rows()], default=repr).encode()).hexdigest()


@dataclass(frozen=True)
class Document:
    """A report: `data` is JSON-serializable; `markdown` and the optional `html` present the same to people."""

    data: Mapping[str, Any]
    markdown: str
    charge_ids: tuple[str, ...] = ()
    html: str | None = None


class OpenableCharge(Protocol):
    """The interface that `PrivateTable` needs of a charge. The ledger resource implements it."""

    @property
    def corpus_id(self) -> str:
        """The corpus that it was booked for."""

    @property
    def snapshot(self) -> str:
        """The snapshot that it was booked for."""

    @property
    def cohort(self) -> str:
        """The cohort that it was booked for."""

    def mark_opened(self) -> None:
        """Record durably, before any row is read, that private rows were read under this charge."""


class ResumableCharge(OpenableCharge, Protocol):
    """The further interface that a resumable mechanism needs of its charge."""

    @property
    def charge_id(self) -> str:
        """Its id in the ledger."""

    def continued(self, checkpoint: str) -> "ResumableCharge":
        """Record durably that the run is resumed from this checkpoint. The result opens tables as a continuation."""


class ChargeMismatch(ValueError):
    """Rows were requested for a charge of another corpus or snapshot, or tables of different corpora were combined."""


class PrivateTable:
    """A handle on private rows. Its `repr` reveals nothing, and it refuses to be pickled.

    A mechanism reads the rows by `open(charge)`, and by `as_stored` for its evidence. `map` makes another private
    table. Without a charge, `store` passes the rows to a writer of the private zone: the IO manager, the restricted
    report and the erasure of a unit.

    - `preparation` is a probe's verdict on how the rows were prepared, such as "user-wise" (`corpus/stability.py`).
    - `made_with` names the models and library versions that made the rows. It is public: a release that reads the table
      repeats it.
    - `empty_cohorts` names planned cohorts that the preparation left without a training row. It is as private as the
      rows.
    - `held` is an object that lives as long as this table and those made from it, such as a folder of its rows.
    - `widths` are the lengths of its array columns, where they are known without opening the rows.
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
        """Return the training rows of the charge's cohort, after marking the charge as opened.

        Raises:
          ChargeMismatch: the charge is for another corpus or snapshot.
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
        """Return the rows that `open` should have returned, read again, for comparison with what a mechanism used.

        Shares no code with `open`, so that a change of `open` is detected.

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
        """Return private rows computed from the rows of this and other private tables, passed in order.

        - `transform` must not keep or show the rows, and must compute each row from rows of the same unit. The result
          keeps the preparation of the tables if they agree on one.
        - `made_with` is added to what the tables were made with.
        - `held` is an object that the new rows need.

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
        """Return the length of each array in a column. It is public: it follows from configuration, never from a row.

        It is read before a charge, so a stored table answers without opening its rows.
        """
        if self._widths is not None and column in self._widths:
            return self._widths[column]
        stored = self._rows.collect_schema()[column]
        if not isinstance(stored, pl.Array):
            raise TypeError(f"the column {column} holds no arrays of a fixed length")
        return stored.size

    def store(self, write: Callable[[pl.LazyFrame], None]) -> None:
        """Pass the rows to a writer of the private zone."""
        write(self._rows)

    def drop_held(self) -> None:
        """Drop what was `held` for the rows, which are read from their stored files now. For IO managers only."""
        self._held = None

    def __repr__(self) -> str:
        return "PrivateTable(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PrivateTable is never pickled: its rows stay in the private zone")
