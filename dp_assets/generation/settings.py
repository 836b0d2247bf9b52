"""The settings of private training and of sampling from the trained generator."""

from dataclasses import dataclass
from typing import Any, Literal

from dp_assets.fields import Fraction, LearningRate, ModelDtype, NonNegative, Positive, PositiveReal, Settings
from dp_assets.privacy.plan import DpSgdPlan

GeneratorPrompt = Literal["user_turn", "system_user_turn", "empty"]


@dataclass(frozen=True)
class SamplingParameters:
    """How a text is sampled, for every stage, engine and endpoint. Temperature 0 selects the most likely token."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


class GeneratorSettings(Settings):
    """DP-SGD of a LoRA adapter on the `last_layers` blocks (None: all); fewer trained parameters mean less noise.

    `dtype` is the type of the frozen model in private training. Adapter, norms, sums and noise are at least float32.
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
        """Return the plan of private training without noise, which follows from the target of a privacy level."""
        return DpSgdPlan(
            sampling_probability=self.sampling_probability,
            steps=self.steps,
            spare_steps=self.spare_steps,
            l2_clip_norm=self.l2_clip_norm,
            noise_multiplier=0.0,
            expected_batch_size=self.expected_batch_size,
        )

    def tuning(self) -> dict[str, Any]:
        """Return the settings that affect the adapter but not the guarantee, except the type of the loaded model."""
        elsewhere = {"sampling_probability", "expected_batch_size", "steps", "spare_steps", "l2_clip_norm", "dtype"}
        return self.model_dump(mode="json", exclude=elsewhere)


class SamplingSettings(Settings):
    """How the synthetic pool is sampled from the generator. `prompt` may differ from the prompt of training.

    After a system message a chat model more often begins with a request. In training on short texts those tokens would
    double the cost. In sampling they are nearly free, because all texts share their keys and values.
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
        """Return how each text is sampled."""
        return SamplingParameters(self.max_new_tokens, self.temperature, self.top_p, self.seed)

    def resized(self, num_samples: int, *, seed: int) -> "SamplingSettings":
        """Return the same settings with another number of samples and another public seed."""
        return self.model_copy(update={"num_samples": num_samples, "seed": seed})
