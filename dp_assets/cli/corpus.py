"""`dp-instructions register`: the terms of a corpus, fixed before any of it is used."""

from typing import Annotated

import typer

from dp_assets.assets._corpus import register_corpus
from dp_assets.cli._console import open_ledger, out, refusals
from dp_assets.privacy.labels import Zone
from dp_assets.profiles import selected_profile
from resources.zones import data_home


@refusals
def register(
    public: Annotated[bool, typer.Option(help="Declare the source public, which permits no-dp. Logged.")] = False,
) -> None:
    """Register the profile's corpus with its unit, bounds and budget, and book its planned levels."""
    registration = register_corpus(open_ledger(), selected_profile(), declared_public=public)
    out.print(
        f"corpus {registration.corpus_id}: unit {registration.unit}, at most {registration.max_rows_per_unit} rows,"
        f" budget epsilon {registration.budget_epsilon:g} at delta {registration.delta:g} for each cohort\n"
        f"ledger: {data_home() / Zone.PRIVATE / 'ledger'}",
        highlight=False,
    )
