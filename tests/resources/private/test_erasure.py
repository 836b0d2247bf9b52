"""Erasing a unit: what goes, what stays, in which order, and that nobody learns whether there was anything."""

import stat
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from dp_assets.artifacts import PrivateTable, Table
from dp_assets.corpus.fingerprint import fingerprint
from dp_assets.corpus.prepare import drop_erased
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.plan import HISTOGRAM, DpSgdPlan, VotesPlan, make_plan
from dp_assets.privacy.registration import Registration, Terms
from dp_assets.privacy.units import PrivacyUnit
from resources.ledger.ledger_resource import ChargeRefused, Ledger, SnapshotConflict
from resources.private import erasure
from resources.private.erasure import ErasureRefused, erase
from resources.private.private_step import PrivateStepFailed, private_step
from resources.storage.artifact_files import SHARDS, read_artifact, write_artifact
from resources.storage.zones import atomic_folder, private_folder
from tests.leaks import files_holding

GONE, KEPT, ABSENT = "user:" + "a" * 32, "user:" + "b" * 32, "user:" + "c" * 32
SECRET = "zq4711kumquat"
TABLES = ("real_instructions", "real_embeddings")
PLAN = make_plan(
    "eps-8",
    delta=1e-5,
    unit=PrivacyUnit.USER,
    max_rows_per_unit=2,
    dpsgd=DpSgdPlan(
        sampling_probability=0.25,
        steps=2,
        spare_steps=1,
        l2_clip_norm=0.5,
        noise_multiplier=0.0,
        expected_batch_size=16,
    ),
    votes=VotesPlan(num_bins=4, noise_stddev=4.0),
)
TERMS = Terms(
    unit=PrivacyUnit.USER,
    unit_columns="user",
    max_rows_per_unit=2,
    cohorts=("all",),
    cohort_function="all",
    delta=1e-5,
    budget_epsilon=8.0,
    is_public=False,
)


class House:
    """A data folder in which everything that may hold rows does, those of a unit to be erased and those of another."""

    def __init__(self, home: Path) -> None:
        self.private, self.released = home / Zone.PRIVATE, home / Zone.RELEASED
        self.ledger = Ledger(private_root=str(self.private))
        self.corpus: Registration = self.ledger.register(locator="here", terms=TERMS, plans=[PLAN])
        for name in TABLES:
            self.store(name, corpus_id=self.corpus.corpus_id)
        self.write("artifacts/restricted_report/all/eps-8/part-00000.parquet")
        self.write("artifacts/filtered_instructions/all/no-dp/part-00000.parquet")
        self.write("artifacts/.real_instructions.1234.tmp/part-00000.parquet")
        self.write("releases/dp_histogram/some-key/part-00000.parquet")
        self.write("checkpoints/charge/state.pt")
        self.write("checkpoints/charge/lock")
        self.write("tmp/spilled")
        self.write("log/errors.log")
        with atomic_folder(self.released / "artifacts/dp_histogram/all/eps-8", Zone.RELEASED) as folder:
            write_artifact(folder, Table(pl.LazyFrame({"noisy_votes": [1, 2]})))

    def table(self, name: str) -> Path:
        return self.private / "artifacts" / name

    def store(self, name: str, *, corpus_id: str, snapshot: str = "1") -> None:
        rows = pl.LazyFrame({"unit_id": [GONE, KEPT, GONE], "text": [SECRET, "bread", SECRET]})
        with atomic_folder(self.table(name), Zone.PRIVATE) as folder:
            write_artifact(folder, PrivateTable(rows, corpus_id=corpus_id, snapshot=snapshot))

    def write(self, path: str) -> None:
        private_folder((self.private / path).parent)
        (self.private / path).write_text("" if path.endswith("lock") else f"a row: {SECRET}")
        (self.private / path).chmod(0o600)

    def erase(self, unit_id: str = GONE) -> None:
        drop = partial(drop_erased, key=self.ledger.key)
        hashed = partial(fingerprint, key=self.ledger.key)
        corpus_id = self.corpus.corpus_id
        erase(self.ledger, corpus_id=corpus_id, unit_id=unit_id, reason="asked for", drop=drop, fingerprint=hashed)

    def holding(self, text: str) -> set[Path]:
        return {path.relative_to(self.private) for path in files_holding(self.private, text)}

    def rows(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.table(name) / SHARDS)

    def snapshot_of(self, name: str) -> str:
        table = read_artifact(self.table(name))
        assert isinstance(table, PrivateTable)
        return table.snapshot


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    assert len(house.holding(SECRET)) == 9
    return house


def test_nothing_of_an_erased_unit_is_left_in_the_private_root(house: House) -> None:
    house.erase()
    assert house.holding(SECRET) == set()
    assert house.holding(GONE) == set()


@pytest.mark.parametrize("name", TABLES)
def test_private_tables_keep_the_other_units_under_the_ledgers_snapshot_and_closed_modes(
    house: House, name: str
) -> None:
    house.erase()
    assert house.rows(name).rows() == [(KEPT, "bread")]
    assert house.snapshot_of(name) == house.ledger.state().snapshot(house.corpus.corpus_id, "1") != "1"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (house.table(name), *house.table(name).iterdir())}
    assert modes == {0o700, 0o600}


