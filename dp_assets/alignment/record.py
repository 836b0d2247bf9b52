"""The `record` of an adapter's ordinary training: one form for SFT, reward model and policy.

    curve         one entry per optimizer step, measured on its batch before its update: `step` from 1, `loss`, and
                    SFT           `token_accuracy`
                    reward model  `accuracy`, `margin`
                    RLOO, GRPO    `reward`, `kl` (the trainer's own estimate), `completion_length`
                    DPO           `accuracy`, `margin` (of the implicit rewards)
    figures       numbers by name; of a policy `rows_trained_on` and `rows_left_out` (too long, or held out for
                  evaluation), which are prompts for RLOO and GRPO and pairs for DPO
    method        of a policy only: `rloo`, `grpo` or `dpo`
    evaluations   of a policy only: one entry per evaluation, with `step` (the number of steps done: 0 is the SFT model)
                  and the figures of `policy_figures`, the same for every method

The record is JSON-serializable. Entries are in the order of their steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Curve = list[dict[str, float]]


def training_record(curve: Curve, figures: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return the record of SFT or of a reward model."""
    return {"curve": curve, "figures": dict(figures or {})}


def policy_record(
    curve: Curve, figures: Mapping[str, float], *, method: str, evaluations: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Return the record of a policy."""
    return training_record(curve, figures) | {"method": method, "evaluations": [dict(point) for point in evaluations]}
