"""A folder in which the command runs in this process, on the tiny profile."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dp_assets.definitions  # noqa: F401 (loaded here under the default profile, not in a test under another one)
from dp_assets.settings.named import selected_profile
from tests.cli_pipeline import CliPipeline


@contextmanager
def pipeline_of(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliPipeline]:
    """A pipeline whose profile this process uses meanwhile."""
    pipeline = CliPipeline(folder, model)
    for name, value in pipeline.environment.items():
        monkeypatch.setenv(name, value)
    selected_profile.cache_clear()
    yield pipeline
    selected_profile.cache_clear()
