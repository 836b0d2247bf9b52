"""A run prepares a source as its test on public rows does, and binds what came of it."""

from pathlib import Path

import pytest

from dp_assets.corpus.prepare import Preparation
from dp_assets.pipeline.corpus import preparation_of, source_of
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.stages.preparation import CorpusPreparation, bind
from resources.build import build_resources
from resources.ledger.ledger_resource import SnapshotConflict
from tests.tiny_pipeline import register, tiny_profile, write_corpus

KEY = b"key"


@pytest.fixture
def steps(tmp_path: Path) -> Preparation:
    return preparation_of(tiny_profile(write_corpus(tmp_path / "corpus.parquet"), Path("no model")), KEY)


def test_the_verdict_is_that_of_the_unit_and_the_probe_leaves_the_folder_of_the_run_alone(
    steps: Preparation, tmp_path: Path
) -> None:
    preparation = CorpusPreparation(steps, frozenset())
    (tmp_path / "scratch").mkdir()
    assert preparation.tested(tmp_path / "scratch/probe", cohort="all") == PrivacyUnit.USER.preparation
    source = source_of(tiny_profile(tmp_path / "corpus.parquet", Path("no model")))
    prepared = preparation.run(source, tmp_path / "scratch")
    assert prepared.rows.collect().height > 0
    assert prepared.cohorts == {"all"}
    assert len(set(prepared.unit_hashes)) == prepared.rows.collect()["unit_id"].n_unique()


def test_rows_bound_to_a_snapshot_are_not_replaced_by_others(steps: Preparation, tmp_path: Path) -> None:
    profile = tiny_profile(tmp_path / "corpus.parquet", Path("no model"))
    ledger = build_resources(profile, tmp_path / "data")["ledger"]
    corpus_id = register(ledger, profile).corpus_id
    preparation = CorpusPreparation(steps, frozenset())
    prepared = preparation.run(source_of(profile), tmp_path / "one")
    bind(ledger, prepared, corpus_id, "1", "digest")
    bind(ledger, preparation.run(source_of(profile), tmp_path / "two"), corpus_id, "1", "digest")
    write_corpus(tmp_path / "corpus.parquet", num_users=30)
    with pytest.raises(SnapshotConflict, match="snapshot"):
        bind(ledger, preparation.run(source_of(profile), tmp_path / "three"), corpus_id, "1", "digest")
