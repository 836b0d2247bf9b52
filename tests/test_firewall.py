"""Nothing private leaves: after full, interrupted and failed runs, no secret is anywhere but in the private zone.

Every run happens in a process of its own, in a folder that holds all it may write: data, Dagster home, temporary files
and caches. What the runs print, store, serve over HTTP and call files is searched for what the users wrote, for their
names, and for what is computed from a row alone: ids, token ids, vectors.
"""

import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from dp_assets.artifacts import TRAIN_SPLIT, PrivateTable
from dp_assets.privacy.labels import Label
from dp_assets.privacy.metadata import PRIVATE_KEYS
from resources.private.private_step import CONSTANT_MESSAGE
from resources.storage.allowed_files import unexpected_files
from resources.storage.artifact_files import read_artifact
from resources.storage.stores import artifact_folder
from tests.cli_pipeline import CliPipeline
from tests.cli_scripts import ATTEMPTS, MARK, PRIVATE_STEPS, SAYINGS
from tests.leaks import Needle, files_holding, needles_in
from tests.tiny_pipeline import PARTITION

pytestmark = pytest.mark.slow

NUM_SECRETS = 200
LETTERS = "abcdefghijkmnopqrstuvwxyz"
PRIVATE_ASSETS = ("real_instructions", "real_embeddings", "restricted_report")
DAGSTER_TAGS = re.compile(
    r"dagster/(code_version|data_version(_is_user_provided)?|partition/\w+|input_(data_version|event_pointer)/\w+)"
)
SERVER_SECONDS = 90


def secrets() -> list[str]:
    """Words that occur nowhere else, one of them a user's."""
    choose = random.Random(11)
    return [f"zqé{number:03d}{''.join(choose.choices(LETTERS, k=6))}" for number in range(NUM_SECRETS)]


def users() -> list[str]:
    return [f"user of {secret[::-1]}" for secret in secrets()]


def add_rows(corpus: Path, texts: list[str], names: list[str]) -> None:
    pl.concat([pl.read_parquet(corpus), pl.DataFrame({"prompt": texts, "user": names})]).write_parquet(corpus)


