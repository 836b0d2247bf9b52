"""The asset `preference_pairs`."""

import dagster as dg

from dp_assets.artifacts import Adapter, Table
from dp_assets.pipeline.asset import pipeline_asset
from dp_assets.pipeline.asset_metadata import AssetValue
from dp_assets.privacy.labels import Label
from dp_assets.settings.profile import Profile
from dp_assets.stages.annotation import NothingMade
from dp_assets.stages.preferences import (
    ASSET,
    DROPPED,
    judged_preferences,
    offline_preferences,
    preferences_of_file,
    preferences_of_people,
)
from resources.annotator import Annotator
from resources.models.loaders import LanguageModel


@pipeline_asset(label=Label.RELEASED, group="alignment", kinds={"huggingface", "parquet"}, code_version="2")
def preference_pairs(
    context: dg.AssetExecutionContext,
    profile: dg.ResourceParam[Profile],
    language_model: LanguageModel,
    judge: dg.ResourceParam[Annotator],
    annotated_instructions: Table,
    sft_model: Adapter,
) -> AssetValue[Table]:
    """(prompt, chosen, rejected): released; made without a judge, by one, by people, or read from a public file."""
    annotated, settings = annotated_instructions.collect(), profile.preferences
    if settings.source == "file":
        made = preferences_of_file(settings)
    elif settings.source == "human":
        made = preferences_of_people(context, settings, annotated)
    elif settings.source == "judge":
        made = judged_preferences(context, judge, annotated, language_model, sft_model, profile)
    else:
        made = offline_preferences(annotated, language_model, sft_model, profile)
    if made.pairs.is_empty():
        raise NothingMade(ASSET, made.figures.get(DROPPED, {}))
    return AssetValue(Table(made.pairs.lazy()), {"dagster/row_count": made.pairs.height, **made.figures})
