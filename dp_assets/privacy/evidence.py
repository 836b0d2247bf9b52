"""What a mechanism says about its own run, so that the claim can be compared with what happened.

The public part describes structure: sampler, steps, tensors clipped and noised. It is a function of public constants
and of the code that ran, never of private rows, so it may go to metadata. The restricted part (batch sizes, norms)
stays in the private zone and is absent from `repr`. A claim checker compares the public part with the plan; this
module only states it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from dp_assets.privacy.randomness import RandomSource, origin


@dataclass(frozen=True)
class Evidence:
    """`public` is JSON-serialisable and free of private data; `restricted` never leaves the private zone.

    Raises:
      ValueError: `public` holds something JSON has no form for.
    """

    public: Mapping[str, Any]
    restricted: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        try:
            json.dumps(dict(self.public), allow_nan=False)
        except (TypeError, ValueError):
            # The cause would quote the value.
            raise ValueError("Evidence.public must be JSON: text, finite numbers, booleans, lists, objects") from None


def dpsgd_evidence(
    *,
    unit: str,
    sampling_probability: float,
    steps: int,
    continuations: int,
    l2_clip_norm: float,
    noise_multiplier: float,
    expected_batch_size: float,
    noise_draws: int,
    noised_tensors: Collection[str],
    trained_tensors: Collection[str],
    num_parameters: int,
    source: RandomSource,
    restricted: Mapping[str, Any],
) -> Evidence:
    """The evidence of DP-SGD with Poisson sampling.

    `steps` are the updates in the result. The account must cover one more a continuation, because the step that an
    interruption lost may have drawn its noise: the public part states `steps + continuations` as `steps`.
    `noise_draws` is what was counted, draw by draw, and must come to the same.
    """
    public = {
        "mechanism": "dpsgd",
        "sampler": "poisson",
        "rows_per_sampled_unit": 1,
        "unit": unit,
        "sampling_probability": sampling_probability,
        "steps": steps + continuations,
        "continuations": continuations,
        "l2_clip_norm": l2_clip_norm,
        "noise_multiplier": noise_multiplier,
        "normaliser": expected_batch_size,
        "noise_draws": noise_draws,
        "noised_tensors": fingerprint(noised_tensors),
        "trained_tensors": fingerprint(trained_tensors),
        "num_parameters": num_parameters,
        "loss_reduction": "sum",
        "randomness": origin(source),
    }
    return Evidence(public=public, restricted=restricted)


def votes_evidence(*, num_bins: int, noised_bins: int, noise_stddev: float, source: RandomSource) -> Evidence:
    """The evidence of a noisy histogram with one integer vote a unit."""
    public = {
        "mechanism": "votes",
        "num_bins": num_bins,
        "noised_bins": noised_bins,
        "noise_stddev": noise_stddev,
        "max_votes_per_unit": 1,
        "randomness": origin(source),
    }
    return Evidence(public=public, restricted={})


def fingerprint(names: Collection[str]) -> dict[str, Any]:
    """How many names there are, and the SHA-256 of the sorted names, one a line."""
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    return {"count": len(names), "sha256": digest}
