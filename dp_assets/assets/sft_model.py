"""The asset `sft_model`."""

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
def sft_model(
    profile: dg.ResourceParam[Profile],
    language_model: LanguageModel,
    annotated_instructions: Table,
) -> AssetValue[Adapter]:
    """The policy fine-tuned on the annotated pairs: released, a LoRA adapter."""
    from dp_assets.alignment.record import training_record
    from dp_assets.alignment.sft import train_sft
    from dp_assets.generation.adapters import adapter_from_model

    pairs = profile.sft.limit(annotated_instructions.rows).collect()
    steps = profile.sft.optimizer_steps(pairs.height)
    with progress("supervised fine-tuning", steps, "steps") as advance:
        model, curve = train_sft(*language_model.load(), pairs, profile.sft, advance=advance)
    adapter = adapter_from_model(
        model,
        base_model=language_model.public_name,
        record=training_record(curve),
    )
    return AssetValue(adapter, training_figures(adapter, title="Supervised fine-tuning"))
