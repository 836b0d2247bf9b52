"""The release protocol of a mechanism: find a paid release, or charge, run, compare with the plan, store and settle."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Protocol, TypeVar

import dagster as dg

from dp_assets.artifacts import (
    CONTENT,
    UNKNOWN_PREPARATION,
    Adapter,
    PrivateTable,
    Table,
    content_digest,
    union_of_ids,
)
from dp_assets.mechanism import Mechanism
from dp_assets.pipeline.corpus import preparation_digest, registration_of, snapshot_of, terms_of
from dp_assets.privacy import metadata
from dp_assets.privacy.claim import ClaimRefused, Discrepancy, check_content, check_noise_of_others, check_record
from dp_assets.privacy.ledger_state import ChargeRecord, reuse_key
from dp_assets.settings.profile import Profile
from dp_assets.vocabulary import Partition
from resources.ledger.in_progress import only_run_making
from resources.ledger.ledger_resource import Charge, ChargeRefused, Ledger
from resources.public_failure import PublicFailure
from resources.storage.stores import OtherContent, ReleaseStore

OTHER_CORPUS = (
    "the private tables were made from another corpus than the profile's; materialize real_instructions again"
)
OTHER_SNAPSHOT = (
    "the private tables hold another snapshot than the corpus's present one, which an erasure or corpus.snapshot sets;"
    " materialize real_instructions and real_embeddings again"
)
UNBOUND = (
    "the private tables are not tied to their snapshot, so other rows could pass for them; materialize"
    " real_instructions again, and real_embeddings from it"
)
UNPROBED = (
    "the private tables were stored without a probe of their preparation, so no claim could rest on them; materialize"
    " real_instructions again, and real_embeddings from it"
)
EVIDENCE, ROWS_MADE_WITH = "evidence", "private_rows_made_with"

Released = TypeVar("Released", Table, Adapter)


class Readiness(Protocol):
    """What can be checked before a charge."""

    def require_ready(self) -> None:
        """Check what can be checked without private rows, and raise if something is wrong."""


class NothingToRead(ValueError):
    """A charge would pay for noise alone, because the cohort has no rows.

    That a cohort has no rows is private, so this is no `PublicError`: its message is shown only to the owner.
    """

    def __init__(self, cohort: str) -> None:
        super().__init__(
            f"no row is left to train on in the cohort {cohort}, so nothing was charged; `dp-instructions corpus"
            " preview` shows which step of the preparation dropped its rows"
        )


class ReleaseConfig(dg.Config):
    """Counting `release` up asks for another release of the same mechanism, which is charged again."""

    release: int = 1


ONE_RUN_AT_A_TIME = Lock()
"""Noise is counted over all threads of a process, so a second mechanism in the same process waits for the first."""


@dataclass(frozen=True)
class ReleaseIdentity:
    """The identity of a release: the reuse key that names it, and public facts of the private table it is made from."""

    partition: Partition
    corpus_id: str
    snapshot: str
    reuse_key: str
    made_with: Mapping[str, str]
    has_rows: bool
    query: str | None

    @staticmethod
    def of(
        mechanism: Mechanism[Any],
        context: dg.AssetExecutionContext,
        ledger: Ledger,
        profile: Profile,
        table: PrivateTable,
        *,
        release: int,
        inputs: Mapping[str, Any],
    ) -> "ReleaseIdentity":
        """Return the identity of the release of `mechanism` over `table`.

        Args:
          mechanism: the mechanism with its plan.
          context: the context of the asset that runs.
          ledger: the ledger in which the corpus is registered.
          profile: the profile.
          table: the private table that the mechanism reads.
          release: the number of the release; another number is another release.
          inputs: the public values that decide the release in addition to the plan.

        Raises:
          ChargeRefused: the corpus is not registered, or `table` was made from another one or another snapshot of it,
            or by an earlier version that did not probe its preparation.
        """
        registration = registration_of(ledger, profile)
        if table.corpus_id != registration.corpus_id:
            raise ChargeRefused(OTHER_CORPUS)
        if table.snapshot != snapshot_of(ledger, profile):
            raise ChargeRefused(OTHER_SNAPSHOT)
        if (table.corpus_id, table.snapshot) not in ledger.state().snapshots:
            raise ChargeRefused(UNBOUND)
        if table.preparation == UNKNOWN_PREPARATION:
            raise ChargeRefused(UNPROBED)
        if registration.query is None:  # the present query becomes its term, so it must be the one that made the table
            ledger.check_preparation(table.corpus_id, table.snapshot, preparation_digest(profile))
        partition = Partition.of(context)
        key = reuse_key(
            mechanism=mechanism.name,
            corpus_id=table.corpus_id,
            snapshot=table.snapshot,
            cohort=partition.cohort,
            plan=mechanism.plan.digest,
            code_version=context.assets_def.code_versions_by_key[context.asset_key],
            release=release,
            inputs=inputs,
        )
        return ReleaseIdentity(
            partition=partition,
            corpus_id=table.corpus_id,
            snapshot=table.snapshot,
            reuse_key=key,
            made_with=table.made_with,
            has_rows=partition.cohort not in table.empty_cohorts,
            query=terms_of(profile, declared_public=False).query,
        )


def obtain(
    mechanism: Mechanism[Released],
    identity: ReleaseIdentity,
    *,
    ledger: Ledger,
    releases: ReleaseStore,
    rest_of_run: Readiness,
) -> Released:
    """Return the stored release of a mechanism at no cost, or charge, run, check the claim, store and settle a new one.

    The order keeps the account true:

    - The charge is durable before `mechanism.run` opens anything.
    - The evidence is compared with the plan before the release is stored or returned.
    - Hashes of its noise are in the ledger before the release is stored, so noise of a release that a crash left
      unstored is known too.
    - The release is stored before the charge is settled. A release carries its evidence, so one that a crash left
      unsettled is compared again.
    - The content of the release must be what was observed. It is compared as read back from storage.
    - `mechanism.describe` computes the record of the release from the public evidence. A record that `run` puts on the
      release is dropped.

    `rest_of_run` and the mechanism are checked before a charge, so that an error that can be found without private rows
    costs nothing. Then a cohort that the preparation left without rows is refused. Nobody outside the private zone may
    learn that it has none.

    Args:
      mechanism: the mechanism with its plan.
      identity: which of its releases.
      ledger: the ledger that is charged.
      releases: the store of releases.
      rest_of_run: checks what the other assets of the run need.

    Raises:
      ChargeRefused: the gate refuses the charge, another run makes this release, or the private table says more of
        what it was made with than models and versions; no private row was read. Or the cohort was closed by another run
        meanwhile, or the stored release belongs to another charge; nothing is returned.
      NothingToRead: the private table has no row to train on in this cohort; nothing was charged.
      PublicFailure: what ran differs from the plan; the cohort is closed.
    """
    storage_key = mechanism.name, mechanism.plan.level, identity.reuse_key
    paid: Released | None = _find_paid(storage_key, ledger, releases)
    if paid is not None:
        return paid
    with only_run_making(ledger.private_root, identity.reuse_key):
        paid = _find_paid(storage_key, ledger, releases)  # by a run that has ended since
        if paid is not None:
            return paid
        return _pay_and_run(mechanism, identity, storage_key, ledger, releases, rest_of_run)


StorageKey = tuple[str, str, str]  # where a release is stored: mechanism, level and reuse key


def _find_paid(storage_key: StorageKey, ledger: Ledger, releases: ReleaseStore) -> Any:
    """Return the stored release if its own charge is settled, which happens once it was compared with its plan."""
    *_, key = storage_key
    settled = ledger.state().find_settled(key)
    if not settled or not releases.has(*storage_key):
        return None
    stored: Any = releases.load(*storage_key)
    return None if settled.isdisjoint(stored.charge_ids) else stored


def _pay_and_run(
    mechanism: Mechanism[Released],
    identity: ReleaseIdentity,
    storage_key: StorageKey,
    ledger: Ledger,
    releases: ReleaseStore,
    rest_of_run: Readiness,
) -> Released:
    """Return a settled release: the stored one of a run that ended before it settled, or a new one."""
    unfinished = ledger.state().find_unfinished(identity.reuse_key)
    if unfinished is not None and releases.has(*storage_key):
        stored: Any = releases.load(*storage_key)
        _check_paid_by(unfinished, stored)
        differences = _differences(mechanism, stored, as_made=False)
        return _settled(Charge(unfinished, ledger), stored, differences)  # type: ignore[no-any-return]
    try:
        metadata.check_made_with(identity.made_with)
    except metadata.FurtherFigure as refusal:
        raise ChargeRefused(str(refusal)) from None
    rest_of_run.require_ready()
    mechanism.require_ready()
    if not identity.has_rows:
        raise NothingToRead(identity.partition.cohort)
    charge = _charge(mechanism, identity, ledger, unfinished)
    with ONE_RUN_AT_A_TIME:
        value, evidence = mechanism.run(charge)
    said = mechanism.describe(evidence.public)
    record = {
        **said,
        EVIDENCE: dict(evidence.public),
        CONTENT: evidence.content,
        ROWS_MADE_WITH: dict(identity.made_with),
    }
    release = replace(value, charge_ids=union_of_ids(value, [charge.charge_id]), record=record)
    differences = _differences(mechanism, release, as_made=True)
    differences += check_noise_of_others(charge.note_noise(evidence.noise))
    if not differences:
        try:
            releases.save(*storage_key, release)
        except OtherContent as other:
            differences = check_content(evidence.content, other.digest)
    return _settled(charge, release, differences)


def _differences(mechanism: Mechanism[Any], release: Table | Adapter, *, as_made: bool) -> list[Discrepancy]:
    """Return how the evidence of a release differs from its plan, and the release from its evidence.

    With `as_made`, for a new release, its record is also compared with a second description by the mechanism. A stored
    release is not: its description depends on the model as it was loaded then, perhaps on another device.
    """
    said = {name: value for name, value in release.record.items() if name not in (EVIDENCE, CONTENT, ROWS_MADE_WITH)}
    evidence = release.record.get(EVIDENCE, {})
    found = mechanism.check(evidence)
    anew = mechanism.describe(evidence) if as_made else None
    found += check_record(metadata.RECORD_KEYS.get(mechanism.name, ()), said, anew)
    return found + check_content(release.record.get(CONTENT), content_digest(release))


def _check_paid_by(record: ChargeRecord, release: Table | Adapter) -> None:
    """Require that a stored release belongs to the charge of the run that ended between storing and settling.

    Raises:
      ChargeRefused: it was paid for by another charge.
    """
    if record.charge_id not in release.charge_ids:
        raise ChargeRefused("the stored release belongs to another charge; ask for another `release` number")


def _settled(charge: Charge, release: Released, differences: list[Discrepancy]) -> Released:
    """Settle the charge of a release and return the release.

    Raises:
      PublicFailure: what ran differs from the plan; it was charged for, and the cohort is closed.
    """
    try:
        charge.settle(release.record.get(EVIDENCE, {}), differences)
    except ClaimRefused as refusal:
        raise PublicFailure(str(refusal)) from None
    return release


def _charge(
    mechanism: Mechanism[Any], identity: ReleaseIdentity, ledger: Ledger, unfinished: ChargeRecord | None
) -> Charge:
    """Return the charge of an interrupted run if it may still be used, else a new one."""
    if unfinished is not None and (not unfinished.opened or mechanism.can_resume(unfinished)):
        return Charge(unfinished, ledger)
    return ledger.charge(
        plan=mechanism.plan,
        mechanism=mechanism.name,
        corpus_id=identity.corpus_id,
        cohort=identity.partition.cohort,
        snapshot=identity.snapshot,
        reuse_key=identity.reuse_key,
        query=identity.query,
    )
