"""The stored ledger: charge before read, the gate, and the refusal of lost or edited ledgers."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from dp_accounting import DpEvent

from dp_assets.privacy import accounting
from dp_assets.privacy.chain import Anchor, Entry, LedgerTampered, verify_chain
from dp_assets.privacy.claim import ClaimRefused, Discrepancy
from dp_assets.privacy.gate import BudgetExceeded, VoidRefused
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.privacy.registration import Registration, RegistrationError, gate_order
from dp_assets.privacy.units import WithoutUser
from resources.ledger.ledger_resource import Charge, ChargeRefused, Ledger, SnapshotConflict
from tests.privacy.plans import small_plan
from tests.resources.ledgers import charge, register, terms


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(private_root=str(tmp_path / "private"))


@pytest.fixture
def corpus(ledger: Ledger) -> Registration:
    return register(ledger, "eps-8")


def test_plans_booked_at_registration_count_whole_before_anything_runs(ledger: Ledger, corpus: Registration) -> None:
    assert ledger.state().cohort_epsilon(corpus.corpus_id, "all") == small_plan("eps-8").epsilon


def test_the_entries_are_those_that_the_state_adds_up(ledger: Ledger) -> None:
    assert ledger.entries() == ()
    charge(ledger, register(ledger, "eps-8").corpus_id, "eps-8")
    assert LedgerState.of(ledger.entries()) == ledger.state()
    assert [entry.kind for entry in ledger.entries()] == ["keyed", "registered", "planned", "planned", "charged"]


def test_a_charge_that_draws_on_its_booking_costs_nothing_more(ledger: Ledger, corpus: Registration) -> None:
    before = ledger.state().cohort_epsilon(corpus.corpus_id, "all")
    charges = [charge(ledger, corpus.corpus_id, "eps-8", mechanism, mechanism) for mechanism in (GENERATOR, HISTOGRAM)]
    state = ledger.state()
    assert state.cohort_epsilon(corpus.corpus_id, "all") == before
    assert state.lineage_epsilon([one.charge_id for one in charges]) == small_plan("eps-8").epsilon


def test_running_a_mechanism_again_is_a_new_charge_and_is_refused_when_the_budget_is_booked(
    ledger: Ledger, corpus: Registration
) -> None:
    charge(ledger, corpus.corpus_id, "eps-8")
    with pytest.raises(ChargeRefused, match="spent or booked") as refusal:
        charge(ledger, corpus.corpus_id, "eps-8", key="again")
    assert refusal.value.allow_retries is False
    assert len(ledger.state().charges) == 1


def test_another_level_on_the_same_people_is_charged_beside_the_booked_one(ledger: Ledger) -> None:
    corpus = register(ledger, "eps-2.86", budget=20.0)
    before = ledger.state().cohort_epsilon(corpus.corpus_id, "all")
    charge(ledger, corpus.corpus_id, "eps-5.94", GENERATOR)
    state = ledger.state()
    assert not state.is_planned(corpus.corpus_id, "all")
    assert before < state.cohort_epsilon(corpus.corpus_id, "all") <= 20.0


def test_a_level_that_cannot_be_finished_is_refused_at_its_first_mechanism(ledger: Ledger) -> None:
    generator, histogram = small_plan("eps-2.86").events.values()
    alone, both = (at_the_gate([*events], 1e-5) for events in ([generator], [generator, histogram]))
    assert alone < both
    corpus_id = register(ledger, budget=(alone + both) / 2).corpus_id
    with pytest.raises(ChargeRefused, match="dp_generator with dp_histogram"):
        charge(ledger, corpus_id, "eps-2.86", GENERATOR)
    assert ledger.state().charges == {}
    ledger.raise_budget(corpus_id, both + 0.01, "room for both")
    for mechanism in (GENERATOR, HISTOGRAM):
        charge(ledger, corpus_id, "eps-2.86", mechanism, key=mechanism)
    assert len(ledger.state().charges) == 2


def at_the_gate(events: Sequence[DpEvent], delta: float) -> float:
    """What the adaptive gate takes these events to cost, at the order of a corpus without planned levels."""
    order = gate_order(())
    return accounting.rdp_to_epsilon(sum(accounting.rdp(event, order) for event in events), order, delta)


def test_plans_that_exceed_the_budget_together_are_refused_at_registration(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceeded, match="planned_levels"):
        register(ledger, "eps-8", "eps-5.94")
    assert ledger.state().registrations == {}


def test_a_plan_whose_generator_alone_fits_is_refused_at_registration_with_its_histogram(ledger: Ledger) -> None:
    plan = small_plan("eps-8")
    alone = accounting.epsilon(plan.dpsgd.event, plan.delta)
    assert alone < plan.epsilon
    with pytest.raises(BudgetExceeded):
        register(ledger, "eps-8", budget=(alone + plan.epsilon) / 2)


@pytest.mark.parametrize("changed", [{"delta": 1e-6}, {"max_rows_per_unit": 3}])
def test_a_plan_for_other_terms_is_neither_booked_nor_charged(
    ledger: Ledger, corpus: Registration, changed: dict[str, float]
) -> None:
    plan = replace(small_plan("eps-1.5"), **changed)  # type: ignore[arg-type]
    with pytest.raises(RegistrationError, match="delta"):
        ledger.register(locator="elsewhere", terms=terms(), plans=[plan])
    asked = {"corpus_id": corpus.corpus_id, "cohort": "all", "snapshot": "1", "reuse_key": "key"}
    with pytest.raises(ChargeRefused, match="delta"):
        ledger.charge(plan=plan, mechanism=HISTOGRAM, **asked)
    assert ledger.state().charges == {}


def test_registering_the_same_source_again_returns_the_same_corpus(ledger: Ledger, corpus: Registration) -> None:
    assert register(ledger, "eps-8") == corpus
    assert register(ledger, "eps-8", locator="elsewhere").corpus_id != corpus.corpus_id


def test_other_terms_for_a_registered_source_are_refused_by_name(ledger: Ledger, corpus: Registration) -> None:
    with pytest.raises(ChargeRefused, match="max_rows_per_unit"):
        ledger.registration("somewhere", terms(max_rows_per_unit=3))
    with pytest.raises(RegistrationError, match="max_rows_per_unit"):
        ledger.register(locator="somewhere", terms=terms(), plans=[small_plan("eps-8", max_rows_per_unit=3)])


def test_reading_users_from_another_column_is_refused(ledger: Ledger, corpus: Registration) -> None:
    with pytest.raises(ChargeRefused, match=r"corpus\.source\.columns"):
        ledger.registration("somewhere", terms(unit_columns="e-mail"))


def test_a_source_cannot_become_public_after_registration(ledger: Ledger, corpus: Registration) -> None:
    with pytest.raises(RegistrationError, match="whether it is public"):
        ledger.register(locator="somewhere", terms=terms(is_public=True), plans=[])


def test_a_registration_from_before_a_choice_about_rows_without_a_user_kept_them(corpus: Registration) -> None:
    written = {name: value for name, value in corpus.to_json().items() if name != "without_user"}
    assert Registration.from_json(written) == corpus
    assert corpus.without_user is WithoutUser.OWN_UNIT


def test_a_registration_from_before_queries_were_a_term_gets_its_own_with_the_next_charge(
    ledger: Ledger, corpus: Registration
) -> None:
    written = {name: value for name, value in corpus.to_json().items() if name != "query"}
    assert Registration.from_json(written) == corpus
    one, other = (replace(terms(), query=query) for query in ("one", "other"))
    assert ledger.registration("somewhere", one) == ledger.registration("somewhere", other) == corpus
    for mechanism in (GENERATOR, HISTOGRAM):
        ledger.charge(
            plan=small_plan("eps-8"),
            mechanism=mechanism,
            corpus_id=corpus.corpus_id,
            cohort="all",
            snapshot="1",
            reuse_key=mechanism,
            query="one",
        )
    assert [entry.body for entry in ledger.entries() if entry.kind == "completed"] == [
        {"corpus_id": corpus.corpus_id, "query": "one"}
    ]
    assert ledger.registration("somewhere", one) == replace(corpus, query="one")
    with pytest.raises(ChargeRefused, match=r"another corpus\.source\.query.*declare-overlap"):
        ledger.registration("somewhere", other)


def test_a_corpus_can_be_registered_without_planning_anything(ledger: Ledger) -> None:
    corpus = register(ledger)
    assert ledger.state().cohort_epsilon(corpus.corpus_id, "all") == 0


def test_an_unregistered_source_is_refused_with_the_remedy(ledger: Ledger) -> None:
    with pytest.raises(ChargeRefused, match="register"):
        ledger.registration("unknown", terms())


def test_other_rows_under_the_same_snapshot_are_refused(ledger: Ledger, corpus: Registration) -> None:
    ledger.bind_rows(corpus.corpus_id, "1", rows="rows", texts="texts", preparation="settings")
    ledger.bind_rows(corpus.corpus_id, "1", rows="rows", texts="texts", preparation="settings")
    with pytest.raises(SnapshotConflict, match="snapshot"):
        ledger.bind_rows(corpus.corpus_id, "1", rows="other rows", texts="other texts", preparation="settings")
    ledger.bind_rows(corpus.corpus_id, "2", rows="other rows", texts="other texts", preparation="settings")


def test_the_same_texts_under_another_registration_are_refused_however_they_are_prepared(
    ledger: Ledger, corpus: Registration
) -> None:
    ledger.bind_rows(corpus.corpus_id, "1", rows="rows", texts="texts", preparation="settings")
    other = register(ledger, "eps-8", locator="a copy")
    with pytest.raises(SnapshotConflict, match="another source"):
        ledger.bind_rows(other.corpus_id, "1", rows="prepared otherwise", texts="texts", preparation="settings")


def test_other_settings_of_preparation_under_the_same_snapshot_are_refused_by_name(
    ledger: Ledger, corpus: Registration
) -> None:
    ledger.check_preparation(corpus.corpus_id, "1", "settings")
    ledger.bind_rows(corpus.corpus_id, "1", rows="rows", texts="texts", preparation="settings")
    ledger.check_preparation(corpus.corpus_id, "1", "settings")
    ledger.check_preparation(corpus.corpus_id, "2", "other settings")
    with pytest.raises(ChargeRefused, match=r"corpus\.snapshot"):
        ledger.check_preparation(corpus.corpus_id, "1", "other settings")


def test_a_run_without_noise_needs_a_public_source(ledger: Ledger, corpus: Registration) -> None:
    with pytest.raises(ChargeRefused, match="public"):
        charge(ledger, corpus.corpus_id, "no-dp")


def test_a_charge_is_opened_once(ledger: Ledger, corpus: Registration) -> None:
    charge(ledger, corpus.corpus_id, "eps-8").mark_opened()
    record = next(iter(ledger.state().charges.values()))
    with pytest.raises(ChargeRefused, match="another run"):
        Charge(record, ledger).mark_opened()


def test_a_checkpoint_is_continued_once(ledger: Ledger, corpus: Registration) -> None:
    booked = charge(ledger, corpus.corpus_id, "eps-8", GENERATOR)
    booked.mark_opened()
    booked.continued("nonce").mark_opened()
    with pytest.raises(ChargeRefused, match="continued before"):
        booked.continued("nonce")


def test_a_discrepancy_books_an_unbounded_charge_and_closes_the_cohort(ledger: Ledger, corpus: Registration) -> None:
    booked = charge(ledger, corpus.corpus_id, "eps-8")
    with pytest.raises(ClaimRefused, match="steps"):
        booked.settle({}, [Discrepancy("steps", 4, 5)])
    assert ledger.state().cohort_epsilon(corpus.corpus_id, "all") == math.inf
    with pytest.raises(ChargeRefused, match="closed"):
        charge(ledger, corpus.corpus_id, "eps-8", GENERATOR)


def test_a_charge_can_be_voided_only_while_nothing_was_read(ledger: Ledger, corpus: Registration) -> None:
    unused = charge(ledger, corpus.corpus_id, "eps-8")
    ledger.void(unused.charge_id, "configured wrongly")
    again = charge(ledger, corpus.corpus_id, "eps-8")
    again.mark_opened()
    with pytest.raises(VoidRefused):
        ledger.void(again.charge_id, "regret")


def test_a_charge_voided_while_its_run_prepares_can_neither_be_opened_nor_settled(
    ledger: Ledger, corpus: Registration
) -> None:
    prepared = charge(ledger, corpus.corpus_id, "eps-8")
    ledger.void(prepared.charge_id, "the operator was faster")
    for step in (prepared.mark_opened, lambda: prepared.continued("nonce"), lambda: prepared.settle({}, [])):
        with pytest.raises(ChargeRefused, match="voided"):
            step()


def test_a_continued_charge_counts_as_opened_and_cannot_be_voided(ledger: Ledger, corpus: Registration) -> None:
    continued = charge(ledger, corpus.corpus_id, "eps-8", GENERATOR)
    continued.continued("nonce")
    assert ledger.state().charges[continued.charge_id].opened
    with pytest.raises(VoidRefused):
        ledger.void(continued.charge_id, "regret")


def test_a_raised_budget_is_logged_and_admits_more(ledger: Ledger, corpus: Registration) -> None:
    charge(ledger, corpus.corpus_id, "eps-8")
    with pytest.raises(RegistrationError):
        ledger.raise_budget(corpus.corpus_id, 7.0, "smaller")
    ledger.raise_budget(corpus.corpus_id, 30.0, "the board agreed")
    charge(ledger, corpus.corpus_id, "eps-8", key="again")
    assert ledger.state().registrations[corpus.corpus_id].budget_epsilon == 30.0


@pytest.mark.parametrize("budget", [math.inf, math.nan])
def test_a_budget_is_raised_to_a_finite_number_only(ledger: Ledger, corpus: Registration, budget: float) -> None:
    with pytest.raises(RegistrationError, match="finite"):
        ledger.raise_budget(corpus.corpus_id, budget, "no end in sight")
    assert ledger.state().registrations[corpus.corpus_id] == corpus


def test_a_command_that_is_refused_on_an_unused_folder_leaves_it_usable(ledger: Ledger) -> None:
    with pytest.raises(VoidRefused):
        ledger.void("unknown", "a slip")
    charge(ledger, register(ledger, "eps-8").corpus_id, "eps-8")


def database(ledger: Ledger) -> Path:
    return Path(ledger.private_root) / "ledger" / "ledger.duckdb"


def test_a_deleted_ledger_is_refused_and_not_replaced(ledger: Ledger, corpus: Registration) -> None:
    database(ledger).unlink()
    with pytest.raises(LedgerTampered, match="missing"):
        ledger.state()
    with pytest.raises(LedgerTampered, match="missing"):
        charge(ledger, corpus.corpus_id, "eps-8")


def test_an_older_copy_of_the_ledger_is_refused(ledger: Ledger, corpus: Registration, tmp_path: Path) -> None:
    shutil.copy(database(ledger), tmp_path / "copy")
    charge(ledger, corpus.corpus_id, "eps-8")
    shutil.copy(tmp_path / "copy", database(ledger))
    with pytest.raises(LedgerTampered, match="anchor"):
        ledger.state()


def test_a_private_folder_restored_from_a_backup_is_refused(ledger: Ledger, corpus: Registration) -> None:
    private = Path(ledger.private_root)
    shutil.copytree(private, private.with_name("backup"))
    charge(ledger, corpus.corpus_id, "eps-8")
    shutil.rmtree(private)
    private.with_name("backup").rename(private)
    with pytest.raises(LedgerTampered, match="anchor"):
        ledger.state()


@pytest.mark.parametrize("lost", ["key", "anchor.json"])
def test_a_lost_key_or_anchor_is_refused_and_not_replaced(ledger: Ledger, corpus: Registration, lost: str) -> None:
    (database(ledger).parent / lost).unlink()
    with pytest.raises(LedgerTampered, match="missing"):
        ledger.state()
    with pytest.raises(LedgerTampered, match="missing"):
        register(ledger, "eps-8")


def test_another_key_is_refused(ledger: Ledger, corpus: Registration) -> None:
    (database(ledger).parent / "key").write_bytes(b"x" * 32)
    with pytest.raises(LedgerTampered, match="another key"):
        ledger.state()


@pytest.mark.parametrize(
    "edit",
    [
        "update entries set body = replace(body, '8.0', '9.0') where kind = 'registered'",
        "delete from entries where kind = 'charged'",
        "delete from entries where sequence = 0",
        "update entries set written_at = '2020-01-01' where sequence = 1",
    ],
)
def test_an_edited_ledger_is_refused(ledger: Ledger, corpus: Registration, edit: str) -> None:
    charge(ledger, corpus.corpus_id, "eps-8")
    with duckdb.connect(str(database(ledger))) as connection:
        connection.execute(edit)
    with pytest.raises(LedgerTampered):
        ledger.state()


def test_ledger_key_and_anchor_are_closed_to_others(ledger: Ledger, corpus: Registration) -> None:
    folder = database(ledger).parent
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {
        "anchor.json": "0o600",
        "key": "0o600",
        "ledger.duckdb": "0o600",
        "lock": "0o600",
    }
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert json.loads((folder / "anchor.json").read_text())["length"] == 4


def test_a_ledger_cut_by_its_last_entry_is_refused(ledger: Ledger, corpus: Registration) -> None:
    charge(ledger, corpus.corpus_id, "eps-8")
    with duckdb.connect(str(database(ledger))) as connection:
        connection.execute("delete from entries where sequence = (select max(sequence) from entries)")
    with pytest.raises(LedgerTampered, match="anchor"):
        ledger.state()


def test_an_edit_shows_to_a_process_that_had_verified_the_ledger_before(ledger: Ledger, corpus: Registration) -> None:
    charge(ledger, corpus.corpus_id, "eps-8")
    ledger.state()
    with duckdb.connect(str(database(ledger))) as connection:
        connection.execute("update entries set body = replace(body, '8.0', '9.0') where kind = 'registered'")
    with pytest.raises(LedgerTampered):
        charge(ledger, corpus.corpus_id, "eps-8", key="another")


def test_a_field_that_swallows_its_neighbor_does_not_keep_its_digest() -> None:
    honest = Entry.after(Anchor(), "a", "b", {})
    shifted = replace(honest, kind='a","b', at="")
    with pytest.raises(LedgerTampered):
        verify_chain([shifted], [], heads=[], known=0)


def test_a_crashed_run_goes_on_as_often_as_its_plan_has_spare_steps_whatever_its_files_say(
    ledger: Ledger, corpus: Registration
) -> None:
    booked = charge(ledger, corpus.corpus_id, "eps-8", GENERATOR)
    booked.mark_opened()
    for number in range(small_plan("eps-8").dpsgd.spare_steps):
        booked.continued(f"checkpoint {number}")
    with pytest.raises(ChargeRefused, match="spare step"):
        booked.continued("one more checkpoint")


def test_a_continuation_reads_once(ledger: Ledger, corpus: Registration) -> None:
    booked = charge(ledger, corpus.corpus_id, "eps-8", GENERATOR)
    booked.mark_opened()
    for checkpoint in ("one", "another"):
        continuation = booked.continued(checkpoint)
        continuation.mark_opened()
        with pytest.raises(ChargeRefused, match="reads under this charge"):
            continuation.mark_opened()


def test_votes_are_never_continued(ledger: Ledger, corpus: Registration) -> None:
    with pytest.raises(ChargeRefused, match="spare step"):
        charge(ledger, corpus.corpus_id, "eps-8", HISTOGRAM).continued("checkpoint")


def test_the_gates_order_stays_the_one_of_the_registration(ledger: Ledger, corpus: Registration) -> None:
    again = register(ledger, "eps-1", "eps-2")
    assert again.gate_order == corpus.gate_order != gate_order((small_plan("eps-1"), small_plan("eps-2")))


def test_raised_budgets_are_told_with_time_and_reason(ledger: Ledger, corpus: Registration) -> None:
    ledger.raise_budget(corpus.corpus_id, 9.0, "a second release was agreed on")
    (raised,) = ledger.state().raises
    assert (raised.before, raised.after, raised.reason) == (8.0, 9.0, "a second release was agreed on")
    assert raised.at.startswith("20")


def test_an_erasure_is_recorded_once_and_changes_the_snapshot(ledger: Ledger, corpus: Registration) -> None:
    for _ in range(2):
        ledger.record_erasure(corpus.corpus_id, "user:1", "asked for")
    state = ledger.state()
    assert state.erasures == {corpus.corpus_id: (ledger.erased_hash("user:1"),)}
    assert state.snapshot(corpus.corpus_id, "2026-11") == "2026-11+erased-1"
    assert "user:1" not in str(state)
    with pytest.raises(RegistrationError):
        ledger.record_erasure("unknown", "user:1", "asked for")
