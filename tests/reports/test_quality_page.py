"""The page of the quality report is drawn from its data alone, loads nothing, and shows texts as text."""

import copy

from dp_assets.reports.quality_page import TITLE, quality_page
from tests.reports.hostile_quality import HOSTILE, Page, quality


def test_the_page_loads_nothing_and_says_each_picture_in_words() -> None:
    page = Page(quality_page(quality(), charge_ids=("a", "b")))
    addresses = [
        value or "" for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "srcset", "href")
    ]
    assert len(addresses) == 6
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert all(len(attrs["alt"] or "") > 40 for tag, attrs in page.tags if tag == "img")
    assert TITLE in page.text
    assert "a, b" in page.text


def test_texts_are_shown_as_they_are_and_never_rendered() -> None:
    page = Page(quality_page(quality(), charge_ids=()))
    assert HOSTILE in page.text
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe"})


def test_a_set_without_examples_has_no_table_of_them() -> None:
    data = copy.deepcopy(quality())
    with_all = quality_page(data, charge_ids=()).count("<table>")
    data["examples"]["baseline"] = []
    assert quality_page(data, charge_ids=()).count("<table>") == with_all - 1
