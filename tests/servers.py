"""Dagster's webserver and daemon over a pipeline, as processes that end with the test that started them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dp_assets.pipeline.running import DAGSTER_HOME
from tests.cli_pipeline import ROOT, CliPipeline

SECONDS_TO_START, SECONDS_TO_END = 120, 20
ENVIRONMENTS = Path("/proc/self/environ")


class Server:
    """A running webserver, asked over GraphQL."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
            return data

    def wait(self) -> None:
        """Return once it answers."""
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                self.ask("{ version }")
                return
            except OSError:
                assert time.monotonic() < deadline, "the webserver never answered"
                time.sleep(0.5)


@contextmanager
def dagster_over(pipeline: CliPipeline) -> Iterator[Server]:
    """Webserver and daemon over a pipeline. Whatever they started ends with them."""
    assert pipeline.command("home").returncode == 0
    port = free_port()
    serve = ("dagster-webserver", "-h", "127.0.0.1", "-p", str(port))
    try:
        for command in (serve, ("dagster-daemon", "run")):
            _start(pipeline, *command)
        server = Server(port)
        server.wait()
        yield server
    finally:
        end_processes_on(pipeline.dagster_home)


def _start(pipeline: CliPipeline, name: str, *arguments: str) -> None:
    with (pipeline.folder / f"{name}.log").open("w") as log:
        subprocess.Popen(
            [Path(sys.executable).with_name(name), *arguments, "-w", "workspace.yaml"],
            cwd=ROOT,
            env=os.environ | pipeline.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def end_processes_on(dagster_home: Path | str) -> None:
    """End every process that works on a Dagster home: code servers and runs outlive their parents."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + SECONDS_TO_END
        for process in processes_on(dagster_home):
            with suppress(ProcessLookupError):
                os.kill(process, sign)
        while processes_on(dagster_home) and time.monotonic() < deadline:
            time.sleep(0.2)
    assert not processes_on(dagster_home)


def processes_on(dagster_home: Path | str) -> list[int]:
    """The ids of the living processes that were given a Dagster home, this one excepted."""
    wanted = f"{DAGSTER_HOME}={dagster_home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            given = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
        if wanted in given and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found
