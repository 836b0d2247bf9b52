"""`dagster dev` on a catalog, for as long as a test lasts: webserver, daemon and code server.

Its helpers run in process sessions of their own and outlive it, so they are found by the Dagster home in their
environment, which nobody else works on, and ended by their ids.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dp_assets.pipeline.running import DAGSTER_HOME
from tests.cli_pipeline import ROOT
from tests.servers import end_processes_on, free_port

SECONDS_TO_START, SECONDS_TO_STOP = 90, 10


class DagsterUi:
    """The address of a running UI, and its GraphQL."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.address}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
            return data

    @property
    def is_ready(self) -> bool:
        """Whether the code location is loaded."""
        try:
            found = self.query("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return bool(found["repositoriesOrError"].get("nodes"))


@contextmanager
def dagster_ui(environment: Mapping[str, str], log: Path) -> Iterator[DagsterUi]:
    """The UI of the catalog that `environment` names, ended with all it started. What it prints goes to `log`."""
    ui = DagsterUi(free_port())
    command = [Path(sys.executable).with_name("dagster"), "dev", "-w", "workspace.yaml", "-h", "127.0.0.1"]
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "-p", ui.address.rsplit(":", 1)[1]],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(ui, server, log)
        yield ui
    finally:
        _end(server, environment[DAGSTER_HOME])


def _wait_until_ready(ui: DagsterUi, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not ui.is_ready:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"the UI did not start: {log.read_text()}"
        time.sleep(0.5)


def _end(server: subprocess.Popen[bytes], dagster_home: str) -> None:
    server.send_signal(signal.SIGINT)
    try:
        server.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    end_processes_on(dagster_home)
