"""Privacy units on the packaged corpus, whose busiest sender wrote thousands of turns: what bounds one unit's part."""

from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dp_assets.corpus.cohorts import cohort_expr
from dp_assets.corpus.prepare import Preparation, prepare
from dp_assets.corpus.settings import CohortSettings
from dp_assets.corpus.sources import ChitchatSource
from dp_assets.dpsgd.clipping import Clipping, clipped_sum
from dp_assets.generation.token_rows import RowEncoder, unit_rows
from dp_assets.pipeline.corpus import terms_of
from dp_assets.privacy.plan import GENERATOR
from dp_assets.privacy.registration import FIXED, RegistrationError, Terms
from dp_assets.privacy.units import PrivacyUnit, WithoutUser
from dp_assets.selection.votes import exact_votes
from dp_assets.settings.named import load_profile
from resources.ledger.ledger_resource import ChargeRefused, Ledger
from resources.models.hashed_ngrams import hashed_vectors
from tests.generation.tiny_lora import lora_model

DEMO = load_profile("demo")
KEY = bytes(32)
NUM_BINS = 16
CLIP_NORM = 0.02
# Facts of the packaged corpus, which is public.
SENDERS, TURNS, BUSIEST_TURNS = 1033, 34_693, 3074
NUM_UNITS = {PrivacyUnit.USER: SENDERS, PrivacyUnit.INSTRUCTION: TURNS}


@cache
def turns() -> pl.DataFrame:
    return ChitchatSource().scan().collect()


@cache
def busiest() -> str:
    return str(turns()["user_id"].mode().item())


def prepared(rows: pl.DataFrame, unit: PrivacyUnit, max_rows_per_unit: int) -> pl.DataFrame:
    """The rows as the demo prepares them, for a unit and a bound."""
    settings = DEMO.corpus.model_dump(include={"min_words", "max_words", "max_characters", "languages"})
    return prepare(
        rows.lazy(),
        Preparation(
            unit=unit,
            key=KEY,
            max_rows_per_unit=max_rows_per_unit,
            cohort_of=cohort_expr(CohortSettings(), unit=unit),
            train_fraction=1.0,
            **settings,
        ),
    ).collect()


@cache
def corpus(unit: PrivacyUnit, max_rows_per_unit: int) -> pl.DataFrame:
    return prepared(turns(), unit, max_rows_per_unit)


def sizes(rows: pl.DataFrame) -> pl.Series:
    return rows.group_by("unit_id").len()["len"]


def rows_of_the_busiest(max_rows_per_unit: int) -> pl.DataFrame:
    """What is left of the busiest sender, told by the ids of the source's turns."""
    theirs = turns().filter(pl.col("user_id") == busiest())["instruction_id"]
    return corpus(PrivacyUnit.USER, max_rows_per_unit).filter(pl.col("instruction_id").is_in(theirs.implode()))


@pytest.mark.parametrize("bound", [1, 2, 5])
@pytest.mark.parametrize("unit", list(PrivacyUnit))
def test_no_unit_has_more_rows_than_the_contribution_bound(unit: PrivacyUnit, bound: int) -> None:
    assert sizes(corpus(unit, bound)).max() == (bound if unit is PrivacyUnit.USER else 1)


@pytest.mark.parametrize("unit", list(PrivacyUnit))
def test_there_are_as_many_units_as_senders_or_as_turns(unit: PrivacyUnit) -> None:
    assert corpus(unit, 2)["unit_id"].n_unique() == NUM_UNITS[unit]


@pytest.mark.parametrize("bound", [1, 2, 5])
def test_the_busiest_sender_keeps_as_many_rows_as_anybody_may_have_and_they_are_one_unit(bound: int) -> None:
    assert turns().filter(pl.col("user_id") == busiest()).height == BUSIEST_TURNS
    kept = rows_of_the_busiest(bound)
    assert kept.height == bound
    assert kept["unit_id"].n_unique() == 1


def test_rows_that_lose_their_user_are_units_of_their_own_and_leave_the_other_users_as_they_were() -> None:
    nameless = (
        turns()
        .with_row_index()
        .with_columns(user_id=pl.when(pl.col("index") % 10 == 0).then(None).otherwise("user_id"))
    )
    rows = prepared(nameless.drop("index"), PrivacyUnit.USER, 2)
    lost = rows.filter(pl.col("unit_id").str.starts_with("instruction:"))
    assert lost["unit_id"].n_unique() == lost.height == nameless["user_id"].null_count()
    whole = nameless.group_by("instruction_id").agg(pl.col("user_id").is_null().any().alias("lost"))
    senders = turns().join(whole, on="instruction_id").group_by("user_id").agg(pl.col("lost").any())
    untouched = senders.filter(~pl.col("lost"))["user_id"]
    assert untouched.len() > 100
    ids = turns().filter(pl.col("user_id").is_in(untouched.implode()))["instruction_id"].implode()
    kept = pl.col("instruction_id").is_in(ids)
    assert rows.filter(kept).equals(corpus(PrivacyUnit.USER, 2).filter(kept))


