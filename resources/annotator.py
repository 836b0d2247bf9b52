"""Who writes answers or judges them: the local model, or an endpoint outside. This resource guards the way out.

It knows the endpoint's settings, where answers are kept, and the name of the variable that holds the key. It holds no
key: that is read when there is something to ask. Only what lies in the released zone may be sent, and what was made at
the level no-dp does not.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dp_assets.alignment.settings import EndpointSettings
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.labels import Label, Zone, zone
from dp_assets.settings.profile import Profile
from resources.public_failure import PublicFailure

NO_KEY = "none"
"""What a server that needs no key is sent, so that no other key of the environment is."""


SENDABLE = re.compile(r"[!-~]+")
"""Printable ASCII without blanks."""


class NotReady(PublicError, ValueError):
    """Something outside that a run will need cannot be used; the message names the setting and the remedy."""


class NotReleased(PublicFailure):
    """Something was about to be sent that does not lie in the released zone."""

    def __init__(self, group: str) -> None:
        super().__init__(
            f"{group} may only be sent what lies in the released zone; leave it out for private tables and"
            " for the level no-dp, so that the local model answers"
        )


class MissingKey(PublicFailure):
    """The variable that should hold the key is not set."""

    def __init__(self, group: str, variable: str) -> None:
        super().__init__(
            f"{group}.api_key_variable is {variable!r}, and no such environment variable is set; export it,"
            " or leave the setting out if the server needs no key"
        )


class UnusableKey(PublicFailure):
    """The variable holds something that cannot be sent as a key. What it is stays unsaid."""

    def __init__(self, group: str, variable: str) -> None:
        super().__init__(
            f"{group}.api_key_variable is {variable!r}, and that environment variable holds a blank or a"
            " character that is not ASCII, which cannot be sent; export the key again, without quotes or other words"
        )


@dataclass(frozen=True)
class Annotator:
    """An endpoint, or the local model if `endpoint` is None. `group` names the settings in messages."""

    group: str
    endpoint: EndpointSettings | None
    home: Path

    def admitted(self, label: Label, level: str | None) -> EndpointSettings:
        """The endpoint, for rows with this label made at this level.

        Raises:
          NotReleased: such rows lie in the private zone.
          ValueError: there is no endpoint.
        """
        if zone(label, level) is not Zone.RELEASED:
            raise NotReleased(self.group)
        if self.endpoint is None:
            raise ValueError(f"{self.group} is not set; give it base_url and model")
        return self.endpoint

    def api_key(self) -> str:
        """The key, from the environment.

        Raises:
          MissingKey: the variable is not set or empty.
          UnusableKey: it holds what cannot be part of a header.
        """
        variable = self.endpoint.api_key_variable if self.endpoint is not None else None
        if variable is None:
            return NO_KEY
        key = os.environ.get(variable, "").strip()
        if not key:
            raise MissingKey(self.group, variable)
        if not SENDABLE.fullmatch(key):
            raise UnusableKey(self.group, variable)
        return key

    def answers_file(self, asset: str, partition: str) -> Path:
        """Where the answers for one partition of a released asset are kept."""
        return _file_of(self.home, "answers", asset, partition)


def annotators_of(profile: Profile, home: Path) -> dict[str, Annotator]:
    """The endpoints of a profile by the resource's key; each may be none."""
    return {
        "annotator": Annotator("annotation.endpoint", profile.annotation.endpoint, home),
        "judge": Annotator("preferences.judge", profile.preferences.judge, home),
    }


def samples_file(home: Path, asset: str, partition: str) -> Path:
    """Where the answers that a policy gave for one partition of a released asset are kept."""
    return _file_of(home, "samples", asset, partition)


def _file_of(home: Path, kind: str, asset: str, partition: str) -> Path:
    *folders, level = partition.split("|")
    return home.joinpath(Zone.RELEASED, kind, asset, *folders, f"{level}.jsonl")
