"""The settings of the noisy histogram and of resampling to it."""

from typing import Annotated

from pydantic import Field

from dp_assets.fields import NonNegative, Positive, PositiveReal, Settings
from dp_assets.privacy.plan import VotesPlan
from dp_assets.vocabulary import Rule


class VotesSettings(Settings):
    """The noisy histogram."""

    num_bins: Annotated[int, Field(ge=2)]
    noise_stddev: PositiveReal

    @property
    def plan(self) -> VotesPlan:
        """Return the plan of the histogram, which is the same at every level with noise."""
        return VotesPlan(self.num_bins, self.noise_stddev)


class SelectionSettings(Settings):
    """Resampling. `rule` turns noisy votes into quotas: smoothed, or as in the paper.

    `top_up_samples` bounds the samples of the top-up. They are aimed at short bins if `steered_top_up`.
    """

    target_size: Positive
    top_up_samples: NonNegative
    steered_top_up: bool = True
    rule: Rule = "smoothed"
    seed: int = 2
