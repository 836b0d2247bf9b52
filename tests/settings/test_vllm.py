"""What settings know of vLLM without loading it."""

import sys
from types import ModuleType

import pytest

from dp_assets.settings.vllm import RANKS, is_installed


def test_vllm_is_looked_for_and_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("vllm")
    package.__spec__ = pytest.__spec__
    monkeypatch.setitem(sys.modules, "vllm", package)
    assert is_installed()
    monkeypatch.delitem(sys.modules, "vllm")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    assert not is_installed()
    assert "vllm" not in sys.modules


def test_the_ranks_that_are_served_grow() -> None:
    assert list(RANKS) == sorted(set(RANKS))
