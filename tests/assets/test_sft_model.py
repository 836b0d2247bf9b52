"""The policy is trained on the annotated pairs and descends from what they descend from."""

import numpy as np

from dp_assets.assets.sft_model import sft_model
from tests.assets.one_asset import TEXTS, Workbench


def test_the_policy_takes_a_step_for_each_batch_and_moves(bench: Workbench) -> None:
    bench.put_annotated()
    bench.make(sft_model)
    made = bench.made_adapter("sft_model")
    steps = bench.profile.sft.optimizer_steps(len(TEXTS[::2]))
    assert [entry["step"] for entry in made.record["curve"]] == list(range(1, steps + 1))
    assert bench.shown["sft_model"]["training/loss"] == made.record["curve"][-1]["loss"]
    assert all(np.abs(weights).max() > 0 for name, weights in made.weights.items() if "lora_B" in name)
    assert made.charge_ids == bench.both
