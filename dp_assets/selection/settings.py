"""The settings of the noisy histogram and of resampling to it."""

from typing import Annotated, Literal

from pydantic import Field

from dp_assets.fields import NonNegative, Positive, PositiveReal, Settings


class VotesSettings(Settings):
    """The noisy histogram."""

    num_bins: Annotated[int, Field(ge=2)]
    noise_stddev: PositiveReal


class SelectionSettings(Settings):
    """Resampling. `rule` reads the noisy votes: smoothed, or as the paper does.

    `top_up_samples` bounds what is drawn again for short bins, aimed at them if `steered_top_up`.
    """

    target_size: Positive
    top_up_samples: NonNegative
    steered_top_up: bool = True
    rule: Literal["smoothed", "paper"] = "smoothed"
    seed: int = 2
