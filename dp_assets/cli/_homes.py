"""Warnings of budgets that do not count each other: of other ledgers, and of other corpora in this ledger."""

import typer
from rich.markup import escape

from dp_assets.cli._console import err, open_ledger
from dp_assets.pipeline.corpus import is_public_package, locator_of, registration_of
from dp_assets.settings.profile import Profile
from resources.ledger.homes import note_home, other_ledgers
from resources.storage.zones import data_home


def warn_of_other_homes(profile: Profile) -> bool:
    """Warn on standard error of other ledgers for the profile's source. Return whether one of them is gone.

    A packaged public source needs no warning, because it has no people to protect.
    """
    if is_public_package(profile):
        return False
    others = other_ledgers(locator_of(profile), data_home(), _first_digest())
    for other in others.there:
        _warn(
            f"the data folder {other} has a ledger for this source too. Each folder has a budget of its own, and"
            " neither counts what the other releases: work in one of them only"
        )
    for other in others.gone:
        _warn(
            f"the data folder {other} had another ledger for this source, which is gone. What was released under it is"
            " not counted here: bring that data folder back, unless nothing that was made with it was ever shown"
        )
    return bool(others.gone)


def remember_home(profile: Profile) -> None:
    """Record that the data folder's ledger has the profile's source."""
    first_digest = _first_digest()
    if first_digest is not None and not is_public_package(profile):
        note_home(locator_of(profile), data_home(), first_digest)


def _first_digest() -> str | None:
    return next((entry.digest for entry in open_ledger().entries()), None)


def require_meant(profile: Profile) -> None:
    """Ask for confirmation if a source would get a new budget though an earlier ledger for it is gone.

    Raises:
      typer.Abort: the user does not confirm, or nobody answers.
    """
    if warn_of_other_homes(profile):
        typer.confirm("Register it with a new budget for the same people?", abort=True, err=True)


def warn_of_other_corpora(profile: Profile) -> None:
    """Warn on standard error if the data folder has another corpus, judging by the registrations only."""
    from dp_assets.pipeline.overlap import OTHER_CORPORA

    ledger = open_ledger()
    if ledger.state().apart_from(registration_of(ledger, profile).corpus_id):
        _warn(OTHER_CORPORA)


def _warn(reason: str) -> None:
    err.print(f"[bold yellow]warning[/]: {escape(reason)}", highlight=False, soft_wrap=True)
