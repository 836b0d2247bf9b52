"""Ledgers and statements without a run: charges of small plans, and the evidence of a run that kept its plan."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from dp_assets.privacy.chain import Anchor, chain
from dp_assets.privacy.claim import SECURE, STEP_COUNTS
from dp_assets.privacy.events import event_to_json
from dp_assets.privacy.evidence import digest_of_names
from dp_assets.privacy.ledger_state import ChargeRecord, LedgerState, booking_bodies
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM, PrivacyPlan
from dp_assets.privacy.registration import Registration
from dp_assets.statements.statement import StatedSource, digest_of, make_statement
from tests.privacy.plans import small_plan, small_terms

JsonPath = tuple[str | int, ...]

PLAN = small_plan()
CORPUS = Registration(**vars(small_terms()), corpus_id="corpus", source_key="source", gate_order=4)
CODE = {"package": "dp-instructions", "version": "1", "sha256": "c" * 64}
FILES = {"dp_generator/all/eps-8/adapter_model.safetensors": "e" * 64}


def profile_of(plan: PrivacyPlan, corpus: Registration, redacted: Sequence[str]) -> dict[str, Any]:
    """The settings from which a plan is made, as a statement holds them."""
    dpsgd = asdict(plan.dpsgd)
    del dpsgd["noise_multiplier"]
    return {
        "name": "small",
        "corpus": {
            "unit": str(plan.unit),
            "without_user": str(corpus.without_user),
            "max_rows_per_unit": plan.max_rows_per_unit,
            "delta": plan.delta,
            "source": {"kind": "file"},
            "redact": list(redacted),
        },
        "generator": {**dpsgd, "rank": 2},
        "votes": {"num_bins": plan.votes.num_bins, "noise_stddev": plan.votes.noise_stddev},
    }


def provenance_of(plan: PrivacyPlan, corpus: Registration, redacted: Sequence[str]) -> dict[str, Any]:
    profile = profile_of(plan, corpus, redacted)
    configuration = {"profile_digest": "a" * 16, "sha256": digest_of(profile), "profile": profile}
    return {"code": CODE, "configuration": configuration, "files": FILES}


def charged(mechanism: str, *, plan: PrivacyPlan = PLAN, booked: bool = True, **changed: Any) -> dict[str, Any]:
    """The body of a ledger entry for one charge of a plan; its id is the mechanism's name unless `changed` says so."""
    record = ChargeRecord(
        charge_id=mechanism,
        corpus_id="corpus",
        cohort="all",
        level=plan.level,
        mechanism=mechanism,
        event=event_to_json(plan.events[mechanism]),
        snapshot="1",
        reuse_key=mechanism,
        plan_digest=plan.digest,
        booking_id=f"corpus/all/{plan.level}/{mechanism}" if booked else None,
    )
    return asdict(replace(record, **changed))


def state_of(
    *bodies: tuple[str, dict[str, Any]], corpus: Registration = CORPUS, plans: Sequence[PrivacyPlan] = (PLAN,)
) -> LedgerState:
    """A ledger with the corpus, its bookings, and these entries."""
    opening = [("registered", corpus.to_json())]
    opening += [("planned", booking) for booking in booking_bodies("corpus", corpus.cohorts, plans)]
    return LedgerState.of(chain(Anchor(), "2026-11-24", [*opening, *bodies]))


def both(**changed: Any) -> list[tuple[str, dict[str, Any]]]:
    """A charge of each mechanism."""
    return [("charged", charged(mechanism, **changed)) for mechanism in (GENERATOR, HISTOGRAM)]


def ran_as_planned(plan: PrivacyPlan, mechanism: str) -> dict[str, Any]:
    """The public evidence of a mechanism that did what the plan says, without a resume."""
    return _generator_evidence(plan) if mechanism == GENERATOR else _votes_evidence(plan)


