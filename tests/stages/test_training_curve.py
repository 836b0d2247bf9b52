"""What people see of a training: the last value of each figure, and the course to draw."""

from typing import Any

import numpy as np

from dp_assets.artifacts import Adapter
from dp_assets.stages.training_curve import course_of, training_figures

CURVE = [{"step": 1, "loss": 3.0, "accuracy": 0.5}, {"step": 2, "loss": 0.5, "accuracy": 0.75}]


def adapter(**record: Any) -> Adapter:
    return Adapter({"w": np.zeros(1, np.float32)}, {}, "tiny", (), record)


def test_the_figures_are_those_of_the_last_step_and_of_the_whole_training() -> None:
    shown = training_figures(adapter(curve=CURVE, figures={"held_out_accuracy": 0.9}), title="Reward model")
    picture = shown.pop("curve")
    assert shown == {"training/loss": 0.5, "training/accuracy": 0.75, "training/held_out_accuracy": 0.9}
    assert "Reward model, 2 steps" in picture.md_str


def test_a_training_without_steps_shows_nothing() -> None:
    assert training_figures(adapter(curve=[]), title="Reward model") == {}


def test_measurements_are_drawn_where_there_are_some_and_losses_where_not() -> None:
    points = [{"step": 0, "reward": 1.0}]
    assert course_of(adapter(curve=CURVE, evaluations=points)) == points
    assert course_of(adapter(curve=CURVE, evaluations=[])) == course_of(adapter(curve=CURVE)) == CURVE
