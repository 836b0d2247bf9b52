"""No mechanism reaches a release without its checks and its charge, whichever stage fails.

    find paid -> rest of run ready -> mechanism ready -> charge -> open -> run -> compare -> store -> settle

Both real mechanisms run over small real parts. One stage fails before it begins, or is interrupted right after it took
effect. Each test says which stages were reached, what the ledger and the store hold then, and what a second call does.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dp_assets.artifacts import PrivateTable
from dp_assets.pipeline import release_protocol
from dp_assets.privacy import randomness
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from dp_assets.privacy.sampling_and_noise import DiscreteGaussianNoise, GaussianNoise
from resources.ledger.ledger_resource import Charge, ChargeRefused, Ledger
from resources.storage.stores import ReleaseStore
from tests.boundary import LEVEL, Boundary, UntriedVotes
from tests.untried_generator import UntriedGenerator

STAGES = ("find paid", "rest of run", "ready", "charge", "open", "run", "compare", "store", "settle")
BEFORE, AFTER = "before", "after"
NOISE = {GENERATOR: "normals", HISTOGRAM: "discrete_gaussian"}

# What ledger and store hold once a stage failed: whether there is a charge, it was opened, a release lies in the store,
# and the charge is settled.
NOTHING = (False, False, False, False)
CHARGED = (True, False, False, False)
OPENED = (True, True, False, False)
STORED = (True, True, True, False)
SETTLED = (True, True, True, True)
LEFT_BY = {
    ("find paid", BEFORE): NOTHING,
    ("find paid", AFTER): NOTHING,
    ("rest of run", BEFORE): NOTHING,
    ("rest of run", AFTER): NOTHING,
    ("ready", BEFORE): NOTHING,
    ("ready", AFTER): NOTHING,
    ("charge", BEFORE): NOTHING,
    ("charge", AFTER): CHARGED,
    ("open", BEFORE): CHARGED,
    ("open", AFTER): OPENED,
    ("run", BEFORE): OPENED,
    ("run", AFTER): OPENED,
    ("compare", BEFORE): OPENED,
    ("compare", AFTER): OPENED,
    ("store", BEFORE): OPENED,
    ("store", AFTER): STORED,
    ("settle", BEFORE): STORED,
    ("settle", AFTER): SETTLED,
}
# What a second call does, by what the first one left. Private rows that were opened without a release are paid for
# anew, which this budget does not allow; private training goes on from its checkpoint under the same charge.
IN_FULL = STAGES
UNDER_THE_OLD_CHARGE = tuple(stage for stage in STAGES if stage != "charge")
SECOND_CALL = {
    NOTHING: IN_FULL,
    CHARGED: UNDER_THE_OLD_CHARGE,
    STORED: ("find paid", "compare", "settle"),
    SETTLED: ("find paid",),
}
REFUSED = ("find paid", "rest of run", "ready", "charge")


class Failed(RuntimeError):
    """A stage that could not be done."""


class Interrupted(BaseException):
    """The process was ended."""


class Journal:
    """Notes each stage when it is reached, and ends the first call at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, mechanism: str) -> None:
        self.reached: list[str] = []
        self.ends_at: tuple[str, str] | None = None
        self._patch = patch
        self._watch(LedgerState, "find_settled", "find paid")
        self._watch(UntriedGenerator if mechanism == GENERATOR else UntriedVotes, "require_ready", "ready")
        self._watch(Ledger, "charge", "charge")
        self._watch(PrivateTable, "open", "open")
        self._watch(randomness, NOISE[mechanism], "run")
        self._watch(release_protocol, "check_record", "compare")
        self._watch(ReleaseStore, "save", "store")
        self._watch(Charge, "settle", "settle")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if name not in self.reached:
            self.reached.append(name)
        if self.ends_at == (name, BEFORE):
            raise Failed
        yield
        if self.ends_at == (name, AFTER):
            raise Interrupted

    def require_ready(self) -> None:
        """As the rest of the run."""
        with self.stage("rest of run"):
            pass

    def _watch(self, owner: Any, name: str, stage: str) -> None:
        former = getattr(owner, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                return former(*args, **kwargs)

        self._patch.setattr(owner, name, noted)


class Site:
    """One mechanism between ledger and store, its journal, and what both hold."""

    def __init__(self, home: Path, model: Path, mechanism: str, patch: pytest.MonkeyPatch) -> None:
        self.mechanism, self.boundary, self.journal = mechanism, Boundary(home, model), Journal(patch, mechanism)

    def call(self) -> Any:
        self.journal.reached.clear()
        run = {GENERATOR: self.boundary.generator, HISTOGRAM: self.boundary.histogram}[self.mechanism]
        return run(rest_of_run=self.journal)

    def end_at(self, stage: str, moment: str) -> None:
        """A call that ends there."""
        self.journal.ends_at = (stage, moment)
        with pytest.raises((Failed, Interrupted)):
            self.call()
        self.journal.ends_at = None

    @property
    def is_stored(self) -> bool:
        return self.boundary.releases.has(self.mechanism, LEVEL, "key")

    @property
    def left(self) -> tuple[bool, bool, bool, bool]:
        charges = self.boundary.charges
        assert len(charges) <= 1
        opened, settled = (any(getattr(charge, name) for charge in charges) for name in ("opened", "settled"))
        return bool(charges), opened, self.is_stored, settled


@pytest.fixture(params=[GENERATOR, HISTOGRAM])
def site(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Site:
    return Site(tmp_path, tiny_model_folder, request.param, monkeypatch)


def test_a_release_passes_every_stage_in_their_order(site: Site) -> None:
    release = site.call()
    assert site.journal.reached == list(STAGES)
    assert site.left == SETTLED
    assert release.charge_ids == (site.boundary.charges[0].charge_id,)


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
@pytest.mark.parametrize("stage", STAGES)
def test_nothing_comes_after_a_stage_that_fails_and_no_second_call_returns_an_unchecked_release(
    site: Site, stage: str, moment: str
) -> None:
    site.end_at(stage, moment)
    assert site.journal.reached == list(STAGES[: STAGES.index(stage) + 1])
    left = LEFT_BY[stage, moment]
    assert site.left == left
    if left == OPENED and site.mechanism == HISTOGRAM:
        with pytest.raises(ChargeRefused, match="No private row was read"):
            site.call()
        assert (site.journal.reached, site.left) == (list(REFUSED), OPENED)
        return
    release = site.call()
    assert site.left == SETTLED
    assert release.charge_ids == (site.boundary.charges[0].charge_id,)
    went_on = site.mechanism == GENERATOR and (left == OPENED or stage == "open")  # there is a checkpoint by then
    expected = UNDER_THE_OLD_CHARGE if went_on else SECOND_CALL[left]
    has_no_step_left = went_on and STAGES.index(stage) > STAGES.index("run")
    assert site.journal.reached == [name for name in expected if not (has_no_step_left and name == "run")]
    assert bool(site.boundary.charges[0].continuations) is went_on


def test_a_release_that_was_lost_and_made_again_is_compared_until_its_own_charge_is_settled(site: Site) -> None:
    site.call()
    shutil.rmtree(site.boundary.home / Zone.RELEASED / "releases")
    site.boundary.ledger.raise_budget(site.boundary.registration.corpus_id, 100.0, "the release was lost")
    site.end_at("settle", BEFORE)
    release = site.call()
    assert site.journal.reached == ["find paid", "compare", "settle"]
    _, second = site.boundary.charges
    assert second.settled
    assert release.charge_ids == (second.charge_id,)


@pytest.mark.parametrize(("stage", "moment"), [(None, ""), ("compare", BEFORE), ("compare", AFTER), ("settle", BEFORE)])
def test_a_run_that_differs_from_its_plan_is_never_stored_nor_returned(
    site: Site, monkeypatch: pytest.MonkeyPatch, stage: str | None, moment: str
) -> None:
    noise: Any = {GENERATOR: GaussianNoise, HISTOGRAM: DiscreteGaussianNoise}[site.mechanism]
    draw = noise.draw
    with monkeypatch.context() as planted:
        planted.setattr(noise, "draw", lambda self, size: (draw(self, size), draw(self, size))[1])
        if stage is None:
            with pytest.raises(dg.Failure, match="differs from its plan"):
                site.call()
        else:
            site.end_at(stage, moment)
    assert "store" not in site.journal.reached
    assert not site.is_stored
    with pytest.raises(dg.Failure):
        site.call()
    assert "store" not in site.journal.reached
    assert not site.is_stored
