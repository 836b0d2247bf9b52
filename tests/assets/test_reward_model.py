"""The scorer is trained on the preference pairs, some of which are kept to measure it."""

import polars as pl

from dp_assets.artifacts import Table
from dp_assets.assets.reward_model import reward_model
from tests.assets.one_asset import TEXTS, Workbench


def test_the_scorer_has_a_head_and_is_measured_on_pairs_kept_from_training(bench: Workbench) -> None:
    rows = pl.LazyFrame(
        {
            "synthetic_id": [f"pool-{number}" for number in range(12)],
            "prompt": TEXTS[:12],
            "chosen": ["a number is a number"] * 12,
            "rejected": ["no"] * 12,
            "rejected_by": ["cut"] * 12,
        }
    )
    bench.put("preference_pairs", Table(rows, bench.both))
    bench.make(reward_model)
    made = bench.made_adapter("reward_model")
    assert any("score" in name for name in made.weights)
    assert 0 <= made.record["figures"]["held_out_accuracy"] <= 1
    assert bench.shown["reward_model"]["training/held_out_accuracy"] == made.record["figures"]["held_out_accuracy"]
    assert made.charge_ids == bench.both
