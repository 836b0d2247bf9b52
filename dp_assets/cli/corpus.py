"""`dp-instructions register`, `erase` and `corpus`: register a corpus, erase a unit, and inspect what is read."""

import re
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dp_assets.cli._console import AsJson, err, open_ledger, out, print_json, refusals
from dp_assets.cli._homes import remember_home, require_meant, warn_of_other_corpora, warn_of_other_homes
from dp_assets.cli.preview import preview, show_preview, somebody_answers
from dp_assets.corpus.fingerprint import fingerprint
from dp_assets.corpus.prepare import drop_erased, unit_of_user
from dp_assets.pipeline.corpus import (
    is_public_package,
    is_registered,
    register_corpus,
    registration_of,
    require_source,
    snapshot_of,
)
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.settings.named import selected_profile
from dp_assets.settings.profile import Profile
from resources.ledger.ledger_resource import Ledger
from resources.ledger.overlap import Sketches
from resources.private.erasure import erase as erase_unit
from resources.storage.zones import data_home

SHOWN_TO_THE_OWNER = (
    "Counted by unit ids, as far as snapshots were prepared here. These figures follow from private rows: show them to"
    " nobody. `dp-instructions corpus declare-overlap` makes one budget of two corpora."
)
UNSEEN = "registered without a preview here; `dp-instructions corpus preview` shows what is read and spends nothing"
FROM_STANDARD_INPUT = "-"
UNIT_ID = re.compile(r"(user|instruction):[0-9a-f]{32}")
# Constant texts: they do not depend on whether the unit had any rows, because output of a command may be logged.
REMOVED = (
    "the unit's rows from the private tables, if it had any: real_instructions and real_embeddings",
    "restricted reports and everything of level no-dp, which are made from exact rows",
    "checkpoints of unfinished trainings: a unit cannot be taken out of one, and what was charged for it stays spent",
    "the content of the private log and of private temporary files, which may quote rows",
)
STAYS = (
    "every charge: what was computed while the unit was there stays computed",
    "every release and all that was made from it: its guarantee bounds what it says about the unit",
    "in the ledger, a keyed hash of the unit's id, by which it is dropped again whenever real_instructions is made",
)
NEXT = (
    "delete the unit at the source; this command does not touch the source",
    "delete it from backups, file-system snapshots and copies of the private folder",
    "run the partitions again if you want releases without the unit: the snapshot is a new one, so each mechanism makes"
    " a new release under a new charge and the same budget; with no budget left it is refused before it reads anything",
    "erase it in every other corpus that holds it: this concerns the corpus of the profile only",
)


corpus_app = typer.Typer(no_args_is_help=True, help="Look at a corpus before anything is spent.")
corpus_app.command("preview")(preview)


@corpus_app.command("overlaps")
@refusals
def overlaps(as_json: AsJson = False) -> None:
    """Show, to the owner only, which fraction of a corpus's units each other corpus here holds too."""
    ledger = open_ledger()
    sketches, corpora = Sketches(Path(ledger.private_root)), tuple(ledger.state().registrations)
    parts = {corpus_id: sketches.parts_shared(corpus_id, set(corpora) - {corpus_id}) for corpus_id in corpora}
    if as_json:
        print_json({"corpora": parts})
        return
    for corpus_id, shared in parts.items():
        for other, part in shared.items():
            out.print(
                f"about {part:.1%} of the units of {corpus_id} are in {other} too", highlight=False, soft_wrap=True
            )
    out.print(SHOWN_TO_THE_OWNER, highlight=False, soft_wrap=True)


@corpus_app.command("declare-overlap")
@refusals
def declare_overlap(
    one: Annotated[str, typer.Argument(help="A corpus id, as `ledger show` prints it.")],
    other: Annotated[str, typer.Argument(help="The id of a corpus that may hold some of the same units.")],
    reason: Annotated[str, typer.Option(help="Kept in the ledger in plain text: name nobody.")] = "not stated",
    as_json: AsJson = False,
) -> None:
    """Give two corpora that may share units one budget, for good. What either spends counts for both."""
    ledger = open_ledger()
    ledger.declare_overlap(one, other, reason)
    together = ledger.state().together(one)
    if as_json:
        print_json({"corpora": list(together)})
        return
    out.print(f"one budget from now on: {', '.join(together)}", highlight=False, soft_wrap=True)


