"""The Dagster failure whose message may be shown outside the private zone."""

import dagster as dg

from dp_assets.privacy.errors import PublicError


class PublicFailure(PublicError, dg.Failure):
    """A public error that fails an asset without a retry, because a retry would change nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(description=message, allow_retries=False)
