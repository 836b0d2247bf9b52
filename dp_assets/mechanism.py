"""What a mechanism is: the only kind of object that reads private rows and makes a release of them.

For a new release, the release protocol (`pipeline/release_protocol.py`) calls these methods in one order:

    require_ready -> can_resume, or a charge for `plan` -> run -> describe -> check

A stored release that is settled is returned as it is. One whose charge is not settled yet is checked again.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from dp_assets.artifacts import Adapter, ResumableCharge, Table
from dp_assets.privacy.claim import Discrepancy
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.ledger_state import ChargeRecord
from dp_assets.privacy.plan import PrivacyPlan

Release_co = TypeVar("Release_co", bound=Table | Adapter, covariant=True)


class Mechanism(Protocol[Release_co]):
    """One mechanism at one privacy level, over one private table, with everything that decides its release."""

    @property
    def name(self) -> str:
        """The asset that it makes, under which its plan has an event."""

    @property
    def plan(self) -> PrivacyPlan:
        """What is charged, and what the evidence is compared with."""

    def require_ready(self) -> None:
        """Find what can go wrong without private rows, before anything is charged, and raise what is wrong."""

    def run(self, charge: ResumableCharge) -> tuple[Release_co, Evidence]:
        """Open the private rows under the charge; return the release and the evidence of what happened."""

    def check(self, evidence: Mapping[str, Any]) -> list[Discrepancy]:
        """Every difference between the public evidence and the plan."""

    def can_resume(self, record: ChargeRecord) -> bool:
        """Whether an interrupted run under this opened charge may go on."""

    def describe(self, evidence: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the release says about itself besides its evidence, made from the public evidence alone."""