@cache
def vectors(max_rows_per_unit: int) -> pl.DataFrame:
    rows = corpus(PrivacyUnit.USER, max_rows_per_unit)
    return rows.with_columns(pl.Series("vector", hashed_vectors(rows["text"].to_list())))


def votes(table: pl.DataFrame) -> Any:
    centroids = np.stack(vectors(1)["vector"].head(NUM_BINS).to_numpy())
    return exact_votes(table, centroids, key=KEY)


@pytest.mark.parametrize("bound", [1, 5])
def test_each_unit_casts_one_ballot_and_the_busiest_sender_no_more(bound: int) -> None:
    ballots = votes(vectors(bound))
    without = vectors(bound).filter(pl.col("unit_id") != rows_of_the_busiest(bound)["unit_id"][0])
    assert ballots.sum() == SENDERS
    assert sorted(ballots - votes(without)) == [0] * (NUM_BINS - 1) + [1]


@pytest.mark.slow
@pytest.mark.parametrize("bound", [1, 5])
def test_the_busiest_sender_moves_a_training_step_by_at_most_one_clip_norm(bound: int, tiny_model_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    (rows,) = unit_rows(rows_of_the_busiest(bound).lazy(), RowEncoder(tokenizer, (1,), max_tokens=24)).values()
    clipping = Clipping(CLIP_NORM, loss_normalizer=1.0, tokens_per_micro_batch=256)
    total, _ = clipped_sum(lora_model(tiny_model_folder), rows, ["busiest"] * len(rows), clipping)
    norm = np.sqrt(sum(float(tensor.double().square().sum()) for tensor in total.values()))
    assert len(rows) == bound
    assert 0.99 * CLIP_NORM < norm <= CLIP_NORM


LOCATOR = "file:elsewhere"
FIXED_TERMS: dict[str, Any] = {
    "unit": PrivacyUnit.INSTRUCTION,
    "unit_columns": '{"user_id": "session"}',
    "max_rows_per_unit": 3,
    "cohorts": ("bucket-0", "bucket-1"),
    "cohort_function": '{"kind": "user_bucket"}',
    "delta": 1e-4,
    "query": "another",
    "relation": "REPLACE_ONE",
    "without_user": WithoutUser.DROP,
    "is_public": True,
}


def terms() -> Terms:
    """The demo's terms, for a source that nobody declared public."""
    return replace(terms_of(DEMO, declared_public=False), is_public=False)


def registered(home: Path, *levels: str, budget_epsilon: float = 8.0) -> Ledger:
    ledger = Ledger(private_root=str(home / "private"))
    plans = [DEMO.plan(level) for level in levels]
    ledger.register(locator=LOCATOR, terms=replace(terms(), budget_epsilon=budget_epsilon), plans=plans)
    return ledger


@pytest.fixture
def charged(tmp_path: Path) -> Ledger:
    """A ledger whose corpus has its first charge."""
    ledger = registered(tmp_path, "eps-8")
    ledger.charge(
        plan=DEMO.plan("eps-8"),
        mechanism=GENERATOR,
        corpus_id=ledger.registration(LOCATOR, terms()).corpus_id,
        cohort="all",
        snapshot="1",
        reuse_key="first",
    )
    return ledger


@pytest.mark.parametrize("field", FIXED_TERMS)
def test_no_term_changes_after_the_first_charge(charged: Ledger, field: str) -> None:
    changed = replace(terms(), **{field: FIXED_TERMS[field]})
    with pytest.raises(ChargeRefused) as refusal:
        charged.registration(LOCATOR, changed)
    said = FIXED.get(field, "public")
    assert said in str(refusal.value.description)
    with pytest.raises(RegistrationError, match=said):
        charged.register(locator=LOCATOR, terms=changed, plans=[])
    assert charged.registration(LOCATOR, terms()).unit is PrivacyUnit.USER


def test_every_term_but_the_budget_is_tried_above() -> None:
    assert {field.name for field in fields(Terms)} == FIXED_TERMS.keys() | {"budget_epsilon"}


def test_the_gates_order_is_the_one_of_registration_whatever_is_planned_later(charged: Ledger, tmp_path: Path) -> None:
    before = charged.registration(LOCATOR, terms())
    later = replace(terms(), budget_epsilon=100.0)
    afresh = registered(tmp_path / "other", "eps-1", budget_epsilon=100.0).registration(LOCATOR, terms())
    assert afresh.gate_order != before.gate_order
    assert charged.register(locator=LOCATOR, terms=later, plans=[DEMO.plan("eps-1")]) == before
    charged.raise_budget(before.corpus_id, 100.0, "a test")
    assert charged.registration(LOCATOR, terms()).gate_order == before.gate_order
