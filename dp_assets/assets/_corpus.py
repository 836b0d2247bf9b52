"""The corpus of a profile: its source, its terms, its registration, its snapshot."""

import hashlib
import json
from typing import Any

from dp_assets.corpus.cohorts import cohort_expr, cohort_names
from dp_assets.corpus.sources import Source, make_source
from dp_assets.privacy.registration import Registration, Terms
from resources.ledger import Ledger
from resources.profile import Profile

PUBLIC_SOURCES = ("chitchat",)
# Settings of a corpus that shape no row: what is claimed of it, what it is called, and where its rows lie.
SHAPES_NO_ROW: dict[str, Any] = {
    "snapshot": True,
    "delta": True,
    "budget_epsilon": True,
    "planned_levels": True,
    "source": {"path"},
}


def source_of(profile: Profile) -> Source:
    """The source of a profile's corpus.

    Raises:
      SourceError: the source cannot be read as configured.
    """
    settings = profile.corpus.source
    return make_source(kind=settings.kind, path=settings.path, columns=settings.columns)


def terms_of(profile: Profile, *, declared_public: bool) -> Terms:
    """The terms that a profile asks for; a packaged public source is public without being declared so.

    Raises:
      CohortError: the cohorts do not go with the privacy unit.
    """
    settings = profile.corpus
    cohorts = settings.cohorts.model_dump()
    cohort_expr(unit=settings.unit, **cohorts)
    columns = settings.source.columns
    return Terms(
        unit=settings.unit,
        unit_columns=json.dumps({name: columns.get(name) for name in ("user_id", "created_at")}),
        max_rows_per_unit=settings.max_rows_per_unit,
        cohorts=cohort_names(**cohorts),
        cohort_function=settings.cohorts.model_dump_json(),
        delta=settings.delta,
        budget_epsilon=settings.budget_epsilon,
        is_public=declared_public or settings.source.kind in PUBLIC_SOURCES,
    )


def register_corpus(ledger: Ledger, profile: Profile, *, declared_public: bool) -> Registration:
    """Register the profile's source on its terms and book its planned levels, or return the earlier registration.

    Raises:
      BudgetExceeded: the planned levels together exceed the budget.
      RegistrationError: the source is registered on other terms.
    """
    terms = terms_of(profile, declared_public=declared_public)
    return ledger.register(locator=source_of(profile).locator, terms=terms, plans=profile.planned())


def registration_of(ledger: Ledger, profile: Profile) -> Registration:
    """The registration of a profile's corpus.

    Raises:
      ChargeRefused: it is not registered, or on other terms.
    """
    return ledger.registration(source_of(profile).locator, terms_of(profile, declared_public=False))


def snapshot_of(ledger: Ledger, profile: Profile) -> str:
    """The present snapshot of a profile's corpus: the configured name, and how many erasures came since.

    Raises:
      ChargeRefused: the corpus is not registered, or on other terms.
    """
    return snapshot_and_erased(ledger, profile)[0]


def snapshot_and_erased(ledger: Ledger, profile: Profile) -> tuple[str, frozenset[str]]:
    """The present snapshot and the hashes of the erased units that it lacks, both of one state of the ledger.

    Raises:
      ChargeRefused: the corpus is not registered, or on other terms.
    """
    corpus_id, state = registration_of(ledger, profile).corpus_id, ledger.state()
    return state.snapshot(corpus_id, profile.corpus.snapshot), frozenset(state.erasures.get(corpus_id, ()))


def preparation_digest(profile: Profile) -> str:
    """A digest of the public settings that turn source rows into prepared ones.

    Defaults are left out, so that a setting which a newer version adds changes nothing for those who do not use it.
    """
    settings = profile.corpus.model_dump_json(exclude=SHAPES_NO_ROW, exclude_defaults=True)
    return hashlib.sha256(settings.encode()).hexdigest()
