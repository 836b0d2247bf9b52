"""The outputs of real mechanisms pass a sequential test of their plan, and those of each planted fault do not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dp_assets.audit.sequential import claims_of
from tests.audit.faults import TRAINING_FAULTS, VOTES_FAULTS, take_four_rows_of_a_unit
from tests.audit.white_box import ORDINARY_UNITS, PLAN, Verdict, WhiteBox, audit_votes

LEVEL = 1e-4
STEPS_AS_IT_IS, MOST_STEPS = 500, 2_000
RELEASES_AS_IT_IS, MOST_RELEASES = 100, 400
PAIRS_AS_IT_IS, MOST_PAIRS = 100, 1_000
# The canary is in every sample, so that few pairs suffice.
ALWAYS_SAMPLED = replace(PLAN.dpsgd, sampling_probability=1.0, noise_multiplier=1.0)
CLAIMS = claims_of(replace(ALWAYS_SAMPLED, steps=1).event)
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def white_box(tiny_model_folder: Path) -> WhiteBox:
    return WhiteBox(tiny_model_folder, ORDINARY_UNITS)


def recorded(verdict: Verdict, record: Record) -> Verdict:
    for name, value in vars(verdict).items():
        record(name, value)
    print(verdict)
    return verdict


def test_training_as_it_is_passes(white_box: WhiteBox, record_property: Record) -> None:
    verdict = recorded(white_box.audit(significance=LEVEL, most_steps=STEPS_AS_IT_IS), record_property)
    assert not verdict.is_rejected
    assert verdict.samples == STEPS_AS_IT_IS


def test_four_rows_of_a_unit_that_are_clipped_together_pass(
    white_box: WhiteBox, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    take_four_rows_of_a_unit(monkeypatch)
    assert not recorded(white_box.audit(significance=LEVEL, most_steps=100), record_property).is_rejected


@pytest.mark.parametrize("fault", TRAINING_FAULTS)
def test_outputs_of_a_faulty_training_are_rejected(
    white_box: WhiteBox, monkeypatch: pytest.MonkeyPatch, record_property: Record, fault: str
) -> None:
    TRAINING_FAULTS[fault](monkeypatch)
    assert recorded(white_box.audit(significance=LEVEL, most_steps=MOST_STEPS), record_property).is_rejected


def test_the_claims_of_the_plan_stand_for_training_as_it_is(white_box: WhiteBox, record_property: Record) -> None:
    verdict = white_box.audit_claims(CLAIMS, ALWAYS_SAMPLED, significance=LEVEL, most_pairs=PAIRS_AS_IT_IS)
    assert not recorded(verdict, record_property).is_rejected


@pytest.mark.parametrize("fault", ["noise only in the first step", "no clip", "clip per row with four rows a unit"])
def test_the_claims_of_the_plan_fall_where_outputs_tell_the_canary_apart(
    white_box: WhiteBox, monkeypatch: pytest.MonkeyPatch, record_property: Record, fault: str
) -> None:
    TRAINING_FAULTS[fault](monkeypatch)
    verdict = white_box.audit_claims(CLAIMS, ALWAYS_SAMPLED, significance=LEVEL, most_pairs=MOST_PAIRS)
    assert recorded(verdict, record_property).is_rejected


def test_votes_as_they_are_pass(record_property: Record) -> None:
    verdict = recorded(audit_votes(significance=LEVEL, most_releases=RELEASES_AS_IT_IS), record_property)
    assert not verdict.is_rejected
    assert verdict.samples == RELEASES_AS_IT_IS


@pytest.mark.parametrize("fault", VOTES_FAULTS)
def test_outputs_of_faulty_votes_are_rejected(
    monkeypatch: pytest.MonkeyPatch, record_property: Record, fault: str
) -> None:
    VOTES_FAULTS[fault](monkeypatch)
    assert recorded(audit_votes(significance=LEVEL, most_releases=MOST_RELEASES), record_property).is_rejected
