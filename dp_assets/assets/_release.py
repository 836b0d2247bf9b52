"""What assets share around a release: finding or paying for one, and the metadata of everything below it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import dagster as dg

from dp_assets.artifacts import Adapter, Document, PrivateTable, Table, union_of_ids
from dp_assets.assets._corpus import registration_of
from dp_assets.partitions import Partition
from dp_assets.privacy import metadata
from dp_assets.privacy.claim import ClaimRefused, Discrepancy
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.labels import LABEL_METADATA, Label, Zone, zone
from dp_assets.privacy.ledger import ChargeRecord, reuse_key
from dp_assets.privacy.plan import PrivacyPlan
from dp_assets.privacy.registration import RegistrationError
from resources.ledger import Charge, ChargeRefused, Ledger
from resources.profile import Profile
from resources.stores import ReleaseStore

PROFILE_METADATA = "dp_instructions/profile"
OTHER_CORPUS = (
    "the private tables were made from another corpus than the profile's; materialize real_instructions again"
)

Released = TypeVar("Released", Table, Adapter)


class ReleaseConfig(dg.Config):
    """Counting `release` up asks for another release of the same mechanism, which is charged again."""

    release: int = 1


@dataclass(frozen=True)
class Mechanism:
    """One mechanism at one partition, with the key that names its release."""

    name: str
    plan: PrivacyPlan
    partition: Partition
    corpus_id: str
    snapshot: str
    reuse_key: str

    @staticmethod
    def of(
        context: dg.AssetExecutionContext,
        ledger: Ledger,
        profile: Profile,
        table: PrivateTable,
        *,
        release: int,
        inputs: Mapping[str, Any],
    ) -> "Mechanism":
        """The mechanism of this asset over `table`; `inputs` are the other public values that decide its release.

        Raises:
          ChargeRefused: the corpus is not registered, or `table` was made from another one.
        """
        registration = registration_of(ledger, profile)
        if table.corpus_id != registration.corpus_id:
            raise ChargeRefused(RegistrationError(OTHER_CORPUS))
        name, partition = context.asset_key.to_user_string(), Partition.of(context)
        plan = profile.plan(partition.level)
        key = reuse_key(
            mechanism=name,
            corpus_id=table.corpus_id,
            snapshot=table.snapshot,
            cohort=partition.cohort,
            plan=plan.digest,
            code_version=context.assets_def.code_versions_by_key[context.asset_key],
            release=release,
            inputs=inputs,
        )
        return Mechanism(name, plan, partition, table.corpus_id, table.snapshot, key)


def obtain(
    mechanism: Mechanism,
    *,
    ledger: Ledger,
    releases: ReleaseStore,
    run: Callable[[Charge], tuple[Released, Evidence]],
    check: Callable[[Mapping[str, Any]], Sequence[Discrepancy]],
    resumable: Callable[[ChargeRecord], bool] = lambda record: False,
) -> Released:
    """The stored release of a mechanism if there is one, at no cost; otherwise charge, run, check the claim, store it.

    The order is what makes the account true: the charge is durable before `run` opens anything, the evidence is
    compared with the plan before the release is stored or returned, and the release is stored before the charge is
    settled.

    Raises:
      ChargeRefused: the gate refuses the charge; no private row was read.
      dg.Failure: what ran differs from the plan; the cohort is closed.
    """
    place = (mechanism.name, mechanism.plan.level, mechanism.reuse_key)
    state = ledger.state()
    if state.find_settled(mechanism.reuse_key) is not None and releases.has(*place):
        return releases.load(*place)  # type: ignore[return-value]
    unfinished = state.find_unfinished(mechanism.reuse_key)
    if unfinished is not None and releases.has(*place):
        stored: Any = releases.load(*place)
        return _settle_stored(Charge(unfinished, ledger), stored)  # type: ignore[no-any-return]
    charge = _charge(mechanism, ledger, unfinished, resumable)
    value, evidence = run(charge)
    release = replace(value, charge_ids=union_of_ids(value, [charge.charge_id]))
    found = check(evidence.public)
    if not found:
        releases.save(*place, release)
    try:
        charge.settle(evidence.public, found)
    except ClaimRefused as refusal:
        raise dg.Failure(str(refusal), allow_retries=False) from None
    return release


def _settle_stored(charge: Charge, release: Released) -> Released:
    """Settle the charge of a run that ended between storing its checked release and settling; nothing is run again.

    Raises:
      ChargeRefused: the stored release was paid for by another charge.
    """
    if charge.charge_id not in release.charge_ids:
        raise ChargeRefused(
            ValueError("the stored release belongs to another charge; ask for another `release` number")
        )
    charge.settle({"recovered": True}, [])
    return release


def _charge(
    mechanism: Mechanism,
    ledger: Ledger,
    unfinished: ChargeRecord | None,
    resumable: Callable[[ChargeRecord], bool],
) -> Charge:
    """A charge that an interrupted run left and that may still be used, else a new one."""
    if unfinished is not None and (not unfinished.opened or resumable(unfinished)):
        return Charge(unfinished, ledger)
    return ledger.charge(
        plan=mechanism.plan,
        mechanism=mechanism.name,
        corpus_id=mechanism.corpus_id,
        cohort=mechanism.partition.cohort,
        snapshot=mechanism.snapshot,
        reuse_key=mechanism.reuse_key,
    )


def result(
    context: dg.AssetExecutionContext,
    value: Table | Adapter | Document,
    *,
    ledger: Ledger,
    profile: Profile,
    extra: Mapping[str, Any],
) -> dg.MaterializeResult[Any]:
    """The value of a mechanism or of an asset below one, with its privacy metadata and `extra` public figures."""
    partition = Partition.of(context)
    label = Label(context.assets_def.metadata_by_key[context.asset_key][LABEL_METADATA])
    try:
        figures = metadata.artifact_metadata(
            ledger.state(),
            registration_of(ledger, profile),
            label=label,
            cohort=partition.cohort,
            level=partition.level,
            charge_ids=value.charge_ids,
        )
    except metadata.ForeignLineage as refusal:
        raise dg.Failure(str(refusal), allow_retries=False) from None
    shown = extra if zone(label, partition.level) is Zone.RELEASED else numbers(extra)
    return dg.MaterializeResult(value=value, metadata={PROFILE_METADATA: profile.digest, **figures, **shown})


def numbers(extra: Mapping[str, Any]) -> dict[str, float]:
    """The figures without texts and pictures: the event log lies outside the private zone, where no-dp must stay."""
    return {name: value for name, value in extra.items() if isinstance(value, int | float)}


def private_result(value: PrivateTable, *, ledger: Ledger, profile: Profile) -> dg.MaterializeResult[PrivateTable]:
    """The value of a private asset, with its terms and nothing that depends on a row."""
    terms = metadata.private_metadata(registration_of(ledger, profile))
    return dg.MaterializeResult(value=value, metadata={PROFILE_METADATA: profile.digest, **terms})
