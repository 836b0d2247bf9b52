"""An export that tests look into."""

from pathlib import Path

import pytest

from dp_assets.export.folder import write_export
from tests.export.releases import SETTINGS, gathered, release_everything


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An export of everything."""
    release = gathered(tmp_path / "data", release_everything(tmp_path / "data"))
    write_export(tmp_path / "out", release, SETTINGS, names={})
    return tmp_path / "out"
