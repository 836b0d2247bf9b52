"""The guides on exports and the catalog: their commands exist, and names and files are those of the code."""

import re
from pathlib import Path

import pytest

from dp_assets.export.parts import PARTS, Kind
from resources.storage import catalog
from tests.docs.test_commands import command_lines, problem

GUIDES = Path(__file__).parents[2] / "docs/guides"
EXPORT, CATALOG = GUIDES / "export.md", GUIDES / "catalog.md"


@pytest.mark.parametrize("guide", [EXPORT, CATALOG], ids=lambda path: path.name)
def test_every_command_of_a_guide_has_the_options_and_arguments_it_is_given(guide: Path) -> None:
    lines = command_lines(guide)
    assert lines
    assert [problem(line) for line in lines if problem(line)] == []


@pytest.mark.parametrize("guide", [EXPORT, CATALOG], ids=lambda path: path.name)
def test_a_guides_links_lead_somewhere(guide: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", guide.read_text())
    assert [target for target in targets if not (GUIDES / target).exists()] == []


def test_every_part_of_an_export_is_named_in_its_guide() -> None:
    text = EXPORT.read_text()
    assert [part.name for part in PARTS if f"`{part.name}`" not in text] == []
    assert f"`{PARTS[0].name}` (the default)" in text
    assert PARTS[0].kind is Kind.TABLE


def test_the_columns_that_the_catalogs_guide_names_are_there() -> None:
    text = CATALOG.read_text()
    for columns in (catalog.LINEAGE, ["mechanism", "epsilon", "delta", "settled", "voided", "event"]):
        assert [column for column in columns if f"`{column}`" not in text] == []
    assert f"set variable {catalog.RELEASED_VARIABLE} =" in text
    assert catalog.STORAGE_VERSION.startswith("v1.2")
    assert "DuckDB 1.2" in text
