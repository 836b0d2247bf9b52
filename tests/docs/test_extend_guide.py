"""The guide on extensions: its code is that of the examples, each example has tests, and what it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guides/extend.md").read_text()
EXAMPLES = sorted(path.name for path in (ROOT / "examples/extend").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_guide_shows_an_example_as_it_is_and_tests_run_it(name: str) -> None:
    code = (ROOT / "examples/extend" / name).read_text()
    assert f"`examples/extend/{name}`:\n\n```python\n{code}```" in GUIDE
    assert (ROOT / "tests/extend" / f"test_{name}").is_file()


def test_the_guide_shows_no_code_that_is_not_run() -> None:
    assert len(re.findall(r"^```", GUIDE, re.MULTILINE)) == 2 * len(EXAMPLES)


def test_each_way_to_extend_is_in_the_table_and_has_a_section() -> None:
    ways = re.findall(r"^\| \[(.+?)\]\(#(.+?)\)", GUIDE, re.MULTILINE)
    assert [anchor for _, anchor in ways] == [way.replace(" ", "-") for way, _ in ways]
    assert re.findall(r"^## (.*)$", GUIDE, re.MULTILINE) == [way.capitalize() for way, _ in ways]
    assert len(ways) == len(EXAMPLES)


def test_the_files_and_names_of_the_guide_exist() -> None:
    prose = re.sub(r"```python.*?```", "", GUIDE, flags=re.DOTALL)
    paths = re.findall(r"`((?:dp_assets|examples|tests|resources)/[\w/.]+)`", prose)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    targets = re.findall(r"\]\(([^)#:]+)\)", prose)
    assert [target for target in targets if not (ROOT / "docs/guides" / target).exists()] == []
    code = "\n".join(
        path.read_text() for folder in ("dp_assets", "resources") for path in (ROOT / folder).rglob("*.py")
    )
    names = re.findall(r"`([A-Za-z_]{6,})(?:\(.*?\))?`", prose)
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []
