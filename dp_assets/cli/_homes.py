"""A warning where the same source has a ledger in another data folder as well."""

from rich.markup import escape

from dp_assets.assets._corpus import is_public_package, locator_of
from dp_assets.cli._console import err
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
        err.print(f"[bold yellow]warning[/]: {escape(reason)}", highlight=False, soft_wrap=True)
