"""The terms of a corpus, fixed under a random id before any of its rows is used.

No term may change after the first charge, with one exception: a logged command may raise the budget, and the raised
budget is then the guarantee.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dp_accounting import ComposedDpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.plan import PrivacyPlan
from dp_assets.privacy.units import RELATION, PrivacyUnit, WithoutUser, unit_in_words

GATE_ORDERS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128, 256)

FIXED = {
    "unit": "corpus.unit",
    "unit_columns": "corpus.source.columns",
    "query": "corpus.source.query",
    "without_user": "corpus.without_user",
    "max_rows_per_unit": "corpus.max_rows_per_unit",
    "cohorts": "corpus.cohorts",
    "cohort_function": "corpus.cohorts",
    "delta": "corpus.delta",
    "relation": "neighboring relation",
}
"""The terms that registration fixes, with their names in a profile."""
OTHER_QUERY = (
    "; for another query about the same people take a corpus.name of its own, and make one budget of both with"
    " `dp-instructions corpus declare-overlap`"
)


class RegistrationError(PublicError, ValueError):
    """A corpus is not registered, or its configuration differs from what was registered."""


@dataclass(frozen=True)
class Terms:
    """The terms that an owner fixes by registering a corpus.

    - `unit_columns` names the columns of a row's user and time. Other columns would make other units and cohorts of the
      same rows.
    - `cohorts` is the fixed list of disjoint sets of units. `budget_epsilon` is the bound for each at `delta`.
    - `is_public` says whether the owner declared the source public. Runs without noise need this declaration.
    - `without_user` says what becomes of rows that name no user. A ledger from before that setting kept them.
    - `query` is a digest of the query, which may compute users and times. It is empty where there is no query. A
      registration from before that term has None until the next charge.
    """

    unit: PrivacyUnit
    unit_columns: str
    max_rows_per_unit: int
    cohorts: tuple[str, ...]
    cohort_function: str
    delta: float
    budget_epsilon: float
    is_public: bool
    relation: str = field(default=RELATION.name, kw_only=True)
    without_user: WithoutUser = field(default=WithoutUser.OWN_UNIT, kw_only=True)
    query: str | None = field(default=None, kw_only=True)

    @property
    def unit_in_words(self) -> str:
        """The privacy unit for people."""
        return unit_in_words(self.unit, self.without_user)


@dataclass(frozen=True)
class Registration(Terms):
    """A registered corpus: its terms, random id, keyed hash of its source, and the RDP order of its adaptive gate."""

    corpus_id: str
    source_key: str
    gate_order: int

    def to_json(self) -> dict[str, Any]:
        """The registration as the ledger keeps it."""
        return asdict(self)

    @staticmethod
    def from_json(form: Mapping[str, Any]) -> "Registration":
        """The registration that a ledger keeps."""
        typed = {
            "unit": PrivacyUnit(form["unit"]),
            "cohorts": tuple(form["cohorts"]),
            "without_user": WithoutUser(form.get("without_user", WithoutUser.OWN_UNIT)),
        }
        return Registration(**{**form, **typed})

    def check_unchanged(self, terms: Terms) -> None:
        """Refuse a configuration that differs from the registered terms, naming every field that differs.

        The budget is not compared: the registered budget holds, and only `ledger raise` changes it.

        Raises:
          RegistrationError: a field that fixes the meaning of the guarantee differs.
        """
        known = {name: said for name, said in FIXED.items() if getattr(self, name) is not None}
        changed = [said for name, said in known.items() if getattr(self, name) != getattr(terms, name)]
        if terms.is_public and not self.is_public:
            changed.append("declaration whether it is public")
        if changed:
            raise RegistrationError(
                f"this corpus is registered with another {', '.join(dict.fromkeys(changed))}; these are fixed by"
                " registration: restore them in the profile, or register a corpus of other people's data"
                + (OTHER_QUERY if FIXED["query"] in changed else "")
            )

    def check_plan(self, plan: PrivacyPlan) -> None:
        """Refuse a plan made for other terms.

        Raises:
          RegistrationError: unit, contribution bound or delta differ.
        """
        planned = (plan.unit, plan.max_rows_per_unit, plan.delta)
        if planned != (self.unit, self.max_rows_per_unit, self.delta):
            raise RegistrationError("the plan's unit, max_rows_per_unit or delta differ from the registered ones")


def gate_order(plans: tuple[PrivacyPlan, ...]) -> int:
    """Return the RDP order at which the planned mechanisms together are cheapest; a function of public constants."""
    private = [plan for plan in plans if plan.is_private]
    if not private:
        return GATE_ORDERS[2]
    events = ComposedDpEvent([plan.event for plan in private])
    return min(GATE_ORDERS, key=lambda order: accounting.rdp_epsilon(events, private[0].delta, order))
