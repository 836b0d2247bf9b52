"""jax-privacy's auditing module, another implementation of the same papers, where it is installed.

The module itself needs NumPy, SciPy and dp_accounting only, but the package imports JAX. So the file is loaded alone:
from the folder that the environment variable names, or from the installed package (extra `oracle`).
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = "DP_INSTRUCTIONS_JAX_PRIVACY"


def jax_auditing() -> ModuleType:
    """The module; the test is skipped where it is absent."""
    path = _file()
    if path is None:
        pytest.skip(f"jax-privacy is not installed, and {FOLDER} names no folder with it")
    spec = importlib.util.spec_from_file_location("jax_privacy_auditing", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _file() -> Path | None:
    if os.environ.get(FOLDER):
        return Path(os.environ[FOLDER]) / "jax_privacy" / "auditing.py"
    spec = importlib.util.find_spec("jax_privacy")
    return None if spec is None or spec.origin is None else Path(spec.origin).with_name("auditing.py")
