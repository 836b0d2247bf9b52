"""Metadata of a policy, from its adapter's record. Every method has the same names.

policy/method                   rloo, grpo or dpo
policy/FIGURE_before, _after    each figure of `alignment.policy_figures`, of the SFT model and of the policy
policy/evaluations              all points as a table
training/loss                   of the last step
training/rows_trained_on, ...   the figures of the training
curve                           the points as a picture
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dp_assets.artifacts import Adapter


def policy_metadata(adapter: Adapter) -> dict[str, Any]:
    """Return the metadata of a policy that Dagster shows."""
    record = adapter.record
    points: Sequence[Mapping[str, float]] = record["evaluations"]
    names = [name for name in points[0] if name != "step"]
    return {
        "policy/method": record["method"],
        **{f"policy/{name}_before": float(points[0][name]) for name in names},
        **{f"policy/{name}_after": float(points[-1][name]) for name in names},
        "policy/evaluations": dg.MetadataValue.table([dg.TableRecord(dict(point)) for point in points]),
        "training/loss": float(record["curve"][-1]["loss"]),
        **{f"training/{name}": float(value) for name, value in record["figures"].items()},
        **_picture(points, title=f"{record['method'].upper()}: the policy"),
    }


def _picture(points: Sequence[Mapping[str, float]], *, title: str) -> dict[str, Any]:
    from dp_assets.reports.pictures import training_drawing

    drawing = training_drawing(title, points)
    return {} if drawing is None else {"curve": dg.MetadataValue.md(drawing.markdown())}
