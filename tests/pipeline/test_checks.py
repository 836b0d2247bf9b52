"""Each check fails on what it is there for, and passes without it."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from dp_assets.artifacts import Adapter, Document, Table
from dp_assets.corpus.schemas import SCHEMAS
from dp_assets.definitions import defs
from dp_assets.pipeline import checks
from dp_assets.privacy.labels import LABEL_METADATA, Label
from dp_assets.settings.profile import Profile
from dp_assets.statements.statement import sealed
from tests.statements.statements import planned, without_noise
from tests.tiny_pipeline import tiny_profile

DIMENSION = 4


def passes(check: dg.AssetChecksDefinition, *inputs: Any, **resources: Any) -> bool:
    result = check(*inputs, **resources)
    assert isinstance(result, dg.AssetCheckResult)
    return bool(result.passed)


def profile() -> Profile:
    return tiny_profile(Path("no corpus"), Path("no model"))


def filtered(*bins: int) -> Table:
    return Table(pl.LazyFrame({"text": [f"text {row}" for row in range(len(bins))], "bin_id": bins}))


def test_each_released_table_has_a_check_of_its_schema() -> None:
    graph = defs.resolve_asset_graph()
    labels = {key.to_user_string(): graph.get(key).metadata[LABEL_METADATA] for key in graph.materializable_asset_keys}
    released = {name for name in SCHEMAS if labels[name] != Label.PRIVATE}
    checked = {key.asset_key.to_user_string() for key in graph.asset_check_keys if key.name == "schema"}
    assert checked == released


def test_a_table_without_a_column_or_with_one_of_another_type_fails() -> None:
    check, schema = checks.schema_check("dp_histogram"), SCHEMAS["dp_histogram"]
    sound = pl.DataFrame({"bin_id": [0], "noisy_votes": [1]}, schema=schema)
    assert passes(check, Table(sound.lazy()))
    assert not passes(check, Table(sound.drop("bin_id").lazy()))
    assert not passes(check, Table(sound.with_columns(noisy_votes=1.5).lazy()))


def test_a_text_that_occurs_twice_fails() -> None:
    check = checks.distinct_check("synthetic_pool")
    assert passes(check, Table(pl.LazyFrame({"text": ["a", "b"]})))
    assert not passes(check, Table(pl.LazyFrame({"text": ["a", "b", "a"]})))


@pytest.mark.parametrize(
    ("factor", "other", "is_sound"), [(1.0, 1.0, True), (0.0, 1.0, False), (np.nan, 1.0, False), (1.0, np.inf, False)]
)
def test_an_adapter_that_did_not_move_or_is_not_finite_fails(factor: float, other: float, is_sound: bool) -> None:
    weights = {"q.lora_A.weight": np.full(2, other, np.float32), "q.lora_B.weight": np.full(2, factor, np.float32)}
    assert passes(checks.weights_moved_check("sft_model"), Adapter(weights, {}, "tiny")) == is_sound


def test_a_filtered_set_of_another_size_fails() -> None:
    target = profile().selection.target_size
    for size in (target - 1, target, target + 1):
        assert passes(checks.exact_target_size, filtered(*[0] * size), profile=profile()) == (size == target)


def test_a_bin_that_holds_fewer_rows_than_the_rule_asks_for_fails() -> None:
    target = profile().selection.target_size
    centroids = np.eye(DIMENSION, dtype=np.float32)
    numbers = list(range(DIMENSION))
    bins = pl.DataFrame({"bin_id": numbers, "centroid": centroids})
    votes = Table(pl.LazyFrame({"bin_id": numbers, "noisy_votes": [100] * 4}), (), {"evidence": {"noise_stddev": 0.0}})
    vectors = np.tile(centroids, (10, 1))
    embeddings = Table(pl.LazyFrame({"synthetic_id": [f"{row:02d}" for row in range(len(vectors))], "vector": vectors}))
    asked = (votes, Table(bins.lazy()), embeddings)
    even = numbers * (target // DIMENSION)
    assert passes(checks.quotas_met, filtered(*even), *asked, profile=profile())
    without_the_last = [min(number, 2) for number in even]
    assert not passes(checks.quotas_met, filtered(*without_the_last), *asked, profile=profile())


def test_a_statement_that_does_not_follow_from_its_events_or_exceeds_its_target_fails() -> None:
    check = checks.epsilon_within_target
    assert passes(check, Document(planned(), ""))
    assert passes(check, Document(without_noise(), ""))
    edited = planned()
    edited["guarantee"]["lineage_epsilon"] = 1.0
    assert not passes(check, Document(sealed(edited), ""))
