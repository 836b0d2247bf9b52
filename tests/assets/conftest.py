"""The pipeline of tests about private tables, and the workbench of tests about one asset."""

from pathlib import Path

import pytest

from tests.assets.one_asset import Workbench
from tests.disk_pipeline import DiskPipeline


@pytest.fixture
def pipeline(tmp_path: Path, tiny_model_folder: Path) -> DiskPipeline:
    return DiskPipeline(tmp_path, tiny_model_folder)


@pytest.fixture
def bench(tmp_path: Path, tiny_model_folder: Path) -> Workbench:
    return Workbench(tmp_path, tiny_model_folder)
