"""Warnings of budgets that do not count each other: of other data folders, and of other corpora in this one."""

from rich.markup import escape

from dp_assets.assets._corpus import is_public_package, locator_of, registration_of
from dp_assets.cli._console import err, open_ledger
from resources.homes import note_home
from resources.profile import Profile
from resources.zones import data_home


def warn_of_other_homes(profile: Profile) -> None:
    """Warn on standard error if another data folder of this user has a ledger for the profile's source.

    A packaged public source has nobody to protect.
    """
    if is_public_package(profile):
        return
    for other in note_home(locator_of(profile), data_home()):
        reason = (
            f"the data folder {other} has a ledger for this source too. Each folder has a budget of its own, and"
            " neither counts what the other releases: work in one of them only"
        )
        _warn(reason)


def warn_of_other_corpora(profile: Profile) -> None:
    """Warn on standard error if the data folder has another corpus. It depends on the registrations only."""
    from dp_assets.assets._overlap import OTHER_CORPORA

    ledger = open_ledger()
    if ledger.state().apart_from(registration_of(ledger, profile).corpus_id):
        _warn(OTHER_CORPORA)


def _warn(reason: str) -> None:
    err.print(f"[bold yellow]warning[/]: {escape(reason)}", highlight=False, soft_wrap=True)
