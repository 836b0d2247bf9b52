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
        """The plan of the histogram at every level with noise."""
        return VotesPlan(self.num_bins, self.noise_stddev)


class SelectionSettings(Settings):
    """Resampling. `rule` reads the noisy votes: smoothed, or as the paper does.

    `top_up_samples` bounds what is drawn again for short bins, aimed at them if `steered_top_up`.
    """

    target_size: Positive
    top_up_samples: NonNegative
    steered_top_up: bool = True
    rule: Rule = "smoothed"
    seed: int = 2
