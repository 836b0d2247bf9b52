"""The boundary rule itself."""

import pytest

from dp_assets.privacy.labels import Label, Zone, may_read_private, zone


@pytest.mark.parametrize("label", list(Label))
def test_nothing_at_the_level_no_dp_leaves_the_private_zone(label: Label) -> None:
    assert zone(label, "no-dp") is Zone.PRIVATE


def test_only_private_artifacts_lie_in_the_private_zone_at_a_private_level() -> None:
    assert {label: zone(label, "eps-8") for label in Label} == {
        Label.PRIVATE: Zone.PRIVATE,
        Label.MECHANISM: Zone.RELEASED,
        Label.RELEASED: Zone.RELEASED,
    }


def test_released_assets_may_not_read_private_tables() -> None:
    assert [label for label in Label if not may_read_private(label)] == [Label.RELEASED]
