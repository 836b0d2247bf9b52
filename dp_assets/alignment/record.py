"""What an adapter's `record` says of its ordinary training: one form for SFT, reward model and policy.

    curve         one entry an optimizer step, measured on its batch before its update: `step` from 1, `loss`, and
                    SFT           `token_accuracy`
                    reward model  `accuracy`, `margin`
                    RLOO, GRPO    `reward`, `kl` (the trainer's own estimate), `completion_length`
                    DPO           `accuracy`, `margin` (of the implicit rewards)
    figures       numbers by name; of a policy `rows_trained_on` and `rows_left_out` (too long, or kept for measuring),
                  which are prompts of RLOO and GRPO and pairs of DPO
    method        of a policy only: `rloo`, `grpo` or `dpo`
    evaluations   of a policy only: one entry a point of its training, with `step` (how many steps were done: 0 is the
                  SFT model) and the figures of `policy_figures`, the same for every method

All of it is JSON-serializable. Points are in the order of their steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Curve = list[dict[str, float]]


def training_record(curve: Curve, figures: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The record of SFT or of a reward model."""
    return {"curve": curve, "figures": dict(figures or {})}


def policy_record(
    curve: Curve, figures: Mapping[str, float], *, method: str, evaluations: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """The record of a policy."""
    return training_record(curve, figures) | {"method": method, "evaluations": [dict(point) for point in evaluations]}
