"""A data folder that an earlier version of the code made opens, verifies and goes on without a new charge.

`tests/fixtures/home-before-the-layers.tar.gz` was made just before the modules moved to the layers that they have now,
by registering and running the tiny profile (`tests/cli_pipeline.py`) on a two-layer model in the folder `model` and on
a database, whose registration holds no path. The catalog and the release report's page were left out.
"""

import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree

import pytest

from dp_assets.pipeline.running import DAGSTER_HOME
from dp_assets.settings.named import PROFILE_VARIABLE
from resources.ledger.homes import STATE_VARIABLE
from resources.ledger.ledger_resource import Ledger
from resources.storage.zones import HOME_VARIABLE

ROOT = Path(__file__).parents[1]
MADE_EARLIER = ROOT / "tests/fixtures/home-before-the-layers.tar.gz"
PARTITION = "all|eps-8"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(MADE_EARLIER) as archive:
        archive.extractall(folder, filter="data")
    return folder


def output_of(folder: Path, *words: str) -> str:
    """What the command prints in the folder; it must succeed."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        PROFILE_VARIABLE: "tiny.toml",
        HOME_VARIABLE: "data",
        DAGSTER_HOME: str(folder / "dagster"),
        STATE_VARIABLE: str(folder / "state"),
        "CORPUS_URL": "sqlite:///corpus.sqlite",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "dp_assets.cli", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def charges_of(folder: Path) -> Sequence[str]:
    return list(Ledger(private_root=str(folder / "data/private")).state().charges)


def test_the_statement_of_an_earlier_data_folder_verifies_against_its_ledger(folder: Path) -> None:
    statement = "data/released/artifacts/privacy_statement/all/eps-8/document.json"
    assert "recomputed" in output_of(folder, "verify", statement, "--home", "data")


def test_an_earlier_data_folder_goes_on_with_its_paid_releases(folder: Path) -> None:
    charges = charges_of(folder)
    assert len(charges) == 2
    for name in ("dp_generator", "dp_histogram"):
        rmtree(folder / "data/released/artifacts" / name)
    output_of(folder, "run", PARTITION)
    assert charges_of(folder) == charges
    assert sorted(path.name for path in (folder / "data/released/artifacts/dp_generator").rglob("*.safetensors"))
