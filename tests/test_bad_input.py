"""Bad input gets one message that names the setting and the remedy, before anything is spent, and loses nothing.

Each test runs a command or an asset as people do. Mistakes in the settings of endpoints are tested beside those.
"""

import errno
import json
import resource
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from dp_assets.artifacts import EMBEDDER, Adapter, Document, PrivateTable, Table
from dp_assets.assets.annotated_instructions import annotated_instructions
from dp_assets.assets.dp_generator import dp_generator
from dp_assets.assets.dp_histogram import dp_histogram
from dp_assets.assets.filtered_instructions import filtered_instructions
from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.assets.synthetic_pool import synthetic_pool
from dp_assets.cli import app
from dp_assets.definitions import ALL_ASSETS
from dp_assets.privacy.labels import Label, Zone
from dp_assets.settings.named import load_profile
from dp_assets.stages import preparation as preparation_module
from resources.build import build_resources
from resources.ledger.ledger_resource import Ledger
from resources.models.loaders import Embedder
from resources.private.private_step import CONSTANT_MESSAGE, log_file
from resources.storage import artifact_files, stores
from resources.storage.artifact_files import read_artifact
from resources.storage.data_folder import VERSION, VERSION_FILE, OtherDataFolder
from resources.storage.room import NoRoom
from resources.storage.stores import ReleaseStore, artifact_folder
from tests.cli.pipelines import pipeline_of
from tests.cli_pipeline import CliPipeline
from tests.disk_pipeline import DiskPipeline, failure_of
from tests.tiny_pipeline import PARTITION, write_corpus
from tests.toy_graph import definitions as toys

NO_MODEL = Path("no model is loaded here")
SMALL_FILE = 4096


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliPipeline]:
    with pipeline_of(tmp_path, NO_MODEL, monkeypatch) as pipeline:
        yield pipeline


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(result: Result, *words: str, code: int = 1) -> None:
    """One message without a traceback, which holds these words."""
    assert result.exit_code == code, result.output
    assert [line for line in result.stderr.splitlines() if line.startswith("refused: ")]
    assert "Traceback" not in result.output
    assert [word for word in words if word not in result.stderr] == []


class Site(DiskPipeline):
    """A pipeline into which bins can be put."""

    def store_bins(self, *, dimension: int, embedder: str | None = None) -> None:
        centroids = np.eye(self.profile.votes.num_bins, dimension, dtype=np.float32)
        rows = pl.LazyFrame({"bin_id": range(len(centroids)), "centroid": centroids})
        self.put("synthetic_bins", Table(rows, (), {EMBEDDER: embedder or self.profile.embedder}))


def source_with(columns: Mapping[str, str], path: Path) -> dict[str, Any]:
    return {"source": {"kind": "file", "path": str(path), "columns": dict(columns)}}


NAMED = {"text": "prompt", "user_id": "user"}


@pytest.mark.parametrize(
    ("columns", "rows", "words"),
    [
        ({**NAMED, "text": "question"}, None, ("source.columns", "question", "correct the mapping")),
        (NAMED, {"prompt": [1, 2], "user": ["a", "b"]}, ("prompt", "mapped to text", "must hold strings")),
    ],
    ids=["missing column", "wrong type"],
)
def test_a_column_that_is_missing_or_no_text_is_named(
    tmp_path: Path, columns: dict[str, str], rows: dict[str, Any] | None, words: tuple[str, ...]
) -> None:
    site = Site(tmp_path, NO_MODEL, corpus=source_with(columns, tmp_path / "corpus.parquet"))
    if rows is not None:
        pl.DataFrame(rows).write_parquet(site.corpus_file)
    asset, message = failure_of(site.materialize(real_instructions))
    assert asset == "real_instructions"
    assert [word for word in words if word not in message] == []
    assert site.charges == []


