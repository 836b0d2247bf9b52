"""The asset `annotated_instructions`."""

import dagster as dg

from dp_assets.artifacts import Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import result
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.annotation import annotated_by_model, annotated_by_people
from resources.annotator import Annotator
from resources.ledger.charging import Ledger
from resources.models.loaders import LanguageModel

NAME = "annotated_instructions"


@pipeline_asset(label=Label.RELEASED, group="alignment", kinds={"huggingface", "parquet"})
def annotated_instructions(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    ledger: Ledger,
    language_model: LanguageModel,
    annotator: dg.ResourceParam[Annotator],
    filtered_instructions: Table,
) -> dg.MaterializeResult[Table]:
    """(instruction, response) pairs: released; the annotator who wrote the responses saw synthetic text only."""
    filtered, settings, own = filtered_instructions.collect(), profile.annotation, profile.own_digest(NAME)
    if settings.source == "human":
        made = annotated_by_people(context, settings, filtered)
    else:
        made = annotated_by_model(context, annotator, language_model, settings, filtered)
    unanswered = filtered.height - made.rows.height
    figures = {"dagster/row_count": made.rows.height, "unanswered": unanswered, **made.figures}
    value = Table(made.rows.lazy(), filtered_instructions.charge_ids)
    return result(context, value, ledger=ledger, profile=profile, extra=figures, own_settings=own)
