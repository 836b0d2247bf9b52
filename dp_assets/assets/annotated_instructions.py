"""The asset `annotated_instructions`."""

import dagster as dg

from dp_assets.artifacts import Table
from dp_assets.assets._answering import answerer_of
from dp_assets.assets._asset import pipeline_asset
from dp_assets.assets._release import result
from dp_assets.privacy.labels import Label
from dp_assets.progress import progress
from resources.annotator import Annotator
from resources.ledger import Ledger
from resources.models import LanguageModel
from resources.profile import Profile


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
    from dp_assets.alignment.annotation import annotate

    filtered = filtered_instructions.collect()
    with (
        progress("annotating", filtered.height, "instructions") as advance,
        answerer_of(context, annotator, language_model, profile.annotation, advance) as answerer,
    ):
        annotation = annotate(filtered, answerer.answer, annotator=answerer.name)
    figures = {"dagster/row_count": annotation.rows.height, "unanswered": annotation.unanswered, **answerer.figures}
    value = Table(annotation.rows.lazy(), filtered_instructions.charge_ids)
    return result(context, value, ledger=ledger, profile=profile, extra=figures)
