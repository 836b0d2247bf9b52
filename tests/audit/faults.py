"""Faults of private training and of noisy votes, planted in the code that runs.

Those of training leave `train_privately` as it is, except for the one function or part that is exchanged.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from torch import Tensor, nn

from dp_assets.dpsgd import clipping, training
from dp_assets.dpsgd.clipping import Clipping, Gradients
from dp_assets.privacy import randomness
from dp_assets.privacy.sampling_and_noise import DiscreteGaussianNoise, GaussianNoise, PoissonSampler
from dp_assets.selection import noisy_votes, votes
from tests.audit.white_box import STEPS
from tests.privacy.replay import ReplayableSource

Plant = Callable[[pytest.MonkeyPatch], None]


def halve_the_noise(patch: pytest.MonkeyPatch) -> None:
    normals = randomness.normals
    patch.setattr(randomness, "normals", lambda source, n: 0.5 * normals(source, n))


def add_noise_in_the_first_step_only(patch: pytest.MonkeyPatch) -> None:
    add_noise = training._add_noise

    def once(exact_sum: Gradients, noise: GaussianNoise) -> Gradients:
        return exact_sum if noise.digests else add_noise(exact_sum, noise)

    patch.setattr(training, "_add_noise", once)


def do_not_clip(patch: pytest.MonkeyPatch) -> None:
    def unclipped(unit_gradients: Gradients, l2_clip_norm: float) -> tuple[Gradients, Tensor]:
        return CLIP(unit_gradients, 1e6)

    patch.setattr(clipping, "_clip", unclipped)


CLIP = clipping._clip


def take_four_rows_of_a_unit(patch: pytest.MonkeyPatch) -> None:
    """Every sampled unit gives four rows. Clipped together, they count as one unit's."""
    sample = training._sample

    def four(*args: Any) -> Any:
        rows, unit_ids = sample(*args)
        return rows * 4, unit_ids * 4

    patch.setattr(training, "_sample", four)


def clip_each_of_four_rows(patch: pytest.MonkeyPatch) -> None:
    take_four_rows_of_a_unit(patch)
    clip_together = clipping.clipped_sum

    def apart(model: nn.Module, rows: Any, unit_ids: Any, terms: Clipping) -> Any:
        return clip_together(model, rows, [f"{unit}/{number}" for number, unit in enumerate(unit_ids)], terms)

    patch.setattr(clipping, "clipped_sum", apart)


def double_the_sampling_probability(patch: pytest.MonkeyPatch) -> None:
    def doubled(*, sampling_probability: float, source: Any) -> PoissonSampler:
        return PoissonSampler(sampling_probability=2 * sampling_probability, source=source)

    patch.setattr(training, "PoissonSampler", doubled)


def seed_the_sampling(patch: pytest.MonkeyPatch) -> None:
    def seeded(*, sampling_probability: float, source: Any) -> PoissonSampler:
        return PoissonSampler(sampling_probability=sampling_probability, source=ReplayableSource(0))

    patch.setattr(training, "PoissonSampler", seeded)


def use_one_noise_in_two_steps(patch: pytest.MonkeyPatch) -> None:
    """Once in a run, in the middle of it, the noise is that of the first step."""
    draw, first = GaussianNoise.draw, list[npt.NDArray[np.float64]]()

    def repeated(self: GaussianNoise, size: int) -> npt.NDArray[np.float64]:
        drawn = draw(self, size)
        if len(self.digests) == 1:
            first[:] = [drawn]
        return first[0].copy() if len(self.digests) == STEPS // 2 else drawn

    patch.setattr(GaussianNoise, "draw", repeated)


TRAINING_FAULTS: dict[str, Plant] = {
    "noise halved": halve_the_noise,
    "noise only in the first step": add_noise_in_the_first_step_only,
    "no clip": do_not_clip,
    "clip per row with four rows a unit": clip_each_of_four_rows,
    "sampling probability doubled": double_the_sampling_probability,
    "the same noise in two steps": use_one_noise_in_two_steps,
    "sampling seeded": seed_the_sampling,
}


def count_votes_twice(patch: pytest.MonkeyPatch) -> None:
    exact_votes = votes.exact_votes
    patch.setattr(noisy_votes, "exact_votes", lambda *args, **kwargs: 2 * exact_votes(*args, **kwargs))


def count_every_row(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(votes, "one_row_each_unit", lambda vectors, key: vectors)


def add_noise_on_filled_bins_only(patch: pytest.MonkeyPatch) -> None:
    def noisy_where_filled(exact: npt.NDArray[np.int64], noise: DiscreteGaussianNoise) -> npt.NDArray[np.int64]:
        released = exact.copy()
        released[exact > 0] += noise.draw(int((exact > 0).sum()))
        return released

    patch.setattr(noisy_votes, "noisy_votes", noisy_where_filled)


VOTES_FAULTS: dict[str, Plant] = {
    "votes counted twice": count_votes_twice,
    "a vote of each row of a unit": count_every_row,
    "noise only on non-empty bins": add_noise_on_filled_bins_only,
}
