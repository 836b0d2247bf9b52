"""`dp-instructions plan`: what each level needs, before anything is spent."""

from typing import Annotated

import typer
from rich.table import Table as RichTable

from dp_assets.cli._console import AsJson, out, print_json, refusals
from dp_assets.privacy.plan import target_of
from dp_assets.profiles import selected_profile


def check_levels(levels: list[str] | None) -> list[str] | None:
    """Levels as given on the command line, refused as wrong usage if they are none."""
    try:
        for level in levels or ():
            target_of(level)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return levels


@refusals
def plan(
    levels: Annotated[
        list[str] | None, typer.Argument(callback=check_levels, help="Such as eps-8; default: the planned ones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What each level needs, before anything is spent and without reading private data."""
    profile = selected_profile()
    plans = [profile.plan(level) for level in levels or profile.corpus.planned_levels]
    if as_json:
        print_json([plan.to_json() | {"epsilon": plan.epsilon} for plan in plans])
        return
    columns = ("level", "epsilon", "delta", "noise multiplier", "histogram noise", "steps", "batch")
    table = RichTable(*columns, title="plans")
    for one in plans:
        dpsgd = one.dpsgd
        table.add_row(
            one.level,
            f"{one.epsilon:.4f}",
            f"{one.delta:g}",
            f"{dpsgd.noise_multiplier:.4f}",
            f"{one.votes.noise_stddev:g}",
            f"{dpsgd.steps} + {dpsgd.spare_steps} spare",
            f"{dpsgd.expected_batch_size}",
        )
    out.print(table)
