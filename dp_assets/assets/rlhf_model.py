"""The asset `rlhf_model`.

DPO trains on the preference pairs; RLOO and GRPO do not use them. The edge exists for every method, so that the graph,
and so what a run finds out of date, does not depend on the profile. It costs nothing, because the reward model already
depends on the pairs.
"""

import dagster as dg

from dp_assets.artifacts import Adapter, Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.privacy.labels import Label
from dp_assets.progress import progress
from dp_assets.settings.profile import Profile
from dp_assets.stages.policy_metadata import policy_metadata
from resources.models.loaders import LanguageModel


@pipeline_asset(label=Label.RELEASED, group="alignment", kinds={"huggingface", "pytorch"}, code_version="2")
def rlhf_model(
    profile: dg.ResourceParam[Profile],
    language_model: LanguageModel,
    sft_model: Adapter,
    reward_model: Adapter,
    preference_pairs: Table,
    filtered_instructions: Table,
) -> AssetValue[Adapter]:
    """The policy optimized by RLOO, GRPO or DPO: released, a LoRA adapter on the base model."""
    from dp_assets.alignment.record import policy_record
    from dp_assets.alignment.reward import attach_reward_adapter
    from dp_assets.alignment.rlhf import train_policy
    from dp_assets.generation.adapters import adapter_from_model, attach_adapter

    base, tokenizer = language_model.load()
    method = profile.rlhf.method
    with progress(f"optimizing the policy with {method.upper()}", profile.rlhf.steps, "steps") as advance:
        training = train_policy(
            attach_adapter(base, sft_model, trainable=True),
            tokenizer,
            attach_reward_adapter(*language_model.load(), reward_model),
            filtered_instructions.collect()["text"].to_list(),
            preference_pairs.collect(),
            profile.rlhf,
            advance=advance,
        )
    adapter = adapter_from_model(
        training.model,
        base_model=language_model.public_name,
        record=policy_record(training.curve, training.figures, method=method, evaluations=training.evaluations),
    )
    return AssetValue(adapter, policy_metadata(adapter))