@contextmanager
def recording_proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of an HTTP proxy that serves nobody, and the requests that reached it."""
    requests: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            requests.append(self.rfile.readline().decode(errors="replace"))

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def proxied(address: str) -> dict[str, str]:
    return {
        name: address for scheme in ("HTTP", "HTTPS", "ALL") for name in (f"{scheme}_PROXY", f"{scheme}_proxy".lower())
    }


@dataclass
class ScriptRun:
    """A pipeline after a script, with what the script printed and noted."""

    pipeline: CliPipeline
    printed: str
    seen: dict[str, Any]
    requests: list[str]

    @staticmethod
    def of(pipeline: CliPipeline, script: str, *, umask: int) -> "ScriptRun":
        with recording_proxy() as (address, requests):
            ended = pipeline.run_script(script, umask=umask, **proxied(address))
        assert ended.returncode == 0, ended.stderr
        seen = json.loads((pipeline.folder / "record" / "seen.json").read_text())
        return ScriptRun(pipeline, ended.stdout + ended.stderr, seen, requests)

    def private_rows(self, asset: str) -> pl.DataFrame:
        folder = artifact_folder(self.pipeline.home, [asset], Label.PRIVATE, None)
        return pl.read_parquet(folder / "part-*.parquet")

    @cached_property
    def needles(self) -> list[Needle]:
        """What nobody outside may see: texts, names, ids, token ids and vectors of every user with a secret."""
        rows = self.private_rows("real_instructions").filter(pl.col("text").str.contains_any(secrets()))
        vectors = self.private_rows("real_embeddings").join(rows, on=["unit_id", "instruction_id"], how="semi")
        token_ids = [np.array(ids) for text, ids in self.seen["tokenised"] if text in set(rows["text"])]
        return [
            *(*secrets(), *users()),
            *(part for column in ("unit_id", "instruction_id") for part in rows[column].str.split(":").list.last()),
            *(vector.tobytes() for vector in vectors["vector"].to_numpy()),
            *(ids.astype(dtype).tobytes() for ids in token_ids for dtype in (np.int32, np.int64)),
        ]

    @property
    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.pipeline.dagster_home))


def leaks(pipeline: CliPipeline, *needles: Needle) -> set[Path]:
    return {path for folder in pipeline.outside for path in files_holding_in(folder, *needles)}


def files_holding_in(path: Path, *needles: Needle) -> set[Path]:
    if path.is_dir():
        return files_holding(path, *needles)
    return {path} if needles_in(path.read_bytes(), *needles) else set()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> ScriptRun:
    """A pipeline with 200 secrets after an interrupted and a full run, under no umask."""
    pipeline = CliPipeline(tmp_path_factory.mktemp("lived"), tiny_model_folder)
    add_rows(pipeline.corpus_file, [f"why {secret}" for secret in secrets()], users())
    ran = ScriptRun.of(pipeline, "recorded", umask=0)
    assert ran.seen["codes"] == [0, 130, 0, 0]
    return ran


def test_the_secrets_reached_training_batches_and_votes(lived: ScriptRun, tiny_model_folder: Path) -> None:
    from transformers import AutoTokenizer

    from dp_assets.generation.fitness import PUBLIC_TEXTS
    from dp_assets.generation.token_rows import PUBLIC_TEXT

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    rows = lived.private_rows("real_instructions").filter(pl.col("text").str.contains_any(secrets()))
    training = rows.filter(pl.col("split") == TRAIN_SPLIT)
    assert rows.height == NUM_SECRETS
    assert training.height > NUM_SECRETS / 2
    written = [tokenizer.decode(ids) for batch in lived.seen["batches"] for ids in batch]
    drawn = {secret for secret in secrets() if any(secret in text for text in written)}
    public = (PUBLIC_TEXT, *PUBLIC_TEXTS)
    tokenized = {tuple(ids) for text, ids in lived.seen["tokenised"] if not text.startswith(public)}
    assert tokenized == {tuple(ids) for batch in lived.seen["batches"] for ids in batch}
    # Each is drawn with probability 0.3 in each of four draws: 76% are expected, and under 50% has odds of 1 in 10^11.
    assert len(drawn) > training.height / 2
    assert set(training["instruction_id"]) <= set(lived.seen["voters"][-1])


def test_no_secret_is_in_any_file_outside_the_private_zone(lived: ScriptRun) -> None:
    assert len(lived.needles) > 5 * NUM_SECRETS
    assert files_holding(lived.pipeline.home / "private", *secrets())
    assert leaks(lived.pipeline, *lived.needles) == set()


def test_no_secret_is_printed(lived: ScriptRun) -> None:
    assert "training the generator with DP-SGD: began" in lived.printed
    assert needles_in(lived.printed.encode(), *lived.needles) == set()


def test_the_run_talks_to_nobody_and_writes_nowhere_else(lived: ScriptRun) -> None:
    assert lived.requests == []
    assert lived.seen["talks"] == []
    assert lived.seen["files"] == []


def test_that_resumes_stayed_within_the_spare_steps_is_stated_and_not_how_many_there_were(lived: ScriptRun) -> None:
    folder = artifact_folder(lived.pipeline.home, ["dp_generator"], Label.MECHANISM, PARTITION)
    evidence = read_artifact(folder).record["evidence"]  # type: ignore[union-attr]
    assert evidence["continuations"] == "within the spare steps"


def test_released_folders_hold_allowed_files_only(lived: ScriptRun) -> None:
    released = lived.pipeline.home / "released"
    folders = [*released.glob("artifacts/*/*/*"), *released.glob("releases/*/*")]
    assert len(folders) == 14 + 2
    assert [path for folder in folders for path in unexpected_files(folder, type(read_artifact(folder)))] == []
    top = {path.name for path in released.iterdir()}
    assert top == {"artifacts", "releases", "samples", "spool", "ledger_anchor.json", "catalog.duckdb"}
    known = {path for folder in folders for path in (folder, *folder.parents)}
    unknown = [path for path in released.rglob("*") if path.is_dir() and path not in known]
    kept_draws = {released / "spool", released / "samples"}
    assert [path for path in unknown if not kept_draws & {path, *path.parents}] == []
    spooled = [path for path in (released / "spool").rglob("*") if path.is_file()]
    assert [path for path in spooled if not re.fullmatch(r"samples-\d{9}-\d+\.parquet", path.name)] == []
    assert {path.relative_to(released / "spool").parts[0] for path in spooled} == {"synthetic_pool"}


def test_stored_events_of_private_assets_hold_allowed_keys_only(lived: ScriptRun) -> None:
    with lived.instance as instance:
        for asset in PRIVATE_ASSETS:
            (record,) = instance.fetch_materializations(dg.AssetKey(asset), limit=5).records
            materialization = record.asset_materialization
            assert materialization is not None
            assert set(materialization.metadata) <= PRIVATE_KEYS
            assert [tag for tag in materialization.tags or {} if not DAGSTER_TAGS.fullmatch(tag)] == []


def test_outputs_of_private_steps_are_described_by_allowed_keys_only(lived: ScriptRun) -> None:
    """A step's output is an event of its own, with its metadata again."""
    with lived.instance as instance:
        events = [entry.dagster_event for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
    described = [event for event in events if event and event.step_key in PRIVATE_ASSETS and event.is_successful_output]
    assert {event.step_key for event in described} == set(PRIVATE_ASSETS)
    assert {key for event in described for key in event.step_output_data.metadata} <= PRIVATE_KEYS


def modes(folder: Path) -> set[tuple[str, int]]:
    paths = [folder, *folder.rglob("*")]
    return {("folder" if path.is_dir() else "file", path.stat().st_mode & 0o7777) for path in paths}


def test_everything_private_is_closed_to_others_without_a_umask(lived: ScriptRun) -> None:
    assert modes(lived.pipeline.home / "private") == {("folder", 0o700), ("file", 0o600)}


@contextmanager
def webserver(pipeline: CliPipeline) -> Iterator[str]:
    """The address of Dagster's own server on the pipeline's instance; it ends after its time in any case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("dagster-webserver")
    command = [program, "--empty-workspace", "--read-only", "-h", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(
        ["timeout", "--kill-after=5", str(SERVER_SECONDS), *map(str, command)],
        cwd=pipeline.folder / "work",
        env={**pipeline.sandbox, **proxied("http://127.0.0.1:9")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGTERM)


class Client:
    """Asks a server, and keeps all that it answered."""

    def __init__(self, address: str) -> None:
        self._address, self.answers = address, []
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def get(self, path: str) -> bytes:
        with self._open(f"{self._address}{path}", timeout=30) as answer:
            self.answers.append(body := bytes(answer.read()))
        return body

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self._address}/graphql", body, {"Content-Type": "application/json"})
        with self._open(request, timeout=30) as answer:
            self.answers.append(content := bytes(answer.read()))
        result = json.loads(content)
        assert "errors" not in result, result
        return result["data"]

    def wait(self) -> None:
        deadline = time.monotonic() + SERVER_SECONDS / 2
        while True:
            try:
                self.get("/server_info")
                return
            except urllib.error.URLError:
                assert time.monotonic() < deadline
                time.sleep(0.2)


METADATA = """metadataEntries { label description __typename ... on TextMetadataEntry { text }
    ... on MarkdownMetadataEntry { mdStr } ... on JsonMetadataEntry { jsonString }
    ... on FloatMetadataEntry { floatValue } ... on IntMetadataEntry { intRepr } ... on PathMetadataEntry { path } }"""
ERROR = "error { message stack errorChain { error { message stack } } causes { message stack } }"
RUNS = "{ runsOrError { ... on Runs { results { runId status runConfigYaml tags { key value } } } } }"
EVENTS = f"""query($run: ID!, $after: String) {{ logsForRun(runId: $run, afterCursor: $after) {{
    ... on EventConnection {{ cursor hasMore events {{ __typename ... on MessageEvent {{ message stepKey eventType }}
        ... on DisplayableEvent {{ label description {METADATA} }}
        ... on ExecutionStepFailureEvent {{ {ERROR} failureMetadata {{ {METADATA} }} }}
        ... on RunFailureEvent {{ {ERROR} }}
        ... on LogsCapturedEvent {{ fileKey }} }} }} }} }}"""
OUTPUT = "query($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"
ASSETS = f"""{{ assetsOrError {{ ... on AssetConnection {{ nodes {{ key {{ path }}
    assetMaterializations {{ runId partition tags {{ key value }} {METADATA} }} }} }} }} }}"""


def read_everything(client: Client) -> Counter[str]:
    """Ask for runs, events, materializations and output; returns how much of each there was."""
    counts: Counter[str] = Counter()
    for run in client.ask(RUNS)["runsOrError"]["results"]:
        counts["runs"] += 1
        for event in events_of(client, run["runId"]):
            counts[event["__typename"]] += 1
            if event["__typename"] == "LogsCapturedEvent":
                key = [run["runId"], "compute_logs", event["fileKey"]]
                output = client.ask(OUTPUT, key=key)["capturedLogs"]
                counts["characters of output"] += len(output["stdout"] or "") + len(output["stderr"] or "")
    for asset in client.ask(ASSETS)["assetsOrError"]["nodes"]:
        counts["materializations"] += len(asset["assetMaterializations"])
    return counts


def events_of(client: Client, run_id: str) -> Iterator[dict[str, Any]]:
    cursor, has_more = None, True
    while has_more:
        page = client.ask(EVENTS, run=run_id, after=cursor)["logsForRun"]
        cursor, has_more = page["cursor"], page["hasMore"]
        yield from page["events"]


def test_no_secret_is_served_over_http(lived: ScriptRun) -> None:
    with webserver(lived.pipeline) as address:
        client = Client(address)
        client.wait()
        counts = read_everything(client)
    assert counts["runs"] == 2
    assert counts["materializations"] == 17
    assert counts["ExecutionStepFailureEvent"] == 1
    assert counts["characters of output"] > 100
    assert needles_in(b"\n".join(client.answers), *lived.needles) == set()


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> ScriptRun:
    """A pipeline in which every private step failed in several ways, one after the other."""
    pipeline = CliPipeline(tmp_path_factory.mktemp("broken"), tiny_model_folder)
    return ScriptRun.of(pipeline, "broken", umask=0)


ATTEMPTED = [(step, way) for step, ways in ATTEMPTS.items() for way in ways]


def test_every_forced_failure_ends_the_run_with_the_constant_message(broken: ScriptRun) -> None:
    codes = {f"{step} {way}": 130 if way == "interrupt" else 1 for step, way in ATTEMPTED}
    assert broken.seen["codes"] == {"register": 0} | codes
    failed = [PRIVATE_STEPS[step][0] for step, way in ATTEMPTED if way != "interrupt"]
    reasons = re.findall(r"^(\w+) failed: (.*)$", broken.printed, re.MULTILINE)
    assert [asset for asset, _ in reasons] == failed
    assert all(reason.endswith(f"PrivateStepFailed: {CONSTANT_MESSAGE}") for _, reason in reasons)


def test_what_a_failing_step_quotes_prints_and_logs_leaves_no_trace_outside(broken: ScriptRun) -> None:
    assert needles_in(broken.printed.encode(), MARK) == set()
    assert leaks(broken.pipeline, MARK) == set()
    assert broken.requests == []


def test_all_that_a_failing_step_says_is_in_the_private_zone(broken: ScriptRun) -> None:
    log = (broken.pipeline.home / "private/log/errors.log").read_text()
    missing = [
        f"{step} {way} {saying}"
        for step, way in ATTEMPTED
        for saying in (*SAYINGS, *(() if way == "interrupt" else ("error",)))
        if f"{MARK} {step} {way} {saying}" not in log
    ]
    assert missing == []
    assert all(f"{MARK} {step} chained {part}" in log for step in PRIVATE_STEPS for part in ("cause", "note"))
    temporary = files_holding(broken.pipeline.home / "private/tmp", MARK)
    assert len(temporary) == len(ATTEMPTED)


def test_everything_private_is_closed_to_others_after_failures(broken: ScriptRun) -> None:
    assert modes(broken.pipeline.home / "private") == {("folder", 0o700), ("file", 0o600)}


@pytest.fixture(scope="module")
def neighbors(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> list[ScriptRun]:
    """Two pipelines whose corpora differ in one user, with the same key and the same randomness."""
    both = []
    for name, texts in (("without", []), ("with", ["what is it that i alone ask?", "why do i ask it again?"])):
        pipeline = CliPipeline(tmp_path_factory.mktemp(name), tiny_model_folder)
        add_rows(pipeline.corpus_file, texts, ["one user more"] * len(texts))
        both.append(pipeline)
        write_key(pipeline)
    return [ScriptRun.of(pipeline, "replayed", umask=0o022) for pipeline in both]


def write_key(pipeline: CliPipeline) -> None:
    key = pipeline.home / "private/ledger/key"
    key.parent.mkdir(mode=0o700, parents=True)
    key.touch(mode=0o600)
    key.write_bytes(bytes(range(32)))


# What names a run, and what counts the rows of a release, which noise has touched.
NORMALIZED = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<run>"),
    (r"[0-9a-f]{32,64}", "<id>"),
    (r'"dp_instructions/profile": "[0-9a-f]+"', "<profile>"),  # it names the folder of the corpus
    (r"compute_logs/[a-z]{8}\.", "compute_logs/<step>."),
    (r"\b\d+ s\b", "<time> s"),
    (r"\d+/\d+ texts", "<rows> texts"),
)


def normalized(text: str, pipeline: CliPipeline) -> str:
    text = text.replace(str(pipeline.folder), "<folder>")
    for pattern, name in NORMALIZED:
        text = re.sub(pattern, name, text)
    return text


def file_names(pipeline: CliPipeline) -> list[str]:
    """Without the tags of shards, which are digests of the released content."""
    paths = [path for folder in pipeline.outside if folder.is_dir() for path in folder.rglob("*")]
    return sorted(re.sub(r"(part-\d+)-[0-9a-f]{16}", r"\1", normalized(str(path), pipeline)) for path in paths)


def records(ran: ScriptRun) -> list[tuple[str, str | None, list[str], str]]:
    """Type, step and metadata of every event; of assets that read private rows the values as well."""
    with ran.instance as instance:
        (run,) = instance.get_runs()
        entries = instance.all_logs(run.run_id)
    return [record(entry, ran.pipeline) for entry in entries if entry.dagster_event is not None]


def record(entry: dg.EventLogEntry, pipeline: CliPipeline) -> tuple[str, str | None, list[str], str]:
    event = entry.get_dagster_event()
    details = getattr(event.event_specific_data, "materialization", event.event_specific_data)
    metadata = getattr(details, "metadata", None) or {}
    reads_rows = event.step_key in (*PRIVATE_ASSETS, "dp_generator", "dp_histogram")
    values = normalized(json.dumps({key: str(metadata[key].value) for key in metadata}), pipeline) if reads_rows else ""
    return event.event_type_value, event.step_key, sorted(metadata), values


def test_neighboring_corpora_differ_in_one_unit(neighbors: list[ScriptRun]) -> None:
    without, with_one = (set(ran.private_rows("real_instructions")["unit_id"]) for ran in neighbors)
    assert without < with_one
    (newcomer,) = with_one - without
    rows = neighbors[1].private_rows("real_embeddings")  # of training rows, which both mechanisms read
    assert rows.filter(unit_id=newcomer).height == 2


def test_runs_on_neighboring_corpora_print_the_same(neighbors: list[ScriptRun]) -> None:
    without, with_one = (normalized(ran.printed, ran.pipeline) for ran in neighbors)
    assert "training the generator with DP-SGD: began" in without
    assert with_one == without


def test_runs_on_neighboring_corpora_record_the_same(neighbors: list[ScriptRun]) -> None:
    without, with_one = (records(ran) for ran in neighbors)
    assert {"ASSET_MATERIALIZATION", "STEP_OUTPUT", "ASSET_CHECK_EVALUATION"} <= {kind for kind, *_ in without}
    assert with_one == without


def test_runs_on_neighboring_corpora_draw_and_name_files_alike(neighbors: list[ScriptRun]) -> None:
    without, with_one = neighbors
    assert with_one.seen == without.seen
    assert file_names(with_one.pipeline) == file_names(without.pipeline)
    assert any("released/artifacts/dp_histogram" in name for name in file_names(without.pipeline))


def test_everything_private_is_closed_to_others_under_the_usual_umask(neighbors: list[ScriptRun]) -> None:
    for ran in neighbors:
        assert modes(ran.pipeline.home / "private") == {("folder", 0o700), ("file", 0o600)}


def test_a_private_table_says_nothing_of_its_rows() -> None:
    rows = pl.LazyFrame({"text": [MARK] * 3})
    table = PrivateTable(rows, corpus_id="corpus", snapshot="1")
    assert not hasattr(table, "__dict__")
    for said in (repr(table), str(table), f"{table}", f"{[table]}"):
        assert MARK not in said
        assert not re.search(r"\d", said)
