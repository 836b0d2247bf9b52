"""What private training asks of whoever holds the private rows."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from dp_assets.dpsgd.packing import TokenRow

UnitRows = Mapping[str, Sequence[TokenRow]]  # by unit id; a sampled unit contributes one of its rows
Picks = Mapping[str, tuple[int, int]]  # by unit: the index of the row that was drawn, and of how many


class PrivateRows(Protocol):
    """The rows of one charge, opened once, and what was drawn of them compared with how they are stored."""

    def open(self) -> UnitRows:
        """Open the private rows: called once, when the first checkpoint is on disk."""

    def are_drawn(self, rows: Sequence[TokenRow], unit_ids: Sequence[str], picks: Picks, steps: int) -> bool:
        """Whether each row is the one that was drawn of its unit's rows, by the table and not by what `open` gave.

        `steps` is how many steps this process has taken.
        """

    def note_continued(self, checkpoint: str) -> None:
        """Record in the ledger that the run goes on from this checkpoint."""
