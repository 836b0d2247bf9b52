"""The asset `annotated_instructions`."""

import dagster as dg

from dp_assets.artifacts import Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.annotation import annotated_by_model, annotated_by_people
from resources.annotator import Annotator
from resources.models.loaders import LanguageModel


@pipeline_asset(label=Label.RELEASED, group="alignment", kinds={"huggingface", "parquet"})
def annotated_instructions(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    language_model: LanguageModel,
    annotator: dg.ResourceParam[Annotator],
    filtered_instructions: Table,
) -> AssetValue[Table]:
    """(instruction, response) pairs: released; the annotator who wrote the responses saw synthetic text only."""
    filtered, settings = filtered_instructions.collect(), profile.annotation
    if settings.source == "human":
        made = annotated_by_people(context, settings, filtered)
    else:
        made = annotated_by_model(context, annotator, language_model, settings, filtered)
    unanswered = filtered.height - made.rows.height
    figures = {"dagster/row_count": made.rows.height, "unanswered": unanswered, **made.figures}
    return AssetValue(Table(made.rows.lazy()), figures)
