"""The tiny corpus of tests about private tables, and the workbench of tests about one asset."""

from pathlib import Path

import pytest

from tests.assets.one_asset import Workbench
from tests.assets.tiny_corpus import Corpus


@pytest.fixture
def corpus(tmp_path: Path, tiny_model_folder: Path) -> Corpus:
    return Corpus(tmp_path, tiny_model_folder)


@pytest.fixture
def bench(tmp_path: Path, tiny_model_folder: Path) -> Workbench:
    return Workbench(tmp_path, tiny_model_folder)
