"""Chromium, driven as a person would use the Dagster UI: pages, clicks, and what can be seen."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import parse_qs, urlencode, urlsplit

from playwright.sync_api import Locator, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
MILLISECONDS_TO_WAIT = 30_000
PICTURES = 'img[src^="data:image/png;base64,"]'


def installed_chromium() -> str | None:
    """Where Chromium lies, None if it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium_page(executable: str, *, width: int = 1600, height: int = 1000) -> Iterator[Page]:
    """An empty page of a browser that is closed afterwards."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(MILLISECONDS_TO_WAIT)
        try:
            yield page
        finally:
            browser.close()


def open_graph(page: Page, address: str, groups: Sequence[str]) -> None:
    """The global asset graph with these groups opened; the first by hand, to learn how the address names it."""
    page.goto(f"{address}/asset-groups")
    page.locator("svg foreignObject").get_by_text(groups[0], exact=True).filter(visible=True).first.click()
    page.wait_for_url(re.compile("expanded="))
    opened = parse_qs(urlsplit(page.url).query)["expanded"][0]
    expanded = ",".join(opened.replace(groups[0], group) for group in groups)
    page.goto(f"{address}/asset-groups?{urlencode({'expanded': expanded})}")


def open_events(page: Page, address: str, asset: str) -> None:
    """An asset's page with the metadata of its latest materialization."""
    page.goto(f"{address}/assets/{asset}?view=events")
    page.get_by_text("privacy/label", exact=True).wait_for()


def metadata_on(page: Page) -> dict[str, str]:
    """The metadata that an open page shows, by key."""
    rows = page.locator("tr").filter(visible=True)
    cells = [row.split("\t", 1) for row in rows.all_inner_texts()]
    return {cell[0].strip(): " ".join(cell[1].split()) for cell in cells if len(cell) == 2}


def open_picture(page: Page, key: str) -> Locator:
    """The window that shows a metadata entry's picture."""
    row = page.locator("tr", has=page.get_by_text(key, exact=True)).filter(visible=True)
    row.get_by_text("[Show Markdown]").click()
    window = page.get_by_role("dialog")
    window.locator(PICTURES).first.wait_for()
    return window


def close_window(page: Page) -> None:
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_role("dialog").wait_for(state="detached")


def launch(page: Page, address: str, asset: str, levels: Sequence[str]) -> None:
    """Materialize an asset for these levels of all cohorts: one run for one partition, else a backfill."""
    page.goto(f"{address}/assets/{asset}?view=partitions")
    page.get_by_role("button", name="Materialize").first.click()
    window = page.get_by_role("dialog").filter(has_text="Launch runs to materialize")
    window.get_by_role("button", name="All").first.click()
    window.get_by_text("Select a partition or create one").last.click()
    for level in levels:
        page.get_by_role("menuitem").get_by_text(level, exact=True).filter(visible=True).click()
    window.get_by_text("Launch runs to materialize").click()  # closes the list of levels
    window.get_by_role("button", name=re.compile("^Launch")).click()
    window.wait_for(state="detached")
