"""`dp-instructions backfill` and `snapshot`: run many partitions in sequence, and read the source again.

A backfill runs each partition as `run` does, so repeating it skips what is up to date and continues where it stopped.
It continues after a partition that the gate refused, because nothing was read for it. It stops at any other failure,
whose cause might waste the budgets of the next partitions.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dp_assets.cli._console import INTERRUPTED, AsJson, err, open_ledger, out, print_json, refusals
from dp_assets.cli._ledger_tables import epsilon_in_words
from dp_assets.cli._tables import print_table
from dp_assets.cli.pipeline import exit_code, run_on
from dp_assets.pipeline.corpus import registration_of, snapshot_of
from dp_assets.privacy.headline import Guarantee
from dp_assets.privacy.metadata import headline_form
from dp_assets.settings.named import selected_profile

if TYPE_CHECKING:
    from dp_assets.pipeline.running import Outcome
    from dp_assets.vocabulary import Partition

How = Literal["made", "up to date", "refused", "failed", "interrupted", "not reached"]
DONE: tuple[How, ...] = ("made", "up to date")
GOES_ON: tuple[How, ...] = (*DONE, "refused")


@dataclass(frozen=True)
class Line:
    """The result for one partition.

    `charges` are the ids of the charges that this run made, and `epsilon` is their joint cost, None if unbounded.
    `guarantee` is that of the cohort after the run, with everything spent or booked for it.
    """

    partition: str
    how: How
    charges: tuple[str, ...]
    epsilon: float | None
    guarantee: Guarantee

    def to_json(self) -> dict[str, Any]:
        """Return the line as a JSON value; an unbounded epsilon is null."""
        told = {name: value for name, value in vars(self).items() if name != "guarantee"}
        return told | headline_form(self.guarantee) | {"left": self.guarantee.left}


@refusals
def backfill(
    cohorts: Annotated[str, typer.Option(help="Names or patterns such as 'bucket-*', separated by commas.")] = "*",
    levels: Annotated[
        str | None, typer.Option(help="Names or patterns such as 'eps-*', separated by commas; default: the planned.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Materialize what is missing or out of date for every chosen cohort at every chosen level, one after another.

    Ends with 1 if a partition was refused or failed. Give it again to go on with what is missing.
    """
    lines = run_all(chosen_partitions(cohorts, levels))
    if as_json:
        print_json({"partitions": [line.to_json() for line in lines]})
    else:
        _print(lines)
    raise typer.Exit(code_of(lines))


def chosen_partitions(cohorts: str, levels: str | None) -> "list[Partition]":
    """Return the partitions that the options name.

    Raises:
      typer.BadParameter: a name or pattern matches nothing in this profile, or no level is named and none planned.
    """
    from dp_assets.pipeline.partitions import UnknownPartition, matching_partitions

    chosen_levels = list(selected_profile().corpus.planned_levels) if levels is None else _parts(levels)
    if not chosen_levels:
        raise typer.BadParameter("the profile plans no level (corpus.planned_levels); name some with --levels")
    try:
        return matching_partitions(cohorts=_parts(cohorts), levels=chosen_levels)
    except UnknownPartition as unknown:
        raise typer.BadParameter(str(unknown)) from None


def _parts(option: str) -> list[str]:
    return [part.strip() for part in option.split(",")]


def run_all(partitions: "Sequence[Partition]") -> list[Line]:
    """Run the partitions in this order, until one fails other than at the gate.

    Raises:
      ChargeRefused: the corpus is not registered, or with other terms.
    """
    from dp_assets.pipeline.running import persistent_instance

    lines: list[Line] = []
    with persistent_instance() as instance:
        for number, partition in enumerate(partitions, start=1):
            earlier = open_ledger().state().charges.keys()
            how: How = "not reached"
            if not lines or lines[-1].how in GOES_ON:
                err.print(f"partition {partition.key}, {number} of {len(partitions)}")
                outcome = run_on(instance, partition.key)
                exit_code(outcome)
                how = how_it_ended(outcome)
            lines.append(line_of(partition, how, earlier))
    return lines


def how_it_ended(outcome: "Outcome") -> How:
    """Return the result of one partition's run in a word or two."""
    if outcome.interrupted:
        return "interrupted"
    if outcome.success:
        return "made" if outcome.made else "up to date"
    return "refused" if outcome.refused else "failed"


def line_of(partition: "Partition", how: How, earlier: Collection[str]) -> Line:
    """Return the result for a partition from the present ledger; `earlier` are the charges from before its run."""
    ledger = open_ledger()
    registration, state = registration_of(ledger, selected_profile()), ledger.state()
    here = (registration.corpus_id, partition.cohort, partition.level)
    charges = tuple(
        charge.charge_id
        for charge in state.charges.values()
        if (charge.corpus_id, charge.cohort, charge.level) == here and charge.charge_id not in earlier
    )
    return Line(
        partition=partition.key,
        how=how,
        charges=charges,
        epsilon=_finite(state.lineage_epsilon(charges)),
        guarantee=state.guarantee(registration.corpus_id, [partition.cohort], without_noise=False),
    )


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


def code_of(lines: Sequence[Line]) -> int:
    """Return the exit code of a backfill."""
    if any(line.how == "interrupted" for line in lines):
        return INTERRUPTED
    return int(not all(line.how in DONE for line in lines))


def _print(lines: Sequence[Line]) -> None:
    columns = ("partition", "outcome", "charged now", "guarantee", "spent or booked", "left")
    rows = [
        (
            line.partition,
            line.how,
            epsilon_in_words(line.epsilon) if line.charges else "nothing",
            f"{line.guarantee.epsilon:.4f}" if line.guarantee.holds else "none",
            f"{epsilon_in_words(_finite(line.guarantee.spent))} of {line.guarantee.budget:g}",
            f"{line.guarantee.left:.4f}" if line.guarantee.left else "nothing",
        )
        for line in lines
    ]
    print_table(out, columns, rows)


@refusals
def snapshot(as_json: AsJson = False) -> None:
    """Read the source anew as the snapshot that the profile names. Nothing is charged and nothing is released."""
    from dp_assets.definitions import defs
    from dp_assets.pipeline.running import NEW_SNAPSHOT, materialize, persistent_instance

    name = snapshot_of(open_ledger(), selected_profile())
    with persistent_instance() as instance:
        outcome = materialize(defs, instance, job=NEW_SNAPSHOT)
    if as_json:
        print_json({"snapshot": name, "success": outcome.success})
    elif outcome.success:
        out.print(f"the private tables hold snapshot {name}; mechanisms charge anew for it")
    raise typer.Exit(exit_code(outcome))
