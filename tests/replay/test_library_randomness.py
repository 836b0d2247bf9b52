"""No generator of a library is used between the opening of private rows and the evidence, and no file stores one.

Both mechanisms run as the assets call them, with every library generator within reach poisoned from the moment at which
the charge is marked as opened. Before it the model is loaded and its adapter drawn from a public seed.
"""

import inspect
import pickletools
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch

from dp_assets.artifacts import Adapter, PrivateTable, Table
from dp_assets.dpsgd.checkpoints import Checkpoints, TrainingState
from dp_assets.generation.generator import DpSgdGenerator
from dp_assets.generation.settings import GeneratorSettings
from dp_assets.privacy import randomness
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.selection.bins import digest_of
from dp_assets.selection.noisy_votes import NoisyVotes
from resources.models.loaders import Embedder, LanguageModel
from resources.storage.artifact_files import write_artifact
from tests.privacy.plans import small_plan
from tests.privacy.test_randomness import assert_uncorrelated
from tests.replay.neighbors import KEY, others, prepared, write
from tests.replay.test_replay_votes import bins_of, embedded

TENSOR_METHODS = (
    "bernoulli_",
    "cauchy_",
    "exponential_",
    "geometric_",
    "log_normal_",
    "normal_",
    "random_",
    "uniform_",
)
TORCH_FUNCTIONS = (
    "Generator bernoulli dropout get_rng_state initial_seed manual_seed multinomial normal poisson rand rand_like"
    " randint randint_like randn randn_like randperm seed set_rng_state"
)
PYTHON_FUNCTIONS = (
    "choice choices gauss getrandbits getstate normalvariate randbytes randint random sample seed shuffle"
    " SystemRandom uniform Random"
)
SETTINGS = GeneratorSettings(
    prompt="user_turn",
    rank=2,
    alpha=4,
    target_modules=("q_proj", "v_proj"),
    learning_rate=1e-2,
    max_tokens=48,
    loss_normaliser=48.0,
    tokens_per_micro_batch=256,
    seed=3,
    sampling_probability=0.25,
    expected_batch_size=16,
    steps=4,
    spare_steps=2,
    l2_clip_norm=0.5,
)
CHECKPOINT_TYPES = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"}
WORDS_OF_MERSENNE_TWISTER = 624  # of 32 bits; torch keeps them in 5,056 bytes


class LibraryRandomnessUsed(AssertionError):
    """A poisoned generator was asked for something."""


def targets() -> Iterator[tuple[Any, str]]:
    """Every entry to a generator of torch, NumPy or Python that code could reach by name."""
    yield from ((torch, name) for name in TORCH_FUNCTIONS.split())
    yield from ((torch.Tensor, name) for name in TENSOR_METHODS)
    yield from ((random, name) for name in PYTHON_FUNCTIONS.split())
    of_numpy = (name for name, value in vars(np.random).items() if callable(value) and not name.startswith("_"))
    yield from ((np.random, name) for name in of_numpy if not inspect.ismodule(getattr(np.random, name)))


def poison(patch: pytest.MonkeyPatch) -> None:
    def raises(*_: Any, **__: Any) -> None:
        raise LibraryRandomnessUsed

    for owner, name in targets():
        patch.setattr(owner, name, raises)


@dataclass(frozen=True)
class PoisonousCharge:
    """A charge that poisons the libraries when private rows are opened under it."""

    patch: pytest.MonkeyPatch
    opened: list[bool] = field(default_factory=list)
    charge_id: str = "charge"
    corpus_id: str = "corpus"
    snapshot: str = "1"
    cohort: str = "all"

    def mark_opened(self) -> None:
        self.opened.append(True)
        poison(self.patch)

    def continued(self, _: str) -> "PoisonousCharge":
        return self


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    return prepared(write(tmp_path_factory.mktemp("source") / "corpus.jsonl", others()), PrivacyUnit.USER)


def private(table: pl.DataFrame) -> PrivateTable:
    return PrivateTable(table.lazy(), corpus_id="corpus", snapshot="1")


def trained(folder: Path, model: Path, rows: pl.DataFrame, charge: PoisonousCharge) -> tuple[Adapter, Evidence]:
    language_model = LanguageModel(model=str(model), device="cpu", cache_root=str(folder))
    return DpSgdGenerator(small_plan(), SETTINGS, private(rows), language_model, folder).run(charge)


def voted(rows: pl.DataFrame, charge: PoisonousCharge) -> tuple[Table, Evidence]:
    embedder = Embedder(model="hashing")
    vectors = embedded(rows, embedder).with_columns(cohort=pl.lit("all"), split=pl.lit("train"))
    centroids = bins_of(embedder)
    bins, digest, plan = Table(pl.LazyFrame()), digest_of(centroids), small_plan(num_bins=len(centroids))
    return NoisyVotes(plan, private(vectors), bins, centroids, digest, embedder.public_name, KEY).run(charge)


def test_every_poisoned_generator_raises() -> None:
    with pytest.MonkeyPatch.context() as patch:
        poison(patch)
        for owner, name in targets():
            with pytest.raises(LibraryRandomnessUsed):
                getattr(owner, name)(1)


