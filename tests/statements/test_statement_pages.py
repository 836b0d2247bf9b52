"""Both pages say what the JSON says, and the HTML needs nothing from elsewhere."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from dp_assets.privacy.plan import GENERATOR
from dp_assets.privacy.units import PrivacyUnit, relation_in_words
from dp_assets.statements.pages import Heading, number, share
from dp_assets.statements.statement import NOT_COVERED, restated
from dp_assets.statements.statement_pages import REPORTING_LISTS, blocks, to_html, to_markdown
from tests.statements.statements import (
    CORPUS,
    PLAN,
    adaptive,
    both,
    charged,
    leaves,
    planned,
    state_of,
    statement_of,
    without_noise,
)

VOID = {"meta"}
ALLOWED_ATTRIBUTES = {"lang", "charset"}


class Page(HTMLParser):
    """The text of a page and its attributes; fails where a tag is not closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.attributes = "", set[str]()
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open and "title" not in self._open:
            self.text += f"{data} "


def words(text: str) -> str:
    """A text without the marks of Markdown."""
    unmarked = re.sub(r"[|#*]|---", " ", re.sub(r"^- ", "", text, flags=re.MULTILINE))
    return " ".join(unmarked.split())


def shown(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def closed() -> dict[str, Any]:
    closing = ("closed", {"corpus_id": "corpus", "cohort": "all", "reasons": ["steps"]})
    return statement_of(state_of(*both(), closing))


def test_no_figure_is_shown_smaller_than_it_is() -> None:
    statement = restated(adaptive(), budget={"epsilon": 15.0000000004, "raised": []})
    assert "stays within epsilon 15.0000000004" in to_markdown(statement)
    statement["terms"]["delta"] = 1.0000049e-05
    assert "at delta 1.0000049e-05" in to_markdown(statement)
    assert "at delta 1e-05" not in to_markdown(statement)
    assert (share(0.123401), share(0.1234), share(1.0), number(1e-05), number(7.0)) == (
        "12.35%",
        "12.34%",
        "100.00%",
        "1e-05",
        "7",
    )


@pytest.mark.parametrize("make", [planned, adaptive, without_noise, closed])
def test_both_pages_say_the_same(make: Callable[[], dict[str, Any]]) -> None:
    statement = make()
    assert words(Page(to_html(statement)).text) == words(to_markdown(statement))


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = to_html(planned())
    assert Page(page).attributes <= ALLOWED_ATTRIBUTES
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img", page)
    assert "color-scheme: light dark" in page
    assert "@media print" in page


def test_every_figure_hash_and_id_of_the_statement_stands_on_the_page() -> None:
    statement = planned()
    page = to_markdown(statement)
    assert relation_in_words(statement["terms"].pop("relation")) in page
    for part in ("ledger", "code", "files", "terms", "plans", "budget"):
        for path, value in leaves(statement[part]):
            assert isinstance(value, bool | list) or path[-1] in ("target_epsilon", "level") or shown(value) in page, (
                path
            )
    epsilons = [value for path, value in leaves(statement["guarantee"]) if "true_positive_rate" not in path]
    assert all(shown(value) in page for value in epsilons if value is not None)
    assert all(name in page for name in NOT_COVERED)


@pytest.mark.parametrize(
    ("make", "headline"),
    [
        (planned, f"**epsilon {PLAN.epsilon:.10g} at delta 1e-05** over everything that was fixed"),
        (adaptive, "**epsilon 15 at delta 1e-05**, the budget of this cohort"),
        (closed, "**no guarantee for the cohort as a whole**: none, since a run differed"),
        (without_noise, "**No guarantee.** It ran without noise"),
    ],
)
def test_the_page_opens_with_the_headline_that_the_ledger_certifies(
    make: Callable[[], dict[str, Any]], headline: str
) -> None:
    assert headline in to_markdown(make()).partition("## The figures")[0]


def test_a_page_without_a_bound_promises_no_bound_on_an_attacker() -> None:
    words = to_markdown(closed()).partition("## The figures")[0]
    assert "Nothing bounds how well somebody could tell" in words
    assert "stays within epsilon" not in words


def test_a_raised_budget_is_listed_with_its_time() -> None:
    assert "| budget raised, 2026-11-24 | from 12 to 15 |" in to_markdown(adaptive())


@pytest.mark.slow
def test_the_page_says_whose_the_rows_are() -> None:
    assert "These rows are the person's" in to_markdown(planned())
    plan = replace(PLAN, unit=PrivacyUnit.INSTRUCTION, max_rows_per_unit=1)
    corpus = replace(CORPUS, unit=PrivacyUnit.INSTRUCTION, max_rows_per_unit=1)
    statement = statement_of(
        state_of(("charged", charged(GENERATOR, plan=plan)), corpus=corpus, plans=(plan,)),
        [plan],
        charge_ids=[GENERATOR],
    )
    page = to_markdown(statement)
    assert "a person who wrote several is protected less" in page
    for size, epsilon in statement["guarantee"]["epsilon_of_a_person"].items():
        assert f"| {size} | {epsilon:.10g} |" in page


def test_each_item_of_the_reporting_lists_names_a_section_that_exists() -> None:
    headings = {block.text for block in blocks(planned()) if isinstance(block, Heading)}
    named = {section for *_, sections in REPORTING_LISTS for section in sections.split("; ")}
    assert named <= headings


KINDS, WITH = ("email", "secret"), {"presidio-analyzer": "2.2.366"}


def test_redaction_is_named_as_defense_in_depth_where_it_took_place() -> None:
    plain, redacted = (
        statement_of(state_of(*both())),
        statement_of(state_of(*both()), redacted=KINDS, redacted_with=WITH),
    )
    assert "replaced by placeholders" not in to_markdown(plain)
    for page in (to_markdown(redacted), to_html(redacted)):
        assert "email, secret: what has a recognisable form, as defence in depth" in page
        assert "no figure here counts on it" in page
        assert "presidio-analyzer 2.2.366" in page
    assert redacted["guarantee"] == plain["guarantee"]
