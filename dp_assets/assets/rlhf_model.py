"""The asset `rlhf_model`."""

import dagster as dg

from dp_assets.artifacts import Adapter, Table, union_of_ids
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._release import result
from dp_assets.assets._training import training_figures
from dp_assets.privacy.labels import Label
from dp_assets.progress import progress
from resources.ledger import Ledger
from resources.models import LanguageModel
from resources.profile import Profile


@pipeline_asset(label=Label.RELEASED, group="alignment", kinds={"huggingface", "pytorch"})
def rlhf_model(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    language_model: LanguageModel,
    sft_model: Adapter,
    reward_model: Adapter,
    filtered_instructions: Table,
) -> dg.MaterializeResult[Adapter]:
    """The policy optimised against the reward model with RLOO: released, a LoRA adapter on the base model."""
    from dp_assets.alignment.reward import attach_reward_adapter
    from dp_assets.alignment.rlhf import train_policy
    from dp_assets.generation.adapters import adapter_from_model, attach_adapter

    base, tokenizer = language_model.load()
    prompts = filtered_instructions.collect()["text"].to_list()
    with progress("optimising the policy with RLOO", profile.rlhf.steps, "steps") as advance:
        training = train_policy(
            attach_adapter(base, sft_model, trainable=True),
            tokenizer,
            attach_reward_adapter(*language_model.load(), reward_model),
            prompts,
            advance=advance,
            **profile.rlhf.model_dump(),
        )
    adapter = adapter_from_model(
        training.model,
        base_model=language_model.public_name,
        charge_ids=union_of_ids(sft_model, reward_model, filtered_instructions),
        record={"curve": training.curve},
    )
    extra = training_figures(adapter, title="RLOO")
    return result(context, adapter, ledger=ledger, profile=profile, extra=extra)
