"""The asset `preference_pairs`."""

import dagster as dg

from dp_assets.artifacts import Adapter, Table, union_of_ids
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._release import result
from dp_assets.privacy.labels import Label
from dp_assets.progress import progress
from resources.ledger import Ledger
from resources.models import LanguageModel
from resources.profile import Profile


@pipeline_asset(label=Label.RELEASED, group="alignment", kinds={"huggingface", "parquet"})
def preference_pairs(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    language_model: LanguageModel,
    annotated_instructions: Table,
    sft_model: Adapter,
) -> dg.MaterializeResult[Table]:
    """(prompt, chosen, rejected) on synthetic prompts: released, made without a judge."""
    from dp_assets.alignment.preferences import make_preference_pairs
    from dp_assets.generation.adapters import attach_adapter
    from dp_assets.generation.sampling import generate_answers

    base, tokenizer = language_model.load()
    policy, settings = attach_adapter(base, sft_model), profile.preferences
    sampling = profile.annotation.model_dump() | {"temperature": settings.hot_temperature, "seed": settings.seed}
    with progress("sampling hot answers to reject", settings.num_pairs // 3, "answers") as advance:

        def sampled_hot(instructions: list[str]) -> list[str]:
            return generate_answers(policy, tokenizer, instructions=instructions, advance=advance, **sampling)

        pairs = make_preference_pairs(
            annotated_instructions.collect(),
            sampled_hot=sampled_hot,
            num_pairs=settings.num_pairs,
            seed=settings.seed,
        )
    value = Table(pairs.lazy(), union_of_ids(annotated_instructions, sft_model))
    return result(context, value, ledger=ledger, profile=profile, extra={"dagster/row_count": pairs.height})
