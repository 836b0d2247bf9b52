"""A mechanism whose parts a test chooses, and a run that needs nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dp_assets.artifacts import Table
from dp_assets.privacy.claim import Discrepancy
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.ledger_state import ChargeRecord
from dp_assets.privacy.plan import PrivacyPlan


@dataclass(frozen=True)
class ToyMechanism:
    """Runs `act` under the charge, and takes its evidence as it comes."""

    name: str
    plan: PrivacyPlan
    act: Callable[[Any], tuple[Table, Evidence]]

    def require_ready(self) -> None:
        """It needs nothing."""

    def run(self, charge: Any) -> tuple[Table, Evidence]:
        return self.act(charge)

    def check(self, evidence: Mapping[str, Any]) -> list[Discrepancy]:
        return []

    def can_resume(self, record: ChargeRecord) -> bool:
        return False

    def describe(self, evidence: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}


class NothingElse:
    """The rest of a run that consists of its mechanism."""

    def require_ready(self) -> None:
        """There is nothing to ask."""
