"""Both mechanisms between the real ledger and the real store, over private rows that note what the ledger says when
they are read.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from dp_assets.artifacts import Adapter, PrivateTable, Table
from dp_assets.pipeline.release_protocol import Readiness, ReleaseIdentity, obtain
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger_state import ChargeRecord
from dp_assets.privacy.registration import Registration
from dp_assets.selection.bins import digest_of
from dp_assets.selection.noisy_votes import NoisyVotes
from dp_assets.settings.profile import Profile
from dp_assets.vocabulary import Partition
from resources.ledger.ledger_resource import Ledger
from resources.models.loaders import LanguageModel
from resources.storage.stores import ReleaseStore
from tests.tiny_pipeline import register, tiny_profile
from tests.toy_mechanism import NothingElse

LEVEL, SNAPSHOT = "eps-8", "1"
NOTHING_ELSE = NothingElse()
CENTROIDS = np.eye(4, dtype=np.float32)
REAL_ROWS = pl.DataFrame(
    {
        "unit_id": [f"unit-{number}" for number in range(20)],
        "instruction_id": [f"instruction-{number}" for number in range(20)],
        "text": [f"what is the number {number}?" for number in range(20)],
        "cohort": ["all"] * 20,
        "split": ["train"] * 20,
        "vector": [CENTROIDS[number % 4].tolist() for number in range(20)],
    },
    schema_overrides={"vector": pl.Array(pl.Float32, 4)},
)


@dataclass
class Spy:
    """Private rows that record, each time they are read, what a second reader of the ledger finds in it."""

    private_root: str
    frame: pl.DataFrame
    seen: list[list[ChargeRecord]] = field(default_factory=list)

    def rows(self) -> pl.LazyFrame:
        def read(
            columns: list[str] | None, predicate: pl.Expr | None, num_rows: int | None, _: int | None
        ) -> Iterator[pl.DataFrame]:
            self.seen.append(list(Ledger(private_root=self.private_root).state().charges.values()))
            frame = self.frame if predicate is None else self.frame.filter(predicate)
            frame = frame if columns is None else frame.select(columns)
            yield frame if num_rows is None else frame.head(num_rows)

        return register_io_source(read, schema=self.frame.schema)


class Boundary:
    """A registered corpus, its watched rows, and both mechanisms over them."""

    def __init__(self, home: Path, model: Path, rows: pl.DataFrame = REAL_ROWS) -> None:
        self.home = home
        self.profile: Profile = tiny_profile(home / "corpus.parquet", model)
        self.plan = self.profile.plan(LEVEL)
        self.ledger = Ledger(private_root=str(home / Zone.PRIVATE))
        self.releases = ReleaseStore(home=str(home))
        self.registration: Registration = register(self.ledger, self.profile)
        self.made_with: dict[str, str] = {}
        self.spy = Spy(self.ledger.private_root, rows)
        self.table = PrivateTable(
            self.spy.rows(),
            corpus_id=self.registration.corpus_id,
            snapshot=SNAPSHOT,
            preparation=self.plan.unit.preparation,
        )

    @property
    def charges(self) -> list[ChargeRecord]:
        return list(self.ledger.state().charges.values())

    def identity(self, key: str) -> ReleaseIdentity:
        return ReleaseIdentity(
            Partition("all", LEVEL),
            corpus_id=self.registration.corpus_id,
            snapshot=SNAPSHOT,
            reuse_key=key,
            made_with=self.made_with,
            has_rows=True,
            query=None,
        )

    def obtain(self, mechanism: Any, key: str, rest_of_run: Readiness) -> Any:
        return obtain(
            mechanism, self.identity(key), ledger=self.ledger, releases=self.releases, rest_of_run=rest_of_run
        )

    def votes(self, kind: "type[UntriedVotes] | None" = None) -> NoisyVotes:
        centroids, digest = CENTROIDS.copy(), digest_of(CENTROIDS)
        bins, of = Table(pl.LazyFrame()), kind or UntriedVotes
        return of(self.plan, self.table, bins, centroids, digest, embedder="any", key=self.ledger.key)

    def histogram(
        self, key: str = "key", mechanism: NoisyVotes | None = None, rest_of_run: Readiness = NOTHING_ELSE
    ) -> Table:
        table: Table = self.obtain(mechanism or self.votes(), key, rest_of_run)
        return table

    def generator(self, key: str = "key", rest_of_run: Readiness = NOTHING_ELSE) -> Adapter:
        from tests.untried_generator import UntriedGenerator

        model = LanguageModel(model=self.profile.language_model, device="cpu", cache_root=str(self.home / "models"))
        checkpoints = self.home / Zone.PRIVATE / "checkpoints"
        mechanism = UntriedGenerator(self.plan, self.profile.generator, self.table, model, checkpoints)
        adapter: Adapter = self.obtain(mechanism, key, rest_of_run)
        return adapter


class UntriedVotes(NoisyVotes):
    """The real votes over vectors that no embedder made."""

    def require_ready(self) -> None:
        """The embedders are not compared."""
