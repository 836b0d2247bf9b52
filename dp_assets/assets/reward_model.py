"""The asset `reward_model`."""

import dagster as dg

from dp_assets.artifacts import Adapter, Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.privacy.labels import Label
from dp_assets.progress import progress
from dp_assets.settings.profile import Profile
from dp_assets.stages.training_curve import training_figures
from resources.models.loaders import LanguageModel


@pipeline_asset(label=Label.RELEASED, group="alignment", kinds={"huggingface", "pytorch"})
def reward_model(
    profile: dg.ResourceParam[Profile],
    language_model: LanguageModel,
    preference_pairs: Table,
) -> AssetValue[Adapter]:
    """A scorer of answers trained on the preference pairs: released, a LoRA adapter with a score head."""
    from dp_assets.alignment.record import training_record
    from dp_assets.alignment.reward import train_reward_model
    from dp_assets.generation.adapters import adapter_from_model

    pairs = profile.reward.limit(preference_pairs.rows).collect()
    steps = profile.reward.optimizer_steps(round(pairs.height * (1 - profile.reward.held_out_fraction)))
    with progress("training the reward model", steps, "steps") as advance:
        training = train_reward_model(*language_model.load(), pairs, profile.reward, advance=advance)
    adapter = adapter_from_model(
        training.model,
        base_model=language_model.public_name,
        record=training_record(training.curve, training.figures),
    )
    return AssetValue(adapter, training_figures(adapter, title="Reward model"))
