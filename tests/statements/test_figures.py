"""The trade-off curves pass through the rates that a statement states."""

from collections.abc import Callable
from typing import Any

import pytest

from dp_assets.statements.figures import FALSE_POSITIVE_RATES, trade_off_curves
from tests.statements.statements import adaptive, planned, without_noise


@pytest.mark.parametrize("make", [planned, adaptive, without_noise])
def test_the_curves_pass_through_the_stated_rates(make: Callable[[], dict[str, Any]]) -> None:
    statement = make()
    stated = statement["guarantee"]["true_positive_rate"]
    curves = trade_off_curves(statement, FALSE_POSITIVE_RATES)
    assert curves == {scope: list(rates.values()) for scope, rates in stated.items()}


def test_a_curve_never_falls_and_never_lies_below_guessing() -> None:
    rates = [0.0001, 0.001, 0.01, 0.1, 0.5, 0.9]
    for curve in trade_off_curves(planned(), rates).values():
        assert curve == sorted(curve)
        assert all(reached >= rate for reached, rate in zip(curve, rates, strict=True))