def test_private_training_uses_no_library_generator(
    tmp_path: Path, tiny_model_folder: Path, rows: pl.DataFrame
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        charge = PoisonousCharge(patch)
        _, evidence = trained(tmp_path, tiny_model_folder, rows, charge)
    assert charge.opened
    assert evidence.public["steps"] == small_plan().dpsgd.steps


def test_a_release_of_votes_uses_no_library_generator(rows: pl.DataFrame) -> None:
    with pytest.MonkeyPatch.context() as patch:
        charge = PoisonousCharge(patch)
        table, _ = voted(rows, charge)
        noisy = table.collect()
    assert charge.opened
    assert noisy["noisy_votes"].dtype == pl.Int64


class Interruption(BaseException):
    """The end of a run between two steps."""


def interrupt(patch: pytest.MonkeyPatch, *, after: int) -> None:
    saved, saves = Checkpoints.save, iter(range(1_000))

    def save(checkpoints: Checkpoints, state: TrainingState) -> None:
        saved(checkpoints, state)
        if next(saves) == after:
            raise Interruption

    patch.setattr(Checkpoints, "save", save)


def test_the_noise_after_a_resume_is_uncorrelated_with_the_noise_before(
    tmp_path: Path, tiny_model_folder: Path, rows: pl.DataFrame
) -> None:
    draws: list[npt.NDArray[np.float64]] = []
    normals = randomness.normals

    def kept(*arguments: Any) -> npt.NDArray[np.float64]:
        draws.append(normals(*arguments))
        return draws[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(randomness, "normals", kept)
        with pytest.MonkeyPatch.context() as inner:
            interrupt(inner, after=2)
            with pytest.raises(Interruption):
                trained(tmp_path, tiny_model_folder, rows, PoisonousCharge(inner))
        random.seed(0)
        torch.manual_seed(0)
        np.random.seed(0)
        _, evidence = trained(tmp_path, tiny_model_folder, rows, PoisonousCharge(patch))
    assert evidence.public["continuations"] == "within the spare steps"
    assert len(draws) == small_plan().dpsgd.steps
    assert_uncorrelated(draws)


def leaves(value: Any) -> Iterator[Any]:
    """Everything in nested mappings and sequences, keys included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *leaves(item))
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from leaves(item)
    else:
        yield value


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, rows: pl.DataFrame) -> list[Path]:
    """The checkpoint of a finished training, and both releases as they are stored."""
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        adapter, _ = trained(folder / "private", tiny_model_folder, rows, PoisonousCharge(patch))
    with pytest.MonkeyPatch.context() as patch:
        table, _ = voted(rows, PoisonousCharge(patch))
    for name, artifact in (("adapter", adapter), ("votes", table)):
        (folder / name).mkdir()
        write_artifact(folder / name, artifact)
    return [path for path in folder.rglob("*") if path.is_file()]


def checkpoint_of(files: list[Path]) -> Path:
    (checkpoint,) = (path for path in files if path.suffix == ".pt")
    return checkpoint


def test_a_checkpoint_holds_parameters_counts_and_digests_only(files: list[Path]) -> None:
    content = torch.load(checkpoint_of(files), weights_only=True)
    assert content.keys() == {"parameters", "optimizer", "steps_taken", "continuations", "observed", "nonce"}
    values = list(leaves(content))
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    shapes = {tuple(tensor.shape) for tensor in content["parameters"].values()} | {()}
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert {tuple(tensor.shape) for tensor in tensors} == shapes
    assert {type(value) for value in values} <= {torch.Tensor, str, int, float, bool, type(None)}
    assert not any(isinstance(value, int) and abs(value) >= 2**31 for value in values)


def test_no_sequence_in_a_checkpoint_is_as_long_as_the_state_of_a_generator(files: list[Path]) -> None:
    content = torch.load(checkpoint_of(files), weights_only=True)
    assert longest_sequence(content) < WORDS_OF_MERSENNE_TWISTER


def longest_sequence(value: Any) -> int:
    if isinstance(value, dict):
        return max([0, *map(longest_sequence, value.values())])
    return max([len(value), *map(longest_sequence, value)]) if isinstance(value, list | tuple | set) else 0


def test_the_pickle_in_a_checkpoint_names_no_generator(files: list[Path]) -> None:
    with zipfile.ZipFile(checkpoint_of(files)) as archive:
        (pickled,) = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    assert {argument for code, argument, _ in pickletools.genops(pickled) if code.name == "GLOBAL"} <= CHECKPOINT_TYPES


STATES: dict[str, Callable[[], bytes]] = {
    "torch": lambda: torch.get_rng_state().numpy().tobytes()[24:4_096],  # behind the seed and the position
    "numpy": lambda: np.random.get_state()[1].tobytes(),
    "python": lambda: np.array(random.getstate()[1][:-1], dtype=np.uint32).tobytes(),
}


def holds(content: bytes, state: bytes) -> bool:
    """Whether a piece of the state, or the name of one, is in the content."""
    pieces = (state[place : place + 32] for place in range(64, len(state), 256))
    names = (b"rng_state", b"generator_state", b"mt19937", b"philox")
    return any(piece in content for piece in pieces) or any(name in content.lower() for name in names)


@pytest.mark.parametrize("library", STATES)
def test_no_stored_file_holds_the_state_of_a_library_generator(files: list[Path], library: str) -> None:
    """Nobody draws from the libraries after the files were written, so that a stored state would be the present one."""
    state = STATES[library]()
    assert len(files) >= 5
    assert not any(holds(path.read_bytes(), state) for path in files)


@pytest.mark.parametrize("library", STATES)
def test_a_stored_state_would_be_found(tmp_path: Path, library: str) -> None:
    planted = tmp_path / "planted.pt"
    torch.save({"more": torch.frombuffer(bytearray(STATES[library]()), dtype=torch.uint8)}, planted)
    assert holds(planted.read_bytes(), STATES[library]())
