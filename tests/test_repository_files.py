"""What hosts of repositories and tools read beside the code agrees with the code: workflow, hooks, forms, citation."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FORMS = sorted(path.name for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def parsed(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


JOBS = parsed(".github/workflows/ci.yml")["jobs"]


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def python_versions(job: dict[str, Any]) -> Iterator[str]:
    for step in job["steps"]:
        version = step.get("with", {}).get("python-version")
        if version == "${{ matrix.python-version }}":
            yield from job["strategy"]["matrix"]["python-version"]
        elif version is not None:
            yield version


@pytest.mark.parametrize("job", JOBS)
def test_each_job_of_the_workflow_calls_one_target_of_the_makefile(job: str) -> None:
    (command,) = commands(JOBS[job])
    make, target = command.split(" ")
    assert make == "make"
    assert target in TARGETS


def test_the_workflow_lints_and_runs_the_fast_tests_on_every_python_that_is_supported() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    versions = {f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported}
    assert commands(JOBS["lint"]) == ["make lint"]
    assert commands(JOBS["test"]) == ["make test-fast"]
    assert set(python_versions(JOBS["test"])) == versions
    assert set().union(*map(python_versions, JOBS.values())) == versions


def test_a_job_runs_with_exactly_the_locked_versions() -> None:
    assert (ROOT / JOBS["locked"]["env"]["PIP_CONSTRAINT"]).is_file()


def test_hooks_before_a_commit_are_local_and_call_what_make_calls() -> None:
    (repository,) = parsed(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lint is not None
    for hook in repository["hooks"]:
        tool, *arguments = hook["entry"].split()
        if tool == "make":
            assert set(arguments) <= TARGETS
        else:
            assert f"{tool.replace('.venv/bin', '$(BIN)')} {arguments[0]} " in lint[1]


@pytest.mark.parametrize("name", FORMS)
def test_a_form_for_issues_has_what_is_needed_to_be_shown(name: str) -> None:
    form = parsed(f".github/ISSUE_TEMPLATE/{name}")
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert fields
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def test_the_citation_names_this_version_and_license() -> None:
    citation = parsed("CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["title"] == PROJECT["name"]


def test_the_security_policy_supports_this_version_and_links_lead_somewhere() -> None:
    policy = (ROOT / "SECURITY.md").read_text()
    series = PROJECT["version"].rpartition(".")[0]
    assert f"| {series}.x | yes |" in policy
    assert [link for link in re.findall(r"\]\(([^)#:]+)\)", policy) if not (ROOT / link).exists()] == []