def _generator_evidence(plan: PrivacyPlan) -> dict[str, Any]:
    steps = plan.dpsgd.steps
    return {
        "mechanism": "dpsgd",
        "unit": str(plan.unit),
        "preparation": plan.unit.preparation,
        "population": "units",
        "sampler": "poisson",
        "sampling_probability": plan.dpsgd.sampling_probability,
        "sampling_randomness": SECURE,
        "batches": "as drawn",
        "rows": "of their units",
        "sums": "within the clip",
        "rows_per_sampled_unit": 1,
        "l2_clip_norm": plan.dpsgd.l2_clip_norm,
        "largest_share": 1.0,
        "rounding_slack": 1e-9,
        "noise": "gaussian",
        "noise_stddev": plan.dpsgd.noise_multiplier * plan.dpsgd.l2_clip_norm,
        "noise_randomness": SECURE,
        "noise_coordinates": 100 * steps,
        "noise_size": "as stated",
        "normaliser": plan.dpsgd.expected_batch_size,
        **dict.fromkeys(STEP_COUNTS, steps),
        "continuations": "within the spare steps",
        "trained_tensors": digest_of_names(("a", "b")),
        "noised_tensors": digest_of_names(("a", "b")),
        "updates": "of noisy sums alone",
        "constants": "as configured",
        "changed_elsewhere": digest_of_names(()),
        "num_parameters": 100,
    }


def _votes_evidence(plan: PrivacyPlan) -> dict[str, Any]:
    return {
        "mechanism": "votes",
        "preparation": plan.unit.preparation,
        "num_bins": plan.votes.num_bins,
        "noise": "discrete-gaussian",
        "noise_stddev": plan.votes.noise_stddev,
        "noise_randomness": SECURE,
        "noise_coordinates": plan.votes.num_bins,
        "noised_bins": plan.votes.num_bins,
        "population": "units",
        "max_votes_per_unit": 1,
        "votes": "of each unit alone",
        "votes_counted": "one a ballot",
        "bins": "as stored",
    }


def statement_of(
    state: LedgerState,
    plans: Sequence[PrivacyPlan] = (PLAN,),
    *,
    corpus: Registration = CORPUS,
    charge_ids: Sequence[str] = (GENERATOR, HISTOGRAM),
    redacted: Sequence[str] = (),
    redacted_with: Mapping[str, str] = MappingProxyType({}),
    evidence: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The statement of a release behind these charges, whose mechanisms did what their plans say."""
    by_level = {plan.level: plan for plan in plans}
    charges = [state.charges[charge_id] for charge_id in charge_ids if charge_id in state.charges]
    return make_statement(
        state,
        corpus.corpus_id,
        plans,
        charge_ids=charge_ids,
        evidence=evidence
        or {
            charge.charge_id: ran_as_planned(by_level[charge.level], charge.mechanism)
            for charge in charges
            if charge.level in by_level
        },
        base_model="a-model",
        source=StatedSource("file", redacted, redacted_with),
        provenance=provenance_of(plans[0], corpus, redacted),
    )


def planned() -> dict[str, Any]:
    """A statement of what was booked before any output existed."""
    return statement_of(state_of(*both()))


def adaptive() -> dict[str, Any]:
    """A statement of a release with a vote chosen after results, under a budget that was raised twice."""
    later = ("charged", charged(HISTOGRAM, charge_id="later", booked=False))
    raised = [("raised", {"corpus_id": "corpus", "budget_epsilon": top, "reason": "-"}) for top in (12.0, 15.0)]
    return statement_of(state_of(*both(), *raised, later), charge_ids=["dp_generator", "dp_histogram", "later"])


def without_noise() -> dict[str, Any]:
    """A statement at the level no-dp."""
    plan, corpus = small_plan("no-dp"), replace(CORPUS, is_public=True)
    return statement_of(state_of(*both(plan=plan, booked=False), corpus=corpus), [plan])


def leaves(form: Any, path: JsonPath = ()) -> Iterator[tuple[JsonPath, Any]]:
    """Every value of a JSON form that holds no other, with the way to it."""
    if isinstance(form, dict | list) and form:
        for key, value in form.items() if isinstance(form, dict) else enumerate(form):
            yield from leaves(value, (*path, key))
    else:
        yield path, form
