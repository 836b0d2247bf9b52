"""Which release a mechanism may take again, and which private tables it may read: decided before any charge."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import polars as pl
import pytest

from dp_assets.artifacts import UNKNOWN_PREPARATION, PrivateTable
from dp_assets.pipeline.release_protocol import ReleaseIdentity
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.settings.profile import Profile
from resources.ledger.ledger_resource import ChargeRefused, Ledger
from tests.tiny_pipeline import register, tiny_profile

TWO_COHORTS = {"kind": "user_bucket", "num_buckets": 2}


class Bench:
    """Registered corpora, whose snapshots are tied to rows, and one mechanism over a table of them."""

    def __init__(self, home: Path) -> None:
        self.home, self.ledger = home, Ledger(private_root=str(home / "private"))
        self.corpus_id = self.registered("corpus")

    def profile(self, corpus: str = "corpus", **settings: Any) -> Profile:
        return tiny_profile(self.home / f"{corpus}.parquet", Path("no model"), cohorts=TWO_COHORTS, **settings)

    def registered(self, corpus: str) -> str:
        corpus_id = register(self.ledger, self.profile(corpus)).corpus_id
        for snapshot in ("1", "2"):
            rows = f"{corpus} {snapshot}"
            self.ledger.bind_rows(corpus_id, snapshot, rows=rows, texts=rows, preparation="settings")
        return corpus_id

    def identity(
        self,
        *,
        name: str = HISTOGRAM,
        partition: str = "bucket-0|eps-8",
        code_version: str = "1",
        corpus: str = "corpus",
        settings: Any = None,
        release: int = 1,
        inputs: Any = None,
        **table: Any,
    ) -> ReleaseIdentity:
        key, profile = dg.AssetKey(name), self.profile(corpus, **(settings or {}))
        asset = SimpleNamespace(code_versions_by_key={key: code_version})
        context: Any = SimpleNamespace(asset_key=key, partition_key=partition, assets_def=asset)
        held: dict[str, Any] = {"corpus_id": self.corpus_id, "snapshot": "1", "preparation": "user-wise", **table}
        rows = PrivateTable(pl.LazyFrame(), **held)
        mechanism: Any = SimpleNamespace(name=name, plan=profile.plan(partition.split("|")[1]))
        inputs = inputs or {"bins": "these"}
        return ReleaseIdentity.of(mechanism, context, self.ledger, profile, rows, release=release, inputs=inputs)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


OTHERS: dict[str, dict[str, Any]] = {
    "mechanism": {"name": GENERATOR},
    "cohort": {"partition": "bucket-1|eps-8"},
    "level": {"partition": "bucket-0|eps-1"},
    "version of the code": {"code_version": "2"},
    "release": {"release": 2},
    "inputs": {"inputs": {"bins": "others"}},
    "snapshot": {"snapshot": "2", "settings": {"snapshot": "2"}},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_release_is_taken_again_only_where_all_that_decides_it_is_the_same(bench: Bench, other: str) -> None:
    first = bench.identity().reuse_key
    assert bench.identity().reuse_key == first
    assert bench.identity(**OTHERS[other]).reuse_key != first


def test_a_release_of_one_corpus_is_never_taken_for_another(bench: Bench) -> None:
    second = bench.registered("second")
    assert bench.identity(corpus="second", corpus_id=second).reuse_key != bench.identity().reuse_key


def erase_somebody(bench: Bench) -> None:
    bench.ledger.record_erasure(bench.corpus_id, "user:gone", "asked for")


REFUSED: dict[str, tuple[dict[str, Any], Callable[[Bench], None], str]] = {
    "of another corpus": ({"corpus_id": "another"}, lambda bench: None, "another corpus"),
    "of another snapshot": ({"snapshot": "2"}, lambda bench: None, "another snapshot"),
    "from before an erasure": ({}, erase_somebody, "another snapshot"),
    "of a snapshot tied to no rows": (
        {"snapshot": "3", "settings": {"snapshot": "3"}},
        lambda bench: None,
        "not tied to their snapshot",
    ),
    "without a verdict": ({"preparation": UNKNOWN_PREPARATION}, lambda bench: None, "without a probe"),
}


@pytest.mark.parametrize("table", REFUSED)
def test_a_private_table_is_refused_before_a_charge(bench: Bench, table: str) -> None:
    changes, happens, reason = REFUSED[table]
    happens(bench)
    with pytest.raises(ChargeRefused, match=reason):
        bench.identity(**changes)
    assert bench.ledger.state().charges == {}
