"""The interface through which private training reads the private rows."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from dp_assets.dpsgd.packing import TokenRow

UnitRows = Mapping[str, Sequence[TokenRow]]  # by unit id; a sampled unit contributes one of its rows
Picks = Mapping[str, tuple[int, int]]  # by unit: the index of the row that was drawn, and of how many


class PrivateRows(Protocol):
    """The private rows of one charge. They are opened once, and sampled rows are compared with the stored table."""

    def open(self) -> UnitRows:
        """Open the private rows. Called once, after the first checkpoint is on disk."""

    def match_stored_rows(self, rows: Sequence[TokenRow], unit_ids: Sequence[str], picks: Picks, steps: int) -> bool:
        """Whether each row is the picked row of its unit according to the stored table, not to the result of `open`.

        Args:
          rows: the rows that were clipped.
          unit_ids: the unit of each row.
          picks: the sampler's picks.
          steps: how many steps this process has taken.
        """

    def note_continued(self, checkpoint: str) -> None:
        """Record in the ledger that the run continues from this checkpoint, named by its digest."""
