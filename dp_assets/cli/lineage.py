"""`dp-instructions lineage`: the cost of released artifacts, of each alone and of all together.

Reads the charge ids that are stored with each artifact, also in a copied folder, and looks them up in the ledger.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dp_assets.cli._console import AsJson, open_ledger, out, print_json, refusals
from dp_assets.cli._tables import print_table
from dp_assets.privacy.metadata import joint_metadata
from resources.storage.artifact_files import stored_charge_ids


@refusals
def lineage(
    artifacts: Annotated[list[Path], typer.Argument(exists=True, file_okay=False, help="Folders of artifacts.")],
    as_json: AsJson = False,
) -> None:
    """Show the cost of each released artifact, and of all together: composition over the union of their charges."""
    state = open_ledger().state()
    ids = {str(path): stored_charge_ids(path) for path in artifacts}
    rows = [{"artifact": path, **joint_metadata(state, own)} for path, own in ids.items()]
    joint = joint_metadata(state, sorted({charge_id for own in ids.values() for charge_id in own}))
    if as_json:
        print_json({"artifacts": rows, "together": joint})
        return
    _print(rows, joint)


def _print(rows: list[dict[str, Any]], joint: dict[str, Any]) -> None:
    shown = [
        (row["artifact"], "\n".join(row["charge_ids"]), _shown(row["lineage_epsilon"]))
        for row in (*rows, {"artifact": "all together", **joint})
    ]
    print_table(out, ("artifact", "charges", "lineage epsilon"), shown, whole=("charges",), folding=("artifact",))
    headlines = [
        (cohort["cohort"], cohort["corpus_id"][:8], _guaranteed(cohort), cohort["headline_basis"], _spent_of(cohort))
        for cohort in joint["cohorts"]
    ]
    columns = ("cohort", "of corpus", "guarantee", "it rests on", "spent or booked")
    print_table(out, columns, headlines, title="headline")
    out.print(
        "The lineage epsilon holds if the artifacts were fixed before anybody saw a result; the headline holds for"
        " everything of a cohort."
    )


def _guaranteed(cohort: dict[str, Any]) -> str:
    return "none" if cohort["headline_epsilon"] is None else _shown(cohort["headline_epsilon"])


def _spent_of(cohort: dict[str, Any]) -> str:
    return f"{_shown(cohort['spent_epsilon'])} of {cohort['budget_epsilon']:g}"


def _shown(epsilon: float | None) -> str:
    return "unbounded" if epsilon is None else f"{epsilon:.4f}"
