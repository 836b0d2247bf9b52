"""Privacy labels and zones: on which side of the boundary an artifact lies.

- A *private* artifact may depend on real rows without noise.
- A *mechanism* reads private rows and releases noisy results.
- A *released* artifact reads released and public data only, so it is post-processing of the mechanisms upstream.

The level `no-dp` runs without noise, on public sources only, for comparison. Nothing made at it may leave the private
zone.
"""

from enum import StrEnum

TAG = "privacy"
LABEL_METADATA = "privacy/label"
NO_DP = "no-dp"


class Label(StrEnum):
    """The value of an asset's `privacy` tag."""

    PRIVATE = "private"
    MECHANISM = "mechanism"
    RELEASED = "released"


class Zone(StrEnum):
    """Where an artifact is stored."""

    PRIVATE = "private"
    RELEASED = "released"


def zone(label: Label, level: str | None) -> Zone:
    """Return the zone of an artifact with this label and privacy level (None for assets without partitions).

    IO managers, the catalog, metadata and annotators all call this function, so that they cannot disagree.
    """
    if label is Label.PRIVATE or level == NO_DP:
        return Zone.PRIVATE
    return Zone.RELEASED


def may_read_private(label: Label) -> bool:
    """Return whether an asset with this label may receive a private table."""
    return label is not Label.RELEASED
