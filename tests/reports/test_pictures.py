"""Each picture says in words what it shows, with the figures that it was drawn from."""

import math
import re

import numpy as np
import pytest

from dp_assets.evaluation.synthetic_map import NotedBin, SyntheticMap
from dp_assets.reports.pictures import (
    epsilon_drawing,
    map_markdown,
    noted_rows,
    tradeoff_drawing,
    training_drawing,
    votes_drawing,
)
from dp_assets.reports.plot_style import DARK, LIGHT
from dp_assets.statements.history import CohortHistory
from tests.reports.hostile_quality import HOSTILE, quality
from tests.statements.statements import planned

CURVE = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "reward": 3.0}]


def test_a_training_is_said_from_its_first_to_its_last_value_and_one_point_is_no_picture() -> None:
    drawing = training_drawing("Reward model", CURVE)
    assert drawing is not None
    assert drawing.alt == "Reward model, 2 steps: loss from 2 to 1.5."
    assert training_drawing("Reward model", CURVE[:1]) is None
    assert training_drawing("Reward model", []) is None


def test_a_picture_is_drawn_on_the_ground_of_each_theme() -> None:
    drawing = votes_drawing(quality())
    grounds = [drawing.figure(theme).get_facecolor() for theme in (LIGHT, DARK)]
    assert grounds[0] != grounds[1]
    block = drawing.block()
    assert block.light != block.dark
    assert block.alt == drawing.alt
    assert re.match(r"!\[Shares of 4 bins .*\]\(data:image/png;base64,", drawing.markdown())


def test_the_table_of_a_map_names_each_numbered_bin_and_its_texts_are_no_markup() -> None:
    bins = [NotedBin(1, 0, (0.0, 1.0), 0.6, 0.25, 0.5, HOSTILE), NotedBin(2, 3, (1.0, 0.0), 0.1, 0.25, 0.2, "why?")]
    drawn = SyntheticMap(np.zeros((2, 2)), np.zeros((2, 2)), tuple(bins))
    _, first, second = noted_rows(drawn)
    assert first[:4] == ("1 (more)", "60.0%", "25.0%", "50.0%")
    assert second == ("2 (less)", "10.0%", "25.0%", "20.0%", "why?")
    assert "<script" not in map_markdown(drawn)
    assert "![x]" not in map_markdown(drawn)


@pytest.mark.parametrize(("spent", "words"), [(2.5, "all 2.5"), (math.inf, "all inf")])
def test_the_epsilon_of_each_cohort_is_said_with_the_budget(spent: float, words: str) -> None:
    history = CohortHistory("all", ["booked", "dp_generator"], [0.0, spent], [8.0, 8.0])
    alt = epsilon_drawing([history], own="all", budget=8.0).alt
    assert alt == f"Epsilon spent by cohort, of a budget of 8: {words}."
    assert "nothing yet" in epsilon_drawing([], own="all", budget=8.0).alt


def test_the_trade_off_is_said_at_the_rates_of_the_statement() -> None:
    statement = planned()
    rate = statement["guarantee"]["true_positive_rate"]["cohort"]["0.01"]
    found = re.search(r"([0-9.]+)% at 1%", tradeoff_drawing(statement).alt)
    assert found is not None
    assert float(found[1]) / 100 == pytest.approx(rate, abs=1e-4)
