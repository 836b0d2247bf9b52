"""Metadata of ordinary training on released data: the last values of its curve and a picture of the curve."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dp_assets.artifacts import Adapter

TITLES = {
    "sft_model": "Supervised fine-tuning",
    "reward_model": "Reward model",
    "rlhf_model": "Policy optimization",
}
"""The trainings on released text by their asset, as pictures and pages name them."""


def course_of(adapter: Adapter) -> Sequence[Mapping[str, float]]:
    """Return the points of a training to draw.

    These are the evaluations of a policy, which are comparable between methods, and the losses of other trainings.
    """
    points: Sequence[Mapping[str, float]] = adapter.record.get("evaluations") or adapter.record["curve"]
    return points


def training_figures(adapter: Adapter, *, title: str) -> dict[str, Any]:
    """Return the figures of an adapter's training and a picture of its curve, from the adapter's record."""
    from dp_assets.reports.pictures import training_drawing

    curve = [dict(point) for point in adapter.record["curve"]]
    names = [name for name in curve[-1] if name != "step"] if curve else []
    last = {f"training/{name}": float(curve[-1][name]) for name in names}
    measured = {f"training/{name}": float(value) for name, value in adapter.record.get("figures", {}).items()}
    drawing = training_drawing(title, curve)
    picture = {} if drawing is None else {"curve": dg.MetadataValue.md(drawing.markdown())}
    return {**last, **measured, **picture}
