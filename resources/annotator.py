"""Annotators: who writes answers or judges them, either the local model or an external endpoint.

This resource knows the endpoint's settings, where answers are stored, and the name of the variable that holds the key.
It does not hold the key, which is read when a request is made. Only artifacts of the released zone may be sent. Those
made at the level no-dp do not lie there.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dp_assets.alignment.settings import EndpointSettings
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.labels import Label, Zone, zone
from dp_assets.settings.profile import Profile
from dp_assets.vocabulary import Partition
from resources.public_failure import PublicFailure

NO_KEY = "none"
"""Sent as the key to a server that needs none, so that no other key of the environment is sent."""


SENDABLE = re.compile(r"[!-~]+")
"""The form of a key that can be sent in a header: printable ASCII without spaces."""


class NotReady(PublicError, ValueError):
    """An external service that a run will need cannot be used; the message names the setting and the remedy."""


class NotReleased(PublicFailure):
    """An artifact outside the released zone was about to be sent."""

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
    """The variable holds a value that cannot be sent as a key. The message does not show it."""

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
        """Return the endpoint, for rows with this label made at this level.

        Raises:
          NotReleased: rows of this label and level lie in the private zone.
          ValueError: there is no endpoint.
        """
        if zone(label, level) is not Zone.RELEASED:
            raise NotReleased(self.group)
        if self.endpoint is None:
            raise ValueError(f"{self.group} is not set; give it base_url and model")
        return self.endpoint

    def api_key(self) -> str:
        """Return the key from the environment.

        Raises:
          MissingKey: the variable is not set or empty.
          UnusableKey: it holds characters that cannot be part of a header.
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
        """Return the file that stores the answers for one partition of a released asset."""
        return _file_of(self.home, "answers", asset, partition)


def annotators_of(profile: Profile, home: Path) -> dict[str, Annotator]:
    """Return the endpoints of a profile by resource key; each may be None."""
    return {
        "annotator": Annotator("annotation.endpoint", profile.annotation.endpoint, home),
        "judge": Annotator("preferences.judge", profile.preferences.judge, home),
    }


def samples_file(home: Path, asset: str, partition: str) -> Path:
    """Return the file that stores a policy's samples for one partition of a released asset."""
    return _file_of(home, "samples", asset, partition)


def _file_of(home: Path, kind: str, asset: str, partition: str) -> Path:
    return home / Zone.RELEASED / kind / asset / f"{Partition.named(partition).path}.jsonl"
