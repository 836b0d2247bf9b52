"""A policy of any method is shown by its figures before and after, and by its curve where there is one."""

from typing import Any

import numpy as np

from dp_assets.artifacts import Adapter
from dp_assets.stages.policy_metadata import policy_metadata

POINTS = [{"step": 0, "reward": 1.0, "kl": 0.0}, {"step": 4, "reward": 2.5, "kl": 0.25}]


def shown(points: list[dict[str, float]]) -> dict[str, Any]:
    record = {
        "method": "rloo",
        "evaluations": points,
        "curve": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 0.5}],
        "figures": {"rows_trained_on": 8},
    }
    return policy_metadata(Adapter({"w": np.zeros(1, np.float32)}, {}, "tiny", (), record))


def test_each_figure_is_shown_before_and_after_and_the_loss_of_the_last_step() -> None:
    figures = shown(POINTS)
    assert {name: value for name, value in figures.items() if name not in ("policy/evaluations", "curve")} == {
        "policy/method": "rloo",
        "policy/reward_before": 1.0,
        "policy/reward_after": 2.5,
        "policy/kl_before": 0.0,
        "policy/kl_after": 0.25,
        "training/loss": 0.5,
        "training/rows_trained_on": 8.0,
    }
    assert [dict(record.data) for record in figures["policy/evaluations"].records] == POINTS
    assert "RLOO: the policy" in figures["curve"].md_str


def test_one_point_is_no_curve() -> None:
    assert "curve" not in shown(POINTS[:1])
