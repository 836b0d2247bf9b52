"""Checks that requirements.lock agrees with pyproject.toml and with what is installed. Offline; `make lint` runs it.

pyproject.toml states ranges, which pip resolves. requirements.lock states the versions of one environment in which all
tests passed; `make lock` writes it. Installing exactly these: `PIP_CONSTRAINT=requirements.lock make test`.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCK_FILE = "requirements.lock"
NOT_LOCKED = ("vllm", "oracle")
"""Extras outside the lock: vllm is built for one kind of GPU, and the oracle of a few tests would bring JAX."""
DEPENDS_ON_BUILD = ("torch",)
"""Packages of which a build for another machine needs other packages in turn, such as those of CUDA."""
PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[0-9][0-9a-z.]*)", re.IGNORECASE)
WITHOUT_DEPENDENCIES = re.compile(r'pip install .*--no-deps "([^"]+)"')

Versions = Mapping[str, Version]


class BrokenLock(ValueError):
    """A line of the lock file is no `name==version`."""


def locked_versions(text: str) -> dict[str, Version]:
    """The version of each package in a lock file.

    Raises:
      BrokenLock: a line names anything else than a public version, such as a URL, a path or a local build.
    """
    versions: dict[str, Version] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        pin = PIN.fullmatch(line)
        if pin is None:
            raise BrokenLock(f"{LOCK_FILE}: {line!r} is not of the form name==version; run `make lock`")
        versions[canonicalize_name(pin["name"])] = Version(pin["version"])
    return versions


def declared_requirements(project: Mapping[str, Any]) -> list[Requirement]:
    """What the `project` table of pyproject.toml declares, without the extras of `NOT_LOCKED`."""
    extras = project["optional-dependencies"].items()
    lines = [line for name, extra in extras if name not in NOT_LOCKED for line in extra]
    return [Requirement(line) for line in dict.fromkeys([*project["dependencies"], *lines])]


def requirements_without_dependencies(makefile: str) -> list[Requirement]:
    """What the Makefile installs with `--no-deps`."""
    return [Requirement(line) for line in WITHOUT_DEPENDENCIES.findall(makefile)]


def problems_of(requirements: Iterable[Requirement], versions: Versions, place: str, remedy: str) -> list[str]:
    """A sentence for each requirement that applies here and is missing from `versions` or not met by them."""
    problems = []
    for requirement in requirements:
        version = versions.get(canonicalize_name(requirement.name))
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if version is None:
            problems.append(f"{place} lacks {requirement}; {remedy}")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{place} has {requirement.name} {version}, but {requirement} is required; {remedy}")
    return problems


def required_by(locked: Versions, installed: Versions) -> Iterator[Requirement]:
    """What packages require in turn, as far as they are installed in their locked version."""
    for name, version in locked.items():
        if installed.get(name) == version and name not in DEPENDS_ON_BUILD:
            yield from map(Requirement, metadata.requires(name) or [])


def installed_versions(names: Iterable[str]) -> dict[str, Version]:
    """The public versions of those packages that are installed: `2.9.0+cpu` counts as `2.9.0`."""
    found: dict[str, Version] = {}
    for name in names:
        try:
            found[name] = Version(Version(metadata.version(name)).public)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> int:
    """Print what does not agree, and return the exit status."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    alone = requirements_without_dependencies((ROOT / "Makefile").read_text())
    declared = [*declared_requirements(project), *alone]
    locked = locked_versions((ROOT / LOCK_FILE).read_text())
    installed = installed_versions(locked)
    with_dependencies = {name: locked[name] for name in locked if name not in {required.name for required in alone}}
    problems = [
        *problems_of(declared, locked, LOCK_FILE, "run `make lock`"),
        *problems_of(required_by(with_dependencies, installed), locked, LOCK_FILE, "run `make lock`"),
        *problems_of(declared, installed, "the environment", "run `make clean-venv` and then make again"),
    ]
    print("\n".join(problems) or f"{LOCK_FILE}: {len(locked)} packages, {len(declared)} of them declared")
    others = [f"{name} {installed[name]}" for name in locked if installed.get(name, locked[name]) != locked[name]]
    if others:
        print(f"installed in another version than locked: {', '.join(others)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
