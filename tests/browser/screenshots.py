"""The screenshot of the Dagster UI in docs/, taken of a catalog in which `dp-instructions demo` has run.

    python -m tests.browser.screenshots docs

reads the data folder and the Dagster home that the environment names, as every command does.
"""

import io
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page

from dp_assets.pipeline.running import DAGSTER_HOME
from resources.storage.zones import HOME_VARIABLE, data_home
from tests.browser import chromium
from tests.browser.dagster_ui import dagster_ui

ASSET_SIZE = (1500, 1130)
WIDTH, COLORS = 1600, 160
MILLISECONDS_TO_SETTLE = 2000


def main(folder: Path) -> None:
    executable = chromium.installed_chromium()
    if executable is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    home = data_home()
    environment = {HOME_VARIABLE: str(home), DAGSTER_HOME: os.environ.get(DAGSTER_HOME, str(home / "dagster_home"))}
    with (
        TemporaryDirectory() as logs,
        dagster_ui(environment, Path(logs) / "dagster.log") as ui,
        chromium.chromium_page(executable) as page,
    ):
        take(page, ui.address, folder)


def take(page: Page, address: str, folder: Path) -> None:
    """The page of the quality report with its pictures."""
    page.set_viewport_size({"width": ASSET_SIZE[0], "height": ASSET_SIZE[1]})
    chromium.open_events(page, address, "quality_report")
    shots = [_shot(page)]
    for key in ("votes", "map"):
        window = chromium.open_picture(page, key)
        page.wait_for_timeout(MILLISECONDS_TO_SETTLE)
        shots.append(Image.open(io.BytesIO(window.screenshot())))
        chromium.close_window(page)
    _save(shots, folder / "ui_asset.png")


def _shot(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot()))


def _save(shots: list[Image.Image], path: Path) -> None:
    """The first shot, and any others side by side below it, in few colors at the width that a README shows."""
    below = [shot.resize((WIDTH // 2, shot.height * WIDTH // 2 // shot.width)) for shot in shots[1:]]
    top = shots[0].resize((WIDTH, shots[0].height * WIDTH // shots[0].width))
    picture = Image.new("RGB", (WIDTH, top.height + max((shot.height for shot in below), default=0)), "white")
    picture.paste(top, (0, 0))
    for number, shot in enumerate(below):
        picture.paste(shot, (number * WIDTH // 2, top.height))
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
