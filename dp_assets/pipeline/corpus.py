"""The corpus of a profile: source, terms, registration, snapshot and preparation."""

import hashlib
import json
from collections.abc import Generator
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl

from dp_assets.corpus.cohorts import cohort_expr, cohort_names
from dp_assets.corpus.columns import SourceError, understood
from dp_assets.corpus.hub import HubSource
from dp_assets.corpus.prepare import OWN_UNIT_COLUMNS, Preparation
from dp_assets.corpus.queries import QuerySource, query_digest
from dp_assets.corpus.redaction import Redaction
from dp_assets.corpus.settings import SourceSettings
from dp_assets.corpus.sources import ChitchatSource, FileSource, Source, parts_of
from dp_assets.corpus.users import require_users
from dp_assets.privacy.registration import Registration, RegistrationError, Terms
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.settings.profile import Profile
from resources.ledger.ledger_resource import Ledger
from resources.queries.query_reader import QueryRefused, duckdb_batches, duckdb_columns, require_database, sql_batches

PUBLIC_SOURCES = ("chitchat",)
# Settings of a corpus that change no prepared row: its claims, its names, and the path of its source.
SHAPES_NO_ROW: dict[str, Any] = {
    "snapshot": True,
    "delta": True,
    "budget_epsilon": True,
    "planned_levels": True,
    "name": True,
    "source": {"path"},
}


def source_of(profile: Profile) -> Source:
    """Return the source of a profile's corpus.

    Raises:
      SourceError: the source cannot be read as configured, or does not name users although they are the units.
    """
    settings = profile.corpus.source
    source = _sources_by_kind(settings)
    if profile.corpus.unit is PrivacyUnit.USER and not is_public_package(profile) and "user_id" not in source.columns:
        raise SourceError(f"{settings.layout} does not say who wrote a row; set corpus.unit to 'instruction'")
    return source


def locator_of(profile: Profile) -> str:
    """Return what a corpus is registered under: its public name if it has one, else the location of its source.

    Raises:
      SourceError: the source cannot be read as configured.
    """
    source, name = source_of(profile), profile.corpus.name
    return source.locator if name is None else f"name:{name}"


def read_source(source: Source, unit: PrivacyUnit, scratch: Path) -> pl.LazyFrame:
    """Return the rows of a source in which every mapped value is understood, with the columns of `SOURCE_ROWS`.

    To be called only inside a private step, because what is refused depends on rows.

    Raises:
      SourceError: the source cannot be read as configured.
      NobodyNamed: users are the units, and a file with rows, or the whole source, names none.
    """
    parts = {name: understood(rows) for name, rows in parts_of(source, scratch).items()}
    if unit is PrivacyUnit.USER:
        require_users(parts)
    return pl.concat(parts.values())


def _sources_by_kind(settings: SourceSettings) -> Source:
    if settings.kind == "chitchat":
        return ChitchatSource()
    if settings.kind == "file" and settings.path is not None:
        return FileSource(settings.path, settings.columns)
    if settings.kind == "huggingface":
        return HubSource(
            dataset=settings.dataset,
            path=settings.path,
            subset=settings.subset,
            split=settings.split,
            revision=settings.revision,
            preset=settings.layout,
            own_columns=dict(settings.columns),
            steps=settings.steps,
        )
    if settings.kind == "sql" and settings.query is not None:
        read = partial(_batches, settings, settings.query)
        columns_of = partial(_columns_of, settings, settings.query)
        return QuerySource(_database_of(settings), settings.query, settings.columns, read, columns_of)
    raise SourceError(f"a source of kind {settings.kind!r} is not described; see docs/guides/own-corpus.md")


def _database_of(settings: SourceSettings) -> str:
    if settings.url_variable is not None:
        return f"${settings.url_variable}"
    return "" if settings.path is None else str(settings.path.resolve())


def _batches(settings: SourceSettings, query: str, spill_folder: Path) -> Generator[pl.DataFrame, None, None]:
    try:
        if settings.url_variable is not None:
            yield from sql_batches(settings.url_variable, query)
        else:
            yield from duckdb_batches(settings.path, query, spill_folder)
    except QueryRefused as refusal:
        raise SourceError(str(refusal)) from None


def _columns_of(settings: SourceSettings, query: str) -> list[str] | None:
    """Return the columns of a query's result, or None if the database would have to run the query to know them."""
    try:
        if settings.url_variable is None:
            return duckdb_columns(settings.path, query)
        require_database(settings.url_variable, query)
    except QueryRefused as refusal:
        raise SourceError(str(refusal)) from None
    return None


