"""The report is one page that loads nothing, says every picture in words, and shows no text as markup."""

import json
import re
from typing import Any

import pytest

from dp_assets.artifacts import Document
from dp_assets.reports.release_page import Training, release_report
from dp_assets.statements.history import CohortHistory
from tests.reports.hostile_quality import HOSTILE, Page, quality
from tests.statements.statements import adaptive, planned, without_noise

TRAININGS = [
    Training("Supervised fine-tuning", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}], {}),
    Training("Reward model", [{"step": 1, "loss": 2.0}], {"held_out_accuracy": 0.75}),
]


def report_of(statement: dict[str, Any]) -> Document:
    history = CohortHistory("all", ["booked", "dp_generator"], [0.0, 5.0], [8.0, 8.0])
    return release_report(
        cohort="all",
        level="eps-8",
        quality=quality(),
        statement=statement,
        trainings=TRAININGS,
        histories=[history],
        charge_ids=("a", "b"),
    )


@pytest.fixture(scope="module")
def report() -> Document:
    return report_of(planned())


def page_of(report: Document) -> Page:
    assert report.html is not None
    return Page(report.html)


def test_the_page_loads_nothing_from_elsewhere(report: Document) -> None:
    page = page_of(report)
    addresses = [
        value or "" for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "srcset", "href")
    ]
    assert addresses
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert not re.search(r"url\(|@import", str(report.html))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})


def test_every_picture_comes_in_light_and_dark_and_is_said_in_words(report: Document) -> None:
    tags = page_of(report).tags
    alts = [attrs["alt"] for tag, attrs in tags if tag == "img"]
    assert len(alts) == sum(tag == "source" for tag, _ in tags) == 6
    assert all(alt and len(alt) > 40 for alt in alts)
    assert list(report.data["pictures"].values()) == alts


def test_paper_gets_the_light_pictures(report: Document) -> None:
    media = {attrs["media"] for tag, attrs in page_of(report).tags if tag == "source"}
    assert media == {"screen and (prefers-color-scheme: dark)"}


def test_texts_are_shown_as_they_are_and_never_rendered(report: Document) -> None:
    assert HOSTILE in page_of(report).text
    assert HOSTILE not in report.markdown
    assert "y.example" not in report.markdown


def test_guarantee_trainings_and_origin_are_on_the_page(report: Document) -> None:
    text = page_of(report).text
    for words in ("almost equally likely", "held out accuracy", "0.75", "a, b", report.data["statement_digest"]):
        assert words in text


def test_the_data_is_json_and_carries_the_charges(report: Document) -> None:
    assert json.loads(json.dumps(report.data, allow_nan=False)) == report.data
    assert report.charge_ids == ("a", "b")


@pytest.mark.parametrize("make", [adaptive, without_noise])
def test_a_release_under_the_budget_and_one_without_noise_have_a_report_too(make: Any) -> None:
    assert page_of(report_of(make())).text
