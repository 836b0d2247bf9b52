"""The wheel that is built from the tree holds everything the product needs, and loads without the tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("dp_assets", "resources")
SOURCES = ("pyproject.toml", "README.md", "LICENSE")
NOT_SOURCE = shutil.ignore_patterns("__pycache__", ".*")


def packaged_files(root: Path) -> set[str]:
    files = (path for package in PACKAGES for path in (root / package).rglob("*") if path.is_file())
    return {str(path.relative_to(root)) for path in files}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, because building writes into the tree."""
    copy = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=NOT_SOURCE)
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built offline, with the setuptools that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, "."]
    built = subprocess.run(build, cwd=tree, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_both_packages_and_no_other(tree: Path, wheel: Path) -> None:
    inside = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == packaged_files(tree)
    assert {f"{package}/py.typed" for package in PACKAGES} <= inside


@pytest.mark.slow
def test_the_wheel_states_license_readme_python_versions_and_command(wheel: Path) -> None:
    with ZipFile(wheel) as content:
        (metadata,) = [name for name in content.namelist() if name.endswith(".dist-info/METADATA")]
        described = content.read(metadata).decode()
        commands = content.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "License-Expression: Apache-2.0" in described
    assert "Requires-Python: <3.14,>=3.11" in described
    assert (ROOT / "README.md").read_text().splitlines()[0] in described
    assert "dp-instructions = dp_assets.cli:main" in commands


@pytest.mark.slow
def test_the_code_location_and_the_command_load_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    ZipFile(wheel).extractall(site)
    home = tmp_path / "home"
    environment = os.environ | {"PYTHONPATH": str(site), "DP_INSTRUCTIONS_HOME": str(home), "DAGSTER_HOME": str(home)}
    load = "import dp_assets.definitions as loaded, resources; print(loaded.__file__, resources.__file__, sep='\\n')"
    files = run_at(tmp_path, environment, "-c", load).splitlines()
    assert [Path(file).is_relative_to(site) for file in files] == [True, True]
    run_at(tmp_path, environment, "-m", "dp_assets.cli", "home")
    assert (home / "dagster.yaml").is_file()


def run_at(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    ran = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