@refusals
def register(
    public: Annotated[bool, typer.Option(help="Declare the source public, which permits no-dp. Logged.")] = False,
    without_preview: Annotated[
        bool, typer.Option("--without-preview", help="Do not ask to look at what is read of the source first.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask where an earlier ledger for the source is gone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register the profile's corpus with its unit, bounds and budget, and book its planned levels.

    A source that is not registered yet is opened first, because a misspelled column could not be corrected afterwards.
    On a terminal a preview is offered. If an earlier ledger for the source is gone, a new budget must be confirmed.
    """
    ledger, profile = open_ledger(), selected_profile()
    if yes or is_registered(ledger, profile):
        warn_of_other_homes(profile)
    else:
        require_meant(profile)
    if not is_registered(ledger, profile):
        require_source(profile)
        if not without_preview and not is_public_package(profile):
            offer_preview(ledger, profile, asking=not as_json)
    registration = register_corpus(ledger, profile, declared_public=public)
    remember_home(profile)
    warn_of_other_corpora(profile)
    if as_json:
        print_json(registration.to_json())
        return
    out.print(
        f"corpus {registration.corpus_id}: unit {registration.unit}, at most {registration.max_rows_per_unit} rows,"
        f" budget epsilon {registration.budget_epsilon:g} at delta {registration.delta:g} for each cohort\n"
        f"ledger: {data_home() / Zone.PRIVATE / 'ledger'}",
    )


def offer_preview(ledger: Ledger, profile: Profile, *, asking: bool) -> None:
    """Offer the preview if somebody can answer, and let them stop after it. Nothing of their choice is stored.

    Raises:
      typer.Abort: they do not want to register what they saw.
    """
    if not (asking and somebody_answers()):
        err.print(UNSEEN)
        return
    if typer.confirm("Look at what is read of the source, before its terms are fixed?", default=True, err=True):
        show_preview(ledger, profile)
        settings = profile.corpus
        terms = f"unit {settings.unit}, at most {settings.max_rows_per_unit} rows, budget epsilon"
        terms += f" {settings.budget_epsilon:g} at delta {settings.delta:g}"
        typer.confirm(f"Register it ({terms})?", abort=True, err=True)


@refusals
def erase(
    unit: Annotated[str, typer.Argument(help="A user as the source names it; - reads it from standard input.")],
    reason: Annotated[str, typer.Option(help="Kept in the ledger in plain text: name nobody.")] = "not stated",
    unit_id: Annotated[bool, typer.Option("--unit-id", help="UNIT is a unit id of the private tables.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask. Needed to read the unit from standard input.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a unit from everything private, for good. Charges and releases stay; the output lists what is left to do.

    The output does not depend on whether the unit has any rows.
    """
    ledger, profile = open_ledger(), selected_profile()
    registration = registration_of(ledger, profile)
    named = unit_named(unit, is_unit_id=unit_id, unit=profile.corpus.unit, key=ledger.key, is_confirmed=yes)
    if not yes:
        typer.confirm("An erased unit cannot come back under the same id. Erase it?", abort=True, err=True)
    drop = partial(drop_erased, key=ledger.key)
    corpus_id, hashed = registration.corpus_id, partial(fingerprint, key=ledger.key)
    erase_unit(ledger, corpus_id=corpus_id, unit_id=named, reason=reason, drop=drop, fingerprint=hashed)
    print_erasure(registration.corpus_id, snapshot_of(ledger, profile), as_json=as_json)


def unit_named(name: str, *, is_unit_id: bool, unit: PrivacyUnit, key: bytes, is_confirmed: bool) -> str:
    """Return the unit id that the command line names.

    Raises:
      typer.BadParameter: it names no unit, or names a user where rows are the units.
    """
    if name == FROM_STANDARD_INPUT:
        if not is_confirmed:
            raise typer.BadParameter("a unit from standard input needs --yes, since the answer is read from there too")
        name = sys.stdin.readline().rstrip("\r\n")
    if is_unit_id:
        if UNIT_ID.fullmatch(name) is None:
            raise typer.BadParameter(
                "a unit id reads user: or instruction: and 32 hexadecimal digits; copy it from the private table"
            )
        return name
    if unit is PrivacyUnit.INSTRUCTION:
        raise typer.BadParameter(
            "the corpus's unit is the instruction: look its unit_id up, and pass it with --unit-id"
        )
    named = unit_of_user(name, key=key)
    if not named.startswith("user:"):
        raise typer.BadParameter("a blank user id names nobody; give the id as the source names the user")
    return named


def print_erasure(corpus_id: str, snapshot: str, *, as_json: bool) -> None:
    """Print what an erasure removed, what stays and what the owner has to do."""
    if as_json:
        lists = {"removed": REMOVED, "stays": STAYS, "next": NEXT}
        print_json({"corpus_id": corpus_id, "snapshot": snapshot, **lists})
        return
    out.print(f"erased; corpus {corpus_id} is at snapshot {snapshot}")
    for title, items in (("Removed", REMOVED), ("Stays", STAYS), ("Left to you", NEXT)):
        out.print(f"{title}:", *(f"  - {item}" for item in items), sep="\n")
