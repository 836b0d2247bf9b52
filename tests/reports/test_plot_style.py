"""The colors of both themes stay apart for everybody, and stand out from the page.

Dichromacies are simulated in linear light by the matrices of Machado, Oliveira and Fernandes (IEEE TVCG 2009, severity
1), distances are Euclidean in CIELAB, contrast is that of WCAG 2.
"""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from dp_assets.reports.plot_style import DARK, LIGHT, Theme

Floats = npt.NDArray[np.float64]

VISIONS = {
    "ordinary": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ @ np.ones(3)
# Five times the distance at which two large patches side by side are told apart.
FURTHEST_ALIKE = 11.0
GRAPHICS_CONTRAST, TEXT_CONTRAST = 3.0, 4.5


def linear(color: str) -> Floats:
    encoded = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(light: Floats) -> Floats:
    relative = TO_XYZ @ np.clip(light, 0, 1) / WHITE
    x, y, z = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(vision: Floats, first: str, second: str) -> float:
    return float(np.linalg.norm(lab(vision @ linear(first)) - lab(vision @ linear(second))))


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted(float(TO_XYZ[1] @ linear(color)) for color in (first, second))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("vision", list(VISIONS))
def test_two_series_are_never_taken_for_each_other(theme: Theme, vision: str) -> None:
    gaps = {pair: distance(VISIONS[vision], *pair) for pair in combinations(theme.series, 2)}
    assert min(gaps.values()) > FURTHEST_ALIKE, gaps


def test_the_distance_can_fail_for_red_and_green_of_like_lightness() -> None:
    red, green = "#C44E52", "#609C50"
    assert distance(VISIONS["ordinary"], red, green) > 4 * FURTHEST_ALIKE
    assert distance(VISIONS["deuteranopia"], red, green) < FURTHEST_ALIKE


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_series_and_text_stand_out_from_the_ground(theme: Theme) -> None:
    assert min(contrast(color, theme.ground) for color in theme.series) >= GRAPHICS_CONTRAST
    assert min(contrast(color, theme.ground) for color in (theme.ink, theme.quiet)) >= TEXT_CONTRAST
