"""The example of a mechanism: charged before it reads, compared with its plan, and refused where it did otherwise."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dp_assets.artifacts import PrivateTable
from examples.extend.mechanism import OtherNumberOfTopics, TopicVotes
from resources.public_failure import PublicFailure
from tests.boundary import NOTHING_ELSE, REAL_ROWS, Boundary

TOPICS = ("bread", "gravity", "stories", "anything else")
TEXTS = ("How do I bake bread", "what is gravity and bread", "tell me a story", "how old is the sky")
ROWS = REAL_ROWS.with_columns(text=pl.Series(TEXTS * 5))


@pytest.fixture
def boundary(tmp_path: Path) -> Boundary:
    return Boundary(tmp_path, tmp_path / "no model", ROWS)


def release(boundary: Boundary, **changes: Any) -> pl.DataFrame:
    mechanism = TopicVotes(**{"plan": boundary.plan, "table": boundary.table, "topics": TOPICS, **changes})
    table: pl.DataFrame = boundary.obtain(mechanism, "topics", NOTHING_ELSE).collect()
    return table


def test_every_topic_gets_a_noisy_vote_under_one_settled_charge(boundary: Boundary) -> None:
    votes = release(boundary)
    assert votes["bin_id"].to_list() == [0, 1, 2, 3]
    assert votes["noisy_votes"].dtype == pl.Int64
    (charge,) = boundary.charges
    assert charge.settled
    assert not charge.voided
    assert boundary.spy.seen
    assert all(charges for charges in boundary.spy.seen), "rows were read before the charge"


def test_the_same_release_is_returned_and_not_paid_again(boundary: Boundary) -> None:
    first = release(boundary)
    times_read = len(boundary.spy.seen)
    assert release(boundary).equals(first)
    assert len(boundary.charges) == 1
    assert len(boundary.spy.seen) == times_read


def test_another_number_of_topics_costs_nothing(boundary: Boundary) -> None:
    with pytest.raises(OtherNumberOfTopics, match=r"votes\.num_bins is 4, topics are 2"):
        release(boundary, topics=TOPICS[:2])
    assert boundary.charges == []
    assert boundary.spy.seen == []


def test_a_unit_votes_by_one_row_whatever_the_others_say(boundary: Boundary) -> None:
    mechanism = TopicVotes(boundary.plan, boundary.table, TOPICS)
    one = pl.LazyFrame({"unit_id": ["u"], "instruction_id": ["a"], "text": ["about gravity"]})
    more = pl.LazyFrame({"unit_id": ["u"] * 2, "instruction_id": ["c", "b"], "text": ["bread", "gravity"]})
    others = pl.LazyFrame({"unit_id": ["v"], "instruction_id": ["a"], "text": ["bread"]})
    assert mechanism._ballots(one) == [("u", 1)]
    assert sorted(mechanism._ballots(pl.concat([more, one, others]))) == [("u", 1), ("v", 0)]


class TwoVotes(TopicVotes):
    """Every unit votes twice."""

    def _ballots(self, rows: pl.LazyFrame) -> list[tuple[str, int]]:
        return super()._ballots(rows) * 2


class OthersVote(TopicVotes):
    """Every unit votes for the topic of another one."""

    def _ballots(self, rows: pl.LazyFrame) -> list[tuple[str, int]]:
        units, topics = zip(*super()._ballots(rows), strict=True)
        return list(zip(units, [*topics[1:], (topics[0] + 1) % len(TOPICS)], strict=True))


class SomeVote(TopicVotes):
    """One unit is left out."""

    def _ballots(self, rows: pl.LazyFrame) -> list[tuple[str, int]]:
        return super()._ballots(rows)[1:]


@pytest.mark.parametrize("planted", [TwoVotes, OthersVote, SomeVote])
def test_what_differs_from_the_plan_is_no_release(boundary: Boundary, planted: type[TopicVotes]) -> None:
    mechanism = planted(boundary.plan, boundary.table, TOPICS)
    with pytest.raises(PublicFailure):
        boundary.obtain(mechanism, "topics", NOTHING_ELSE)
    assert not boundary.releases.has(mechanism.name, boundary.plan.level, "topics")


def test_the_table_stays_closed_until_it_is_charged(boundary: Boundary) -> None:
    assert isinstance(boundary.table, PrivateTable)
    TopicVotes(boundary.plan, boundary.table, TOPICS).require_ready()
    assert boundary.spy.seen == []
