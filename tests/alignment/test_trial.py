"""One tiny step of each training on public text tells whether a model can be trained with the settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dp_assets.alignment.trial import try_policy, try_reward, try_sft
from dp_assets.generation.fitness import UnfitModel
from dp_assets.settings.profile import Profile
from tests.tiny_pipeline import tiny_profile

Load = Callable[..., Any]


@pytest.fixture
def profile() -> Profile:
    return tiny_profile(Path("no corpus"), Path("no model"))


def attempt(profile: Profile, stage: str, model: Any, tokenizer: Any, **changed: Any) -> None:
    """One step of a stage under the profile's settings."""
    if stage == "rlhf":
        try_policy(model, tokenizer, profile.rlhf.model_copy(update=changed), sft=profile.sft)
    elif stage == "sft":
        try_sft(model, tokenizer, profile.sft.model_copy(update=changed))
    else:
        try_reward(model, tokenizer, profile.reward.model_copy(update=changed))


@pytest.mark.parametrize("stage", ["sft", "reward", "rlhf"])
def test_a_sound_model_takes_its_step(profile: Profile, load_model: Load, tokenizer: Any, stage: str) -> None:
    attempt(profile, stage, load_model(), tokenizer)


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_a_model_with_nan_weights_is_refused_for_its_loss(
    profile: Profile, load_model: Load, tokenizer: Any, stage: str
) -> None:
    model = load_model()
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(torch.nan)
    with pytest.raises(UnfitModel, match="the loss of a public text is not finite"):
        attempt(profile, stage, model, tokenizer)


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_a_layer_that_the_model_lacks_is_named_by_its_setting(
    profile: Profile, load_model: Load, tokenizer: Any, stage: str
) -> None:
    with pytest.raises(UnfitModel, match=rf"{stage}\.target_modules names nothing"):
        attempt(profile, stage, load_model(), tokenizer, target_modules=["nothing"])


@pytest.mark.parametrize("stage", ["sft", "reward", "rlhf"])
def test_a_tokenizer_with_more_tokens_than_the_model_is_refused_before_a_step(
    profile: Profile, load_model: Load, tokenizer: Any, stage: str
) -> None:
    tokenizer.add_tokens(["a token that the model has no vector for"])
    with pytest.raises(UnfitModel, match="its tokenizer knows"):
        attempt(profile, stage, load_model(), tokenizer)