def require_source(profile: Profile) -> None:
    """Open the source and read the names and types of its columns, but no rows.

    Errors that only reading the rows can reveal are left to the run.

    Raises:
      SourceError: it cannot be opened as configured.
    """
    source = source_of(profile)
    try:
        with redirect_stderr(StringIO()):  # libraries print details there that may quote rows
            source.require_opened()
    except OSError as error:
        raise SourceError(f"the source cannot be opened ({type(error).__name__}); check who may read it") from None


def terms_of(profile: Profile, *, declared_public: bool) -> Terms:
    """Return the terms that a profile asks for. A packaged public source is public without a declaration.

    Raises:
      CohortError: the cohorts do not fit the privacy unit.
    """
    settings = profile.corpus
    cohort_expr(settings.cohorts, unit=settings.unit)
    columns, query = source_of(profile).columns, settings.source.query
    return Terms(
        unit=settings.unit,
        without_user=settings.without_user,
        unit_columns=json.dumps({name: columns.get(name) for name in OWN_UNIT_COLUMNS}),
        query="" if query is None else query_digest(query),
        max_rows_per_unit=settings.max_rows_per_unit,
        cohorts=cohort_names(settings.cohorts),
        cohort_function=settings.cohorts.model_dump_json(),
        delta=settings.delta,
        budget_epsilon=settings.budget_epsilon,
        is_public=declared_public or is_public_package(profile),
    )


def register_corpus(ledger: Ledger, profile: Profile, *, declared_public: bool) -> Registration:
    """Register the profile's source on its terms, with its planned levels, or return the existing registration.

    Raises:
      BudgetExceeded: the planned levels together exceed the budget.
      RegistrationError: the source is registered on other terms.
    """
    terms = terms_of(profile, declared_public=declared_public)
    return ledger.register(locator=locator_of(profile), terms=terms, plans=profile.planned())


def is_public_package(profile: Profile) -> bool:
    """Return whether the source is a public corpus that comes with a package."""
    return profile.corpus.source.kind in PUBLIC_SOURCES


def is_registered(ledger: Ledger, profile: Profile) -> bool:
    """Return whether the profile's source is registered, on any terms.

    Raises:
      SourceError: the source cannot be read as configured.
    """
    try:
        ledger.state().registration_of_source(ledger.source_key(locator_of(profile)))
    except RegistrationError:
        return False
    return True


def registration_of(ledger: Ledger, profile: Profile) -> Registration:
    """Return the registration of a profile's corpus.

    Raises:
      ChargeRefused: it is not registered, or on other terms.
    """
    return ledger.registration(locator_of(profile), terms_of(profile, declared_public=False))


def snapshot_of(ledger: Ledger, profile: Profile) -> str:
    """Return the present snapshot of a profile's corpus: the configured name and the number of erasures since.

    Raises:
      ChargeRefused: the corpus is not registered, or on other terms.
    """
    return snapshot_and_erased(ledger, profile)[0]


def snapshot_and_erased(ledger: Ledger, profile: Profile) -> tuple[str, frozenset[str]]:
    """Return the present snapshot and the hashes of its erased units, both from the same state of the ledger.

    Raises:
      ChargeRefused: the corpus is not registered, or on other terms.
    """
    corpus_id, state = registration_of(ledger, profile).corpus_id, ledger.state()
    return state.snapshot(corpus_id, profile.corpus.snapshot), frozenset(state.erasures.get(corpus_id, ()))


def redaction_of(profile: Profile) -> Redaction:
    """Return what is replaced in the texts of a profile's corpus."""
    settings = profile.corpus
    return Redaction(settings.redact, settings.phone_regions, settings.redaction_model)


def preparation_of(profile: Profile, key: bytes) -> Preparation:
    """Return the preparation of a profile's corpus.

    Raises:
      CohortError: the cohorts do not fit the privacy unit.
    """
    settings = profile.corpus
    return Preparation(
        unit=settings.unit,
        key=key,
        max_rows_per_unit=settings.max_rows_per_unit,
        min_words=settings.min_words,
        max_words=settings.max_words,
        max_characters=settings.max_characters,
        languages=settings.languages,
        cohort_of=cohort_expr(settings.cohorts, unit=settings.unit),
        train_fraction=settings.train_fraction,
        detect_language=settings.detect_language,
        redaction=redaction_of(profile),
        without_user=settings.without_user,
    )


def preparation_digest(profile: Profile) -> str:
    """Return a digest of the public settings that turn source rows into prepared rows.

    Defaults are left out, so that a setting added by a newer version does not change the digest until it is used.
    """
    settings = profile.corpus.model_dump_json(exclude=SHAPES_NO_ROW, exclude_defaults=True)
    return hashlib.sha256(settings.encode()).hexdigest()