@pytest.mark.parametrize(
    "spoil",
    [lambda path: path.write_bytes(b"no Parquet"), lambda path: path.unlink()],
    ids=["another format", "no file"],
)
def test_a_file_that_cannot_be_read_is_named_and_the_stored_table_stays(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    site = Site(tmp_path, NO_MODEL)
    assert site.materialize(real_instructions).success
    stored = site.home / "private/artifacts/real_instructions"
    before = {path.name: path.read_bytes() for path in stored.iterdir()}
    spoil(site.corpus_file)
    _, message = failure_of(site.materialize(real_instructions))
    assert f"source.path {site.corpus_file}" in message
    assert {path.name: path.read_bytes() for path in stored.iterdir()} == before
    assert site.charges == []


def test_an_unknown_partition_is_refused_with_the_known_ones(pipeline: CliPipeline) -> None:
    refused(invoke("run", "all|eps-9"), "no level 'eps-9'", "eps-8", code=2)
    assert not pipeline.home.exists()


@pytest.mark.parametrize("model", ["folder", "nobody/has-this"], ids=["no model folder", "not reachable"])
@pytest.mark.parametrize("setting", ["language_model", "embedder"])
def test_a_model_that_cannot_be_loaded_is_found_before_the_first_charge(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, setting: str, model: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # no network: without this the hub is tried for a minute
    (tmp_path / "folder").mkdir()
    name = str(tmp_path / "folder") if model == "folder" else model
    site = Site(tmp_path, tiny_model_folder, **{setting: name})
    asset, message = failure_of(site.materialize(real_instructions, dp_generator))
    assert asset == "dp_generator"
    assert f"{setting} is {name!r}" in message
    assert "'packaged'" in message
    assert site.charges == []


@pytest.mark.slow
def test_from_the_command_line_a_model_that_cannot_be_loaded_is_one_message(tmp_path: Path) -> None:
    pipeline = CliPipeline(tmp_path, tmp_path / "nothing")
    assert pipeline.command("register").returncode == 0
    result = pipeline.command("run", PARTITION)
    assert result.returncode == 1
    assert f"language_model is '{tmp_path / 'nothing'}'" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(pipeline.ledger.state().charges) == []


def test_an_embedder_that_cannot_be_loaded_is_named_before_rows_are_embedded(tmp_path: Path) -> None:
    site = Site(tmp_path, NO_MODEL, embedder=str(tmp_path / "nothing"))
    assert site.materialize(real_instructions).success
    _, message = failure_of(site.materialize(real_embeddings))
    assert "embedder is" in message


def test_a_stage_far_below_that_cannot_train_the_model_is_found_before_the_first_charge(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    site = Site(tmp_path, tiny_model_folder, reward={"target_modules": ["q_proj", "v_prj"]})
    asset, message = failure_of(site.materialize(*ALL_ASSETS))
    assert asset == "dp_generator"
    assert "reward.target_modules names v_prj" in message
    assert site.charges == []
    assert site.materialize(real_instructions, dp_generator).success  # a run without a reward model is not concerned


def test_a_model_of_experts_is_found_before_the_first_charge(tmp_path: Path, tiny_model_folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    llama = AutoConfig.from_pretrained(tiny_model_folder).to_dict()
    sizes = {name: llama[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    config = AutoConfig.for_model("mixtral", intermediate_size=64, num_key_value_heads=2, num_local_experts=2, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "experts")
    AutoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(tmp_path / "experts")
    site = Site(tmp_path, tmp_path / "experts")
    asset, message = failure_of(site.materialize(real_instructions, dp_generator))
    assert asset == "dp_generator"
    assert "choose a dense model" in message
    assert CONSTANT_MESSAGE not in message
    assert site.charges == []


def test_a_layer_that_the_model_lacks_is_found_before_the_first_charge(tmp_path: Path, tiny_model_folder: Path) -> None:
    site = Site(tmp_path, tiny_model_folder, generator={"target_modules": ["q_proj", "v_prj"]})
    _, message = failure_of(site.materialize(real_instructions, dp_generator))
    assert "generator.target_modules names v_prj" in message
    assert "v_proj" in message
    assert site.charges == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[corpus]\ndelta = 2", ("corpus.delta: must be less than 1, not 2",)),
        ("[corpus]\ndelta = 0", ("corpus.delta: must be greater than 0",)),
        ("[corpus]\nbudget_epsilon = -1", ("corpus.budget_epsilon: must be greater than 0",)),
        ("[corpus]\nbudget_epsilon = inf", ("corpus.budget_epsilon: must be a finite number",)),
        ('[corpus]\nplanned_levels = ["eps-0"]', ("corpus.planned_levels", "'eps-2.86'")),
        ('[corpus]\nplanned_levels = ["eps-inf"]', ("corpus.planned_levels", "'eps-2.86'")),
        ("[votes]\nnoise_stddev = 0.1", ("votes.noise_stddev", "raise")),
        ("[corpus]\nbudget_epsilon = 1.0", ("corpus.planned_levels", "budget")),
        ("[votes]\nnum_bins = 1000", ("votes.num_bins", "sampling.num_samples")),
        ("[selection]\ntarget_size = 100000", ("selection.target_size", "sampling.num_samples")),
        ("[rlhf]\nprompts_per_step = 301", ("rlhf.prompts_per_step", "selection.target_size")),
    ],
)
def test_settings_out_of_range_or_that_cannot_work_are_refused_before_anything_is_registered(
    pipeline: CliPipeline, text: str, words: tuple[str, ...]
) -> None:
    pipeline.profile_file.write_text(text)
    refused(invoke("register"), *words)
    assert pipeline.ledger.state().registrations == {}


def test_a_pool_of_no_samples_is_refused_and_the_former_pool_stays(tmp_path: Path) -> None:
    site = Site(tmp_path, NO_MODEL)
    site.put("dp_generator", Adapter({"weight": np.zeros(1, np.float32)}, {"peft_type": "LORA"}, "tiny"))
    former = site.put("synthetic_pool", Table(pl.LazyFrame({"text": ["why?"]})))
    result = dg.materialize(
        ALL_ASSETS,
        selection=[synthetic_pool],
        partition_key=PARTITION,
        resources=site.resources,
        run_config={"ops": {"synthetic_pool": {"config": {"num_samples": 0}}}},
        raise_on_error=False,
    )
    _, message = failure_of(result)
    assert "num_samples" in message
    assert "greater than 0" in message
    assert rows_of(former) == {"text": ["why?"]}


def test_an_asset_whose_upstream_was_not_made_names_it_and_its_partition(tmp_path: Path) -> None:
    site = Site(tmp_path, NO_MODEL)
    _, message = failure_of(site.materialize(synthetic_pool))
    assert f"dp_generator was not made yet for {PARTITION}, or was deleted; materialize it first" in message
    _, message = failure_of(site.materialize(real_embeddings))
    assert "real_instructions was not made yet, or was deleted; materialize it first" in message


def test_bins_of_another_embedder_are_found_before_the_charge(tmp_path: Path) -> None:
    site = Site(tmp_path, NO_MODEL)
    assert site.materialize(real_instructions, real_embeddings).success
    site.store_bins(dimension=3)
    _, message = failure_of(site.materialize(dp_histogram))
    assert f"({site.resources['embedder'].dimension} numbers each)" in message
    assert "(3)" in message
    assert "`embedder`" in message
    assert site.charges == []


def test_bins_of_another_embedder_of_equal_length_are_found_before_the_charge(tmp_path: Path) -> None:
    site = Site(tmp_path, NO_MODEL)
    assert site.materialize(real_instructions, real_embeddings).success
    site.store_bins(dimension=site.resources["embedder"].dimension, embedder="some/other-embedder")
    _, message = failure_of(site.materialize(dp_histogram))
    assert f"the real vectors are of {site.profile.embedder}" in message
    assert "the bins of some/other-embedder" in message
    assert "materialize real_embeddings, synthetic_embeddings and synthetic_bins again" in message
    assert site.charges == []


def test_vectors_of_another_embedder_than_the_configured_one_are_found_before_the_charge(tmp_path: Path) -> None:
    site = Site(tmp_path, NO_MODEL)
    assert site.materialize(real_instructions, real_embeddings).success
    dimension = site.resources["embedder"].dimension
    site.store_bins(dimension=dimension)
    site.resources["embedder"] = Embedder(model="some/other-embedder", device="cpu")
    _, message = failure_of(site.materialize(dp_histogram))
    assert "`embedder` is some/other-embedder" in message
    assert site.charges == []


def test_an_annotator_that_is_down_is_named_and_the_former_answers_stay(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    endpoint = {"base_url": url, "model": "tiny", "attempts": 1, "backoff_seconds": 0.01}
    site = Site(tmp_path, NO_MODEL, annotation={"endpoint": endpoint})
    texts = {"synthetic_id": ["1"], "text": ["why?"], "bin_id": [0], "origin": ["pool"]}
    site.put("filtered_instructions", Table(pl.LazyFrame(texts)))
    former = site.put("annotated_instructions", Table(pl.LazyFrame({"response": ["because"]})))
    _, message = failure_of(site.materialize(annotated_instructions))
    assert f"annotation.endpoint.base_url {url!r} gives no answer" in message
    assert "start the server" in message
    assert rows_of(former) == {"response": ["because"]}


def test_a_run_of_the_graph_with_a_dead_endpoint_is_refused_before_its_first_charge(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    endpoint = {"base_url": "http://127.0.0.1:9/v1", "model": "tiny", "attempts": 1, "backoff_seconds": 0.01}
    site = Site(tmp_path, tiny_model_folder, annotation={"endpoint": endpoint})
    failed, message = failure_of(site.materialize(*ALL_ASSETS))
    assert failed == "dp_generator"
    assert "annotation.endpoint.base_url 'http://127.0.0.1:9/v1' gives no answer" in message
    assert site.charges == []


def test_a_histogram_that_a_dead_endpoint_would_follow_is_not_charged(tmp_path: Path) -> None:
    endpoint = {"base_url": "http://127.0.0.1:9/v1", "model": "tiny", "attempts": 1, "backoff_seconds": 0.01}
    site = Site(tmp_path, NO_MODEL, annotation={"endpoint": endpoint})
    assert site.materialize(real_instructions, real_embeddings).success
    site.store_bins(dimension=site.resources["embedder"].dimension)
    failed, message = failure_of(site.materialize(dp_histogram, filtered_instructions, annotated_instructions))
    assert failed == "dp_histogram"
    assert "annotation.endpoint.base_url" in message
    assert site.charges == []
    assert site.materialize(dp_histogram).success  # the endpoint is no business of a run without annotations


def rows_of(folder: Path) -> dict[str, list[Any]]:
    table = read_artifact(folder)
    assert isinstance(table, Table)
    return table.collect().to_dict(as_series=False)


def test_a_ledger_whose_key_is_missing_is_refused_and_gets_no_new_one(pipeline: CliPipeline) -> None:
    assert invoke("register").exit_code == 0
    key = pipeline.home / "private/ledger/key"
    content = key.read_bytes()
    key.unlink()
    for command in (["register"], ["ledger", "show"], ["run", PARTITION]):
        refused(invoke(*command), "private/ledger/key", "restore")
    assert not key.exists()
    key.write_bytes(content)
    assert invoke("register").exit_code == 0


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The system refuses to write more, as when the disk is full; Python ignores the signal that goes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def artifacts(size: int) -> dict[str, Table | Adapter | Document]:
    numbers = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    factors = {"q_proj.lora_A.weight": numbers[None], "q_proj.lora_B.weight": numbers[:, None]}
    return {
        "table": Table(pl.LazyFrame({"number": numbers})),
        "adapter": Adapter(factors, {"peft_type": "LORA", "r": 1, "target_modules": ["q_proj"]}, "tiny"),
        "document": Document({"numbers": numbers.tolist()}, "a page"),
    }


@pytest.mark.parametrize("kind", ["table", "adapter", "document"])
def test_on_a_full_disk_the_former_artifact_stays_whole(tmp_path: Path, kind: str) -> None:
    releases, place = ReleaseStore(home=str(tmp_path)), ("toy", "eps-8", "key")
    releases.save(*place, artifacts(10)[kind])
    folder = releases.folder(*place)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with files_no_larger_than(SMALL_FILE), pytest.raises(NoRoom) as refusal:
        releases.save(*place, artifacts(100_000)[kind])
    assert f"data folder {tmp_path}" in str(refusal.value.description)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every artifact is half written when the disk is full."""

    def half_written(folder: Path, artifact: artifact_files.Artifact) -> None:
        (folder / "part-00000.parquet").write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores, "write_artifact", half_written)


@pytest.mark.parametrize(
    ("asset", "said"), [("pool", "there is no room left for the data folder"), ("secrets", CONSTANT_MESSAGE)]
)
def test_an_asset_on_a_full_disk_keeps_its_former_artifact_and_tells_nothing_of_private_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asset: str, said: str
) -> None:
    job = toys(tmp_path).resolve_job_def("full_pipeline")
    assert job.execute_in_process(partition_key=PARTITION).success
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    fill_the_disk(monkeypatch)
    result = job.execute_in_process(partition_key=PARTITION, asset_selection=[dg.AssetKey(asset)], raise_on_error=False)
    failed, message = failure_of(result)
    assert failed == asset
    assert said in message
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before


def test_a_ledger_on_a_full_disk_charges_nothing_and_can_be_used_afterwards(pipeline: CliPipeline) -> None:
    with files_no_larger_than(SMALL_FILE):
        refused(invoke("register"), "there is no room left", "run the same command again")
    assert pipeline.ledger.state().registrations == {}
    assert invoke("register").exit_code == 0
    before = pipeline.ledger.state().anchor
    with files_no_larger_than(64):
        (corpus_id,) = pipeline.ledger.state().registrations
        refused(invoke("ledger", "raise", corpus_id, "12", "--reason", "more"), "there is no room left")
    assert pipeline.ledger.state().anchor == before


def test_another_configuration_of_a_registered_corpus_is_refused_by_name(pipeline: CliPipeline) -> None:
    assert invoke("register").exit_code == 0
    before, text = pipeline.ledger.state().anchor, pipeline.profile_file.read_text()
    pipeline.profile_file.write_text(text.replace("[corpus]", "[corpus]\ndelta = 1e-6\nmax_rows_per_unit = 5"))
    selected_again()
    for command in (["register"], ["run", PARTITION]):
        refused(invoke(*command), "another corpus.max_rows_per_unit, corpus.delta", "restore them in the profile")
    assert pipeline.ledger.state().anchor == before


def selected_again() -> None:
    """The profile is read once a process; a test that changes the file stands for two processes."""
    from dp_assets.settings.named import selected_profile

    selected_profile.cache_clear()


@pytest.mark.parametrize("content", [json.dumps({"version": VERSION + 1}), "{}", "not JSON"])
def test_a_data_folder_of_another_version_is_refused_and_not_touched(pipeline: CliPipeline, content: str) -> None:
    assert invoke("register").exit_code == 0
    (pipeline.home / VERSION_FILE).write_text(content)
    before = {path: path.stat().st_mtime_ns for path in pipeline.home.rglob("*")}
    for command in (["register"], ["ledger", "show"], ["run", PARTITION], ["sql", "from metrics"]):
        refused(invoke(*command), f"data folder {pipeline.home}", "upgrade the program", "DP_INSTRUCTIONS_HOME")
    with pytest.raises(OtherDataFolder):  # so that the code location does not load either
        build_resources(load_profile("demo"), pipeline.home)
    assert {path: path.stat().st_mtime_ns for path in pipeline.home.rglob("*")} == before


def test_a_data_folder_that_is_a_file_is_refused_and_stays(pipeline: CliPipeline) -> None:
    pipeline.home.write_text("notes")
    for command in (["register"], ["sql", "from metrics"]):
        refused(invoke(*command), str(pipeline.home), "DP_INSTRUCTIONS_HOME")
    assert pipeline.home.read_text() == "notes"


def test_a_data_folder_from_before_versions_is_accepted_and_says_its_version_from_then_on(
    pipeline: CliPipeline,
) -> None:
    assert invoke("register").exit_code == 0
    file = pipeline.home / VERSION_FILE
    assert json.loads(file.read_text()) == {"version": VERSION}
    file.unlink()
    assert invoke("ledger", "show").exit_code == 0
    (corpus_id,) = pipeline.ledger.state().registrations
    assert invoke("ledger", "raise", corpus_id, "12", "--reason", "more").exit_code == 0
    assert json.loads(file.read_text()) == {"version": VERSION}


def private_log_of(site: Site) -> str:
    return log_file(site.home / Zone.PRIVATE).read_text()


@pytest.mark.parametrize("mechanism", [dp_generator, dp_histogram])
def test_a_cohort_that_the_preparation_left_without_rows_is_not_charged_and_only_the_private_log_says_why(
    tmp_path: Path, tiny_model_folder: Path, mechanism: dg.AssetsDefinition
) -> None:
    site = Site(tmp_path, tiny_model_folder, corpus={"min_words": 50, "max_words": 60})
    site.store_bins(dimension=site.resources["embedder"].dimension)
    assert site.materialize(real_instructions, real_embeddings).success
    result = site.materialize(mechanism)
    assert CONSTANT_MESSAGE in failure_of(result)[1]
    assert site.charges == []
    assert "no row is left to train on in the cohort all" in private_log_of(site)
    assert not any("no row is left" in str(event) for event in result.all_events)


@pytest.mark.parametrize("without_user", ["own_unit", "drop"])
def test_a_file_that_names_no_user_stops_before_the_charge_and_only_the_private_log_says_which(
    tmp_path: Path, without_user: str
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    site = Site(tmp_path, NO_MODEL, corpus={**source_with(NAMED, folder), "without_user": without_user})
    rows = pl.read_parquet(site.corpus_file)
    rows.write_parquet(folder / "named.parquet")
    rows.with_columns(user=pl.lit(" ")).write_csv(folder / "nameless-friend.csv")
    result = site.materialize(real_instructions)
    assert CONSTANT_MESSAGE in failure_of(result)[1]
    assert not any("nameless-friend" in str(event) for event in result.all_events)
    assert "nameless-friend.csv: no readable row names a user" in private_log_of(site)
    assert site.ledger.state().snapshots == {}
    (folder / "nameless-friend.csv").unlink()
    assert site.materialize(real_instructions).success


def test_rows_without_a_user_are_units_of_their_own_or_dropped_as_registered(tmp_path: Path) -> None:
    def units(without_user: str) -> set[str]:
        home = tmp_path / without_user
        home.mkdir()
        site = Site(home, NO_MODEL, corpus={"without_user": without_user})
        pl.DataFrame({"prompt": ["what is bread?", "why is it?"], "user": ["anna", None]}).write_parquet(
            site.corpus_file
        )
        assert site.materialize(real_instructions).success
        table = read_artifact(artifact_folder(site.home, ["real_instructions"], Label.PRIVATE, None))
        assert isinstance(table, PrivateTable)
        kept: list[pl.DataFrame] = []
        table.store(lambda rows: kept.append(rows.collect()))
        return {unit_id.partition(":")[0] for unit_id in kept[0]["unit_id"]}

    assert units("own_unit") == {"user", "instruction"}
    assert units("drop") == {"user"}


def test_nobody_outside_is_told_that_a_corpus_is_too_small(tmp_path: Path, tiny_model_folder: Path) -> None:
    site = Site(tmp_path, tiny_model_folder, corpus={"train_fraction": 1.0})
    write_corpus(site.corpus_file, num_users=1)
    site.store_bins(dimension=site.resources["embedder"].dimension)
    result = site.materialize(real_instructions, real_embeddings, dp_generator, dp_histogram)
    assert result.success
    assert sorted(charge.mechanism for charge in site.charges) == ["dp_generator", "dp_histogram"]
    assert all(charge.settled for charge in site.ledger.state().charges.values())


@pytest.mark.parametrize("mechanism", [dp_generator, dp_histogram])
def test_both_mechanisms_say_the_same_of_trouble_with_private_rows(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, mechanism: dg.AssetsDefinition
) -> None:
    site = Site(tmp_path, tiny_model_folder)
    assert site.materialize(real_instructions, real_embeddings).success
    site.store_bins(dimension=site.resources["embedder"].dimension)

    def open_with_trouble(self: PrivateTable, charge: Any) -> pl.LazyFrame:
        raise ValueError("user-7 wrote too few rows")

    monkeypatch.setattr(PrivateTable, "open", open_with_trouble)
    result = site.materialize(mechanism)
    _, message = failure_of(result)
    assert CONSTANT_MESSAGE in message
    assert not any("user-7" in str(event) for event in result.all_events)


IN_PRIVATE_ASSETS = [
    *((real_instructions, preparation_module, name) for name in ("read_source", "prepare_in_buckets", "note_overlaps")),
    (real_instructions, Ledger, "bind_rows"),
    (real_embeddings, PrivateTable, "map"),
]


@pytest.mark.parametrize(("asset", "owner", "part"), IN_PRIVATE_ASSETS, ids=[part for *_, part in IN_PRIVATE_ASSETS])
def test_private_assets_say_the_same_of_trouble_with_private_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asset: dg.AssetsDefinition, owner: Any, part: str
) -> None:
    def troubled(*_: Any, **__: Any) -> None:
        raise ValueError("user-7 wrote too few rows")

    site = Site(tmp_path, NO_MODEL)
    if asset is real_embeddings:
        assert site.materialize(real_instructions).success
    monkeypatch.setattr(owner, part, troubled)
    result = site.materialize(asset)
    _, message = failure_of(result)
    assert CONSTANT_MESSAGE in message
    assert not any("user-7" in str(event) for event in result.all_events)
    assert "user-7" in private_log_of(site)
