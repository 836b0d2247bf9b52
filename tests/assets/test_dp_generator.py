"""The generator is paid for once: its charge is settled, it carries it, and a second run takes the stored release."""

import numpy as np

from dp_assets.assets.dp_generator import dp_generator
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.privacy.plan import GENERATOR
from tests.assets.one_asset import Workbench


def test_the_generator_is_trained_under_one_settled_charge_and_taken_again_for_nothing(bench: Workbench) -> None:
    bench.make(real_instructions, partition=None)
    bench.make(dp_generator)
    first = bench.made_adapter("dp_generator")
    (charge,) = bench.ledger.state().charges.values()
    assert (charge.mechanism, charge.opened, charge.settled) == (GENERATOR, True, True)
    assert first.charge_ids == (charge.charge_id,)
    assert all(np.abs(weights).max() > 0 for name, weights in first.weights.items() if "lora_B" in name)
    assert not list((bench.home / "private/checkpoints").rglob("*.pt"))
    before = bench.ledger.state().anchor
    bench.make(dp_generator)
    again = bench.made_adapter("dp_generator")
    assert bench.ledger.state().anchor == before
    assert all(np.array_equal(first.weights[name], again.weights[name]) for name in first.weights)