def test_the_snapshot_that_an_erasure_leaves_is_tied_to_what_is_left(house: House) -> None:
    corpus_id, key = house.corpus.corpus_id, house.ledger.key
    before = fingerprint(house.rows(TABLES[0]).lazy(), key=key)
    house.ledger.bind_rows(corpus_id, "1", rows=before, texts="texts", preparation="settings")
    house.erase()
    snapshot, left = house.snapshot_of(TABLES[0]), fingerprint(house.rows(TABLES[0]).lazy(), key=key)
    house.ledger.bind_rows(corpus_id, snapshot, rows=left, texts="texts", preparation="settings")
    with pytest.raises(SnapshotConflict, match="source changed"):
        house.ledger.bind_rows(corpus_id, snapshot, rows="more rows", texts="texts", preparation="settings")
    with pytest.raises(ChargeRefused, match=r"corpus\.snapshot"):
        house.ledger.check_preparation(corpus_id, snapshot, "other settings")


def test_a_second_erasure_changes_the_snapshot_of_tables_that_were_rewritten_before(house: House) -> None:
    house.erase()
    house.erase(KEPT)
    assert house.rows(TABLES[0]).is_empty()
    assert house.snapshot_of(TABLES[0]) == house.ledger.state().snapshot(house.corpus.corpus_id, "1")


def test_charges_releases_and_the_lock_of_the_checkpoints_stay(house: House) -> None:
    place = {"corpus_id": house.corpus.corpus_id, "cohort": "all", "snapshot": "1", "reuse_key": "key"}
    house.ledger.charge(plan=PLAN, mechanism=HISTOGRAM, **place)
    before = house.ledger.state()
    house.erase()
    after = house.ledger.state()
    assert after.charges == before.charges
    assert after.cohort_epsilon(house.corpus.corpus_id, "all") == before.cohort_epsilon(house.corpus.corpus_id, "all")
    assert list((house.released / "artifacts/dp_histogram/all/eps-8").iterdir())
    assert [path.name for path in (house.private / "checkpoints/charge").iterdir()] == ["lock"]


def test_the_log_is_emptied_in_place_with_its_mode(house: House) -> None:
    house.erase()
    log = house.private / "log/errors.log"
    assert log.read_text() == ""
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_the_ledger_knows_the_unit_by_a_hash_that_another_key_does_not_give(house: House, tmp_path: Path) -> None:
    house.erase()
    other = Ledger(private_root=str(tmp_path / "other/private"))
    (known,) = house.ledger.state().erasures[house.corpus.corpus_id]
    assert known == house.ledger.erased_hash(GONE) != other.erased_hash(GONE)


def test_erasing_an_absent_unit_has_the_same_effects_but_for_rows(house: House) -> None:
    house.erase(ABSENT)
    assert house.rows(TABLES[0]).height == 3
    assert house.snapshot_of(TABLES[0]) == house.ledger.state().snapshot(house.corpus.corpus_id, "1") != "1"
    assert {path.parts[1] for path in house.holding(SECRET)} == set(TABLES)


def test_a_table_of_another_corpus_keeps_its_rows(house: House) -> None:
    terms, plans = TERMS, [PLAN]
    other = house.ledger.register(locator="elsewhere", terms=terms, plans=plans).corpus_id
    house.store(TABLES[0], corpus_id=other)
    house.erase()
    assert house.rows(TABLES[0]).height == 3
    assert house.snapshot_of(TABLES[0]) == "1"


def test_a_table_that_cannot_be_rewritten_is_removed(house: House) -> None:
    (shard,) = house.table(TABLES[0]).glob(SHARDS)
    shard.write_bytes(shard.read_bytes()[:40] + SECRET.encode())
    house.erase()
    assert not house.table(TABLES[0]).exists()
    assert house.rows(TABLES[1]).height == 1


def test_nothing_is_erased_or_logged_while_a_step_reads_private_rows(house: House) -> None:
    before = house.ledger.state().anchor
    with private_step(str(house.private)), pytest.raises(ErasureRefused, match="is running"):
        house.erase()
    assert house.ledger.state().anchor == before
    assert len(house.holding(SECRET)) == 9


def break_off(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["_rewrite", "_remove", "_remove_content", "_discard_checkpoints", "_empty_files"])
def test_an_erasure_that_was_broken_off_is_in_the_ledger_and_is_completed_by_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(erasure, step, break_off)
        with pytest.raises(KeyboardInterrupt):
            house.erase()
    assert house.ledger.erased_hash(GONE) in house.ledger.state().erasures[house.corpus.corpus_id]
    assert house.holding(SECRET)
    house.erase()
    assert house.holding(SECRET) == set()


def test_a_refused_event_removes_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "record_erasure", break_off)
    with pytest.raises(KeyboardInterrupt):
        house.erase()
    assert len(house.holding(SECRET)) == 9


def test_a_failure_in_the_middle_says_nothing_of_what_it_met(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def quote(_: Path) -> None:
        raise OSError(f"cannot remove a file that holds {SECRET}")

    monkeypatch.setattr(erasure, "_discard_checkpoints", quote)
    with pytest.raises(PrivateStepFailed) as failure:
        house.erase()
    assert SECRET not in str(failure.value.description)


def test_an_empty_private_root_can_be_erased_from(tmp_path: Path) -> None:
    ledger = Ledger(private_root=str(tmp_path / "private"))
    corpus_id = ledger.register(locator="here", terms=TERMS, plans=[PLAN]).corpus_id
    drop = partial(drop_erased, key=ledger.key)
    hashed = partial(fingerprint, key=ledger.key)
    erase(ledger, corpus_id=corpus_id, unit_id=GONE, reason="asked for", drop=drop, fingerprint=hashed)
    assert len(ledger.state().erasures[corpus_id]) == 1
