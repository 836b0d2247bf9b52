"""The pipeline of this package's tests, and a released zone without a ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.storage.zones import HOME_VARIABLE
from tests.cli.pipelines import pipeline_of
from tests.cli.released_statements import released_zone
from tests.cli_pipeline import CliPipeline


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliPipeline]:
    """One that needs no model, because the graph does not run."""
    with pipeline_of(tmp_path, Path("no model"), monkeypatch) as pipeline:
        yield pipeline


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `artifacts` of a released zone: two artifacts and the statement made from them. There is no ledger."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "no home"))
    return released_zone(tmp_path)
