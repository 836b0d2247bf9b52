"""Both mechanisms between the real ledger and the real store, over private rows that note what the ledger says when
they are read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from dp_assets.artifacts import Adapter, PrivateTable, Table
from dp_assets.pipeline.partitions import Partition
from dp_assets.pipeline.release_protocol import Mechanism, obtain
from dp_assets.privacy.claim import check_dpsgd, check_votes
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger import ChargeRecord
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.privacy.registration import Registration
from dp_assets.selection.bins import digest_of
from dp_assets.selection.release import release_votes
from dp_assets.settings.profile import Profile
from resources.ledger.charging import Charge, Ledger
from resources.models.loaders import LanguageModel
from resources.storage.stores import ReleaseStore
from tests.tiny_pipeline import register, tiny_profile

LEVEL, SNAPSHOT = "eps-8", "1"
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

    def mechanism(self, name: str, key: str) -> Mechanism:
        place = self.plan, Partition("all", LEVEL), self.registration.corpus_id
        return Mechanism(name, *place, SNAPSHOT, key, made_with=self.made_with)

    def vote(self, charge: Charge) -> tuple[Table, Evidence]:
        return release_votes(
            charge,
            table=self.table,
            centroids=CENTROIDS.copy(),
            bins=digest_of(CENTROIDS),
            noise_stddev=self.plan.votes.noise_stddev,
            key=self.ledger.key,
            upstream_ids=(),
        )

    def histogram(
        self,
        key: str = "key",
        run: Callable[[Charge], tuple[Table, Evidence]] | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> Table:
        return obtain(
            self.mechanism(HISTOGRAM, key),
            ledger=self.ledger,
            releases=self.releases,
            run=run or self.vote,
            ready=(ready,),
            check=partial(check_votes, self.plan.votes, self.plan.unit),
        )

    def generator(self, key: str = "key", ready: Callable[[], None] = lambda: None) -> Adapter:
        from dp_assets.generation.generator import can_resume, public_record, train_generator

        model = LanguageModel(model=self.profile.language_model, device="cpu", cache_root=str(self.home / "models"))
        load_model = cache(partial(model.load, dtype="float32"))
        checkpoints = self.home / Zone.PRIVATE / "checkpoints"
        return obtain(
            self.mechanism(GENERATOR, key),
            ledger=self.ledger,
            releases=self.releases,
            run=partial(
                train_generator,
                table=self.table,
                plan=self.plan,
                load_model=load_model,
                base_model="tiny",
                checkpoints_root=checkpoints,
                **self.profile.generator.tuning(),
            ),
            ready=(ready,),
            check=partial(check_dpsgd, self.plan.dpsgd, self.plan.unit, delta=self.plan.delta),
            resumable=partial(can_resume, checkpoints, self.plan.dpsgd.spare_steps),
            describe=partial(public_record, self.plan, load_model),
        )
