"""The settings of private training and of sampling from what was trained."""

from dataclasses import dataclass
from typing import Any, Literal

from dp_assets.fields import Fraction, LearningRate, ModelDtype, NonNegative, Positive, PositiveReal, Settings
from dp_assets.privacy.plan import DpSgdPlan

GeneratorPrompt = Literal["user_turn", "system_user_turn", "empty"]


@dataclass(frozen=True)
class SamplingParameters:
    """How a text is sampled, whichever stage, engine or endpoint does it. Temperature 0 takes the likeliest token."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


class GeneratorSettings(Settings):
    """DP-SGD of a LoRA adapter on the `last_layers` blocks (None: all); fewer trained parameters mean less noise.

    `dtype` is that of the frozen model in private training. Adapter, norms, sums and noise are never below float32.
    """

    prompt: GeneratorPrompt
    rank: Positive
    alpha: Positive
    target_modules: tuple[str, ...]
    last_layers: Positive | None = None
    sampling_probability: Fraction
    expected_batch_size: Positive
    steps: Positive
    spare_steps: NonNegative
    l2_clip_norm: PositiveReal
    learning_rate: LearningRate
    max_tokens: Positive
    loss_normaliser: PositiveReal
    tokens_per_micro_batch: Positive
    dtype: ModelDtype = "float32"
    seed: int = 0

    @property
    def plan_without_noise(self) -> DpSgdPlan:
        """The plan of private training, but for the noise, which a level's target decides."""
        return DpSgdPlan(
            sampling_probability=self.sampling_probability,
            steps=self.steps,
            spare_steps=self.spare_steps,
            l2_clip_norm=self.l2_clip_norm,
            noise_multiplier=0.0,
            expected_batch_size=self.expected_batch_size,
        )

    def tuning(self) -> dict[str, Any]:
        """What shapes the adapter and not the guarantee, but for the type in which the model is loaded."""
        elsewhere = {"sampling_probability", "expected_batch_size", "steps", "spare_steps", "l2_clip_norm", "dtype"}
        return self.model_dump(mode="json", exclude=elsewhere)


class SamplingSettings(Settings):
    """How the synthetic pool is drawn from the generator. `prompt` may differ from the one it was trained after.

    After the system message a chat model opens with requests more often, but those tokens would double the cost of
    training on short texts; sharing their keys and values makes them nearly free in sampling.
    """

    prompt: GeneratorPrompt
    num_samples: Positive
    max_new_tokens: Positive
    temperature: PositiveReal
    top_p: Fraction
    batch_size: Positive
    seed: int = 1
    engine: Literal["transformers", "vllm"] = "transformers"

    @property
    def parameters(self) -> SamplingParameters:
        """How each text is sampled."""
        return SamplingParameters(self.max_new_tokens, self.temperature, self.top_p, self.seed)

    def resized(self, num_samples: int, *, seed: int) -> "SamplingSettings":
        """The same for another number of samples and another public seed."""
        return self.model_copy(update={"num_samples": num_samples, "seed": seed})
