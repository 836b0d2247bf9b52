"""The asset `annotated_instructions`."""

import dagster as dg

from dp_assets.artifacts import Table
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._release import result
from dp_assets.privacy.labels import Label
from dp_assets.progress import progress
from resources.ledger import Ledger
from resources.models import LanguageModel
from resources.profile import Profile


@pipeline_asset(label=Label.RELEASED, group="alignment", kinds={"huggingface", "parquet"})
def annotated_instructions(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    language_model: LanguageModel,
    filtered_instructions: Table,
) -> dg.MaterializeResult[Table]:
    """(instruction, response) pairs: released; the annotator who wrote the responses saw synthetic text only."""
    from dp_assets.alignment.annotation import annotate
    from dp_assets.generation.sampling import generate_answers

    model, tokenizer = language_model.load()
    filtered = filtered_instructions.collect()
    with progress("annotating", filtered.height, "instructions") as advance:
        settings = profile.annotation.model_dump() | {"advance": advance}

        def answer(instructions: list[str]) -> list[str]:
            return generate_answers(model, tokenizer, instructions=instructions, **settings)

        annotation = annotate(filtered, answer, annotator=language_model.public_name)
    figures = {"dagster/row_count": annotation.rows.height, "unanswered": annotation.unanswered}
    value = Table(annotation.rows.lazy(), filtered_instructions.charge_ids)
    return result(context, value, ledger=ledger, profile=profile, extra=figures)
