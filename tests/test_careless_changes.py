"""Twelve changes that a hurried engineer might make, each on the real assets: every one is refused or seen.

`test_planted_differences.py` holds the differences inside a mechanism. Here are those around it, from the source to
what is stored.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.artifacts import Table
from dp_assets.assets import dp_histogram as histogram_module
from dp_assets.corpus import prepare
from dp_assets.dpsgd import training
from dp_assets.dpsgd.checkpoints import Checkpoints
from dp_assets.pipeline.release_protocol import ReleaseIdentity
from dp_assets.privacy import metadata
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.privacy.sampling_and_noise import PoissonSampler
from dp_assets.selection import noisy_votes, votes
from resources.models.loaders import Embedder
from resources.storage import artifact_files, stores
from tests.test_reads_before_the_charge import PLANNED, TOO_LARGE, Site

Change = Callable[[pytest.MonkeyPatch], None]
SECRET = "a text of the corpus"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Site:
    return Site(tmp_path_factory.mktemp("prepared"), tiny_model_folder)


@pytest.fixture
def site(prepared: Site, tmp_path: Path) -> Site:
    """A copy of the prepared data folder, which a test may spoil."""
    return prepared.copied_to(tmp_path)


def failures(site: Site, partition: str | None, *assets: str) -> str:
    """What a run that must fail says to everybody."""
    events = [event for event in site.run(partition, *assets).all_events if event.is_step_failure]
    assert events, "nothing failed"
    errors = [event.step_failure_data.error for event in events]
    return "\n".join(str(error and error.to_string()) for error in errors)


def after_the_release(change: Callable[[Table], Table]) -> Change:
    """The asset goes on with a changed release."""
    obtain = histogram_module.obtain
    return lambda patch: patch.setattr(
        histogram_module, "obtain", lambda *args, **kwargs: change(obtain(*args, **kwargs))
    )


def on_the_way_to_the_disk(change: Callable[[Table], Table]) -> Change:
    write = artifact_files.write_artifact

    def rewritten(folder: Path, artifact: Any) -> None:
        write(folder, change(artifact) if isinstance(artifact, Table) else artifact)

    return lambda patch: patch.setattr(stores, "write_artifact", rewritten)


def say_more_in_the_evidence(patch: pytest.MonkeyPatch) -> None:
    evidence_of = noisy_votes.votes_evidence
    patch.setattr(noisy_votes, "votes_evidence", lambda *args, **kwargs: evidence_of(*args, **kwargs).also(units=4929))


def count_every_row(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(votes, "one_row_each_unit", lambda vectors, key: vectors)


def forget_the_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(noisy_votes, "noisy_votes", lambda exact, noise: exact)


def with_column(table: Table) -> Table:
    return replace(table, rows=table.rows.with_columns(votes=pl.col("noisy_votes")))


def with_other_values(table: Table) -> Table:
    return replace(table, rows=table.rows.with_columns(pl.col("noisy_votes") + 1))


OF_THE_RELEASE: dict[str, tuple[Change, str, bool]] = {
    "a column more after the release": (after_the_release(with_column), "columns|observed", False),
    "other values after the release": (after_the_release(with_other_values), "observed", False),
    "a column more on the way to the disk": (on_the_way_to_the_disk(with_column), "content", True),
    "other values on the way to the disk": (on_the_way_to_the_disk(with_other_values), "content", True),
    "a figure more in the evidence": (say_more_in_the_evidence, "evidence", True),
    "a vote for each row": (count_every_row, "max_votes_per_unit", True),
    "no noise": (forget_the_noise, "noise_coordinates", True),
}


@pytest.mark.parametrize("change", OF_THE_RELEASE)
def test_a_release_that_holds_or_says_something_else_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    plant, reason, closes = OF_THE_RELEASE[change]
    plant(monkeypatch)
    said = failures(site, PLANNED, HISTOGRAM)
    assert any(word in said for word in reason.split("|")), said
    assert "4929" not in said
    assert not list((site.home / Zone.RELEASED / "artifacts" / HISTOGRAM).rglob("*.parquet"))
    assert ((site.registration.corpus_id, "all") in site.ledger.state().closed) is closes
    assert closes is not any((site.home / Zone.RELEASED / "releases").glob("*/*"))


def test_a_figure_more_on_the_page_of_a_mechanism_is_not_published(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    figures_of = metadata.mechanism_metadata
    monkeypatch.setattr(metadata, "mechanism_metadata", lambda *args: figures_of(*args) | {"rows_embedded": 4929})
    said = failures(site, PLANNED, HISTOGRAM)
    assert "rows_embedded in metadata of dp_histogram" in said
    assert "4929" not in said


def distinct_over_all(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.unique("text", keep="any")


def one_row_more(rows: pl.LazyFrame, *, max_rows_per_unit: int) -> pl.LazyFrame:
    return BOUND(rows, max_rows_per_unit=max_rows_per_unit + 1)


BOUND = prepare.bound_contributions


@pytest.mark.parametrize(
    ("step", "careless"),
    [("drop_duplicates_in_units", distinct_over_all), ("bound_contributions", one_row_more)],
    ids=["duplicates over all users", "one row more than the bound"],
)
def test_a_preparation_across_users_or_beyond_the_bound_is_not_stored(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, careless: Any
) -> None:
    before = sorted((site.home / Zone.PRIVATE / "artifacts" / "real_instructions").iterdir())
    monkeypatch.setattr(prepare, step, careless)
    assert "UnstablePreparation" in failures(site, None, "real_instructions")
    assert sorted((site.home / Zone.PRIVATE / "artifacts" / "real_instructions").iterdir()) == before


def test_an_embedder_that_looks_at_texts_together_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Embedder.encode

    def centered(self: Embedder, texts: Any, **kwargs: Any) -> Any:
        vectors = encode(self, texts, **kwargs)
        return vectors - vectors.mean(axis=0)

    monkeypatch.setattr(Embedder, "encode_alone", centered)
    assert "UnstablePreparation" in failures(site, None, "real_embeddings")


def test_rows_that_are_counted_before_the_charge_are_seen_to_be_opened(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = ReleaseIdentity.of

    def counting(mechanism: Any, *args: Any, **kwargs: Any) -> ReleaseIdentity:
        mechanism.table.store(lambda rows: rows.select(pl.len()).collect())
        return of(mechanism, *args, **kwargs)

    assert site.opened_by(TOO_LARGE, HISTOGRAM) == ("ChargeRefused", set())
    monkeypatch.setattr(ReleaseIdentity, "of", staticmethod(counting))
    stopped, opened = site.opened_by(TOO_LARGE, HISTOGRAM)
    assert (stopped, len(opened)) == ("ChargeRefused", 1)


def test_an_error_that_quotes_a_row_is_not_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def quoting(*_: Any, **__: Any) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(noisy_votes, "exact_votes", quoting)
    said = failures(site, PLANNED, HISTOGRAM)
    assert SECRET not in said
    assert "private log" in said


class Foreign(PoissonSampler):
    """A sampler on which no claim rests."""


def test_a_training_that_differs_from_its_plan_closes_the_cohort_and_releases_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "PoissonSampler", Foreign)
    assert "sampler: planned 'poisson'" in failures(site, PLANNED, GENERATOR)
    assert (site.registration.corpus_id, "all") in site.ledger.state().closed
    assert not (site.home / Zone.RELEASED / "artifacts" / GENERATOR).exists()
    assert not list((site.home / Zone.RELEASED / "releases").glob("*/*"))


def test_nothing_of_an_unfinished_training_lies_outside_the_private_zone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoints, "discard", lambda _: None)
    assert site.run(PLANNED, GENERATOR).success
    assert [path.relative_to(site.home).parts[0] for path in site.home.rglob("state.pt")] == [Zone.PRIVATE]


def test_no_real_text_is_embedded_in_batches_whose_shape_follows_from_all_of_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, together = Embedder.encode, set[str]()

    def noted(self: Embedder, texts: Any, **kwargs: Any) -> Any:
        together.update(texts)
        return encode(self, texts, **kwargs)

    monkeypatch.setattr(Embedder, "encode", noted)
    assert site.run(None, "real_embeddings").success
    assert together & set(pl.read_parquet(site.profile.corpus.source.path)["prompt"]) == set()
