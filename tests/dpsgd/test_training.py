"""DP-SGD draws one noise a step, continues after an interruption for a spare step, and says so in its evidence."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dp_assets.dpsgd.checkpoints import Checkpoints, StaleCheckpoint, TrainingInProgress, TrainingState
from dp_assets.dpsgd.clipping import Clipping, adapter_parameters, clipped_sum
from dp_assets.dpsgd.private_rows import UnitRows
from dp_assets.dpsgd.training import NoSpareStep, TrainingSettings, _sample, train_privately
from dp_assets.privacy.claim import CONFIGURED, check_dpsgd
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.plan import DpSgdPlan
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.privacy.sampling_and_noise import GaussianNoise, PoissonSampler
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.progress import silent
from tests.generation.tiny_lora import ROWS, lora_model
from tests.privacy.plans import small_plan
from tests.privacy.replay import ReplayableSource

SIGNIFICANCE = 1e-6
NEVER = 1e-12  # the least that a plan takes is above zero
UNIT_ROWS = {f"unit-{index}": (row,) for index, row in enumerate(ROWS)}
NOISELESS = {"sampling_probability": 1.0, "noise_multiplier": 0.0, "l2_clip_norm": 100.0}


@dataclass
class Rows:
    """Rows that are opened by `read`, and of which each drawn one passes."""

    read: Callable[[], UnitRows]

    def open(self) -> UnitRows:
        return self.read()

    def match_stored_rows(self, *_: object) -> bool:
        return True

    def note_continued(self, checkpoint: str) -> None:
        """Nothing is recorded."""


def read_unit_rows() -> UnitRows:
    return UNIT_ROWS


def read_nothing() -> UnitRows:
    return {}


PLAN = replace(
    small_plan(),
    delta=0.1,  # so that the largest batch is the expected one
    dpsgd=DpSgdPlan(
        sampling_probability=0.5, steps=3, spare_steps=1, l2_clip_norm=0.5, noise_multiplier=1.0, expected_batch_size=3
    ),
)
SETTINGS = TrainingSettings(learning_rate=1e-2, loss_normalizer=16.0, tokens_per_micro_batch=64, longest_row=0)


def train(model: nn.Module, read: Callable[[], UnitRows] = read_unit_rows, **changes: Any) -> Evidence:
    """Train by the plan and settings above, with `changes` of either or of the other arguments."""
    dpsgd = {name: changes.pop(name) for name in vars(PLAN.dpsgd).keys() & changes}
    tuning = {name: changes.pop(name) for name in vars(SETTINGS).keys() & changes}
    plan, settings = replace(PLAN, dpsgd=replace(PLAN.dpsgd, **dpsgd)), replace(SETTINGS, **tuning)
    others = {"source": SystemRandomness(), "checkpoints": None, "resume_from": None, "advance": silent}
    _, evidence = train_privately(model, Rows(read), plan, settings, **(others | changes))
    return evidence


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in adapter_parameters(model).values()])


def loss_at(model: nn.Module) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[1, 7, 61, 61, 61]])).logits[0].log_softmax(-1)
    return -float(logits[1:4, 61].sum())


class Interruption:
    """An `advance` that raises once the given number of steps was reported."""

    def __init__(self, after: int, error: BaseException) -> None:
        self.left, self.error = after, error

    def __call__(self, increment: int) -> None:
        self.left -= increment
        if self.left == 0:
            raise self.error


@pytest.fixture
def model(tiny_model_folder: Path) -> nn.Module:
    return lora_model(tiny_model_folder)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "charge")


def interrupted(model: nn.Module, checkpoints: Checkpoints, *, after: int = 2, **changes: Any) -> TrainingState:
    """What is on disk after a training that was interrupted behind its `after`-th step."""
    with pytest.raises(KeyboardInterrupt):
        train(model, checkpoints=checkpoints, advance=Interruption(after, KeyboardInterrupt()), **changes)
    state = checkpoints.load()
    assert state is not None
    return state


# Noise and steps


def test_noise_has_the_planned_standard_deviation(tiny_model_folder: Path) -> None:
    handed: list[torch.Tensor] = []

    def take(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        handed.append(torch.cat([parameter.grad.flatten() for parameter in optimizer.param_groups[0]["params"]]))

    watching = register_optimizer_step_pre_hook(take)
    try:
        train(lora_model(tiny_model_folder, r=16), steps=1, sampling_probability=NEVER, noise_multiplier=1.5)
    finally:
        watching.remove()
    scaled = handed[0].double() * 3 / (1.5 * 0.5)  # the gradient of an empty sample is noise over the expected batch
    assert stats.chi2.ppf(SIGNIFICANCE, len(scaled)) < float((scaled**2).sum())
    assert float((scaled**2).sum()) < stats.chi2.isf(SIGNIFICANCE, len(scaled))
    assert stats.kstest(scaled.numpy(), "norm").pvalue > SIGNIFICANCE


def test_each_step_draws_one_sample_and_one_noise(model: nn.Module) -> None:
    source = ReplayableSource(0)
    train(model, steps=4, sampling_probability=1.0, tokens_per_micro_batch=1, source=source)
    words_of_noise = 3 * ((weights(model).numel() + 1) // 2)  # Box-Muller takes three words for two values
    assert source.words == 4 * (len(UNIT_ROWS) + len(UNIT_ROWS) + words_of_noise)


def test_an_empty_sample_is_a_step_on_noise_alone(model: nn.Module) -> None:
    before = weights(model)
    evidence = train(model, sampling_probability=NEVER)
    assert (weights(model) != before).all()
    assert evidence.public["noise_draws"] == 3
    assert [step["num_units"] for step in evidence.restricted["clipping"]] == [0, 0, 0]


def test_a_corpus_without_units_is_trained_on_noise(model: nn.Module) -> None:
    assert train(model, read_nothing).public["steps"] == 3


def test_without_noise_the_first_step_is_adam_on_the_clipped_sum(model: nn.Module) -> None:
    expected, _ = clipped_sum(model, ROWS, list(UNIT_ROWS), Clipping(0.5, 16.0, 64))
    before = weights(model)
    train(model, steps=1, sampling_probability=1.0, noise_multiplier=0.0)
    gradient = torch.cat([tensor.flatten() for tensor in expected.values()]) / 3
    step = before - 1e-2 * gradient / (gradient.abs() + 1e-8)  # Adam's first step
    assert torch.allclose(weights(model), step.float(), atol=1e-4)


def test_training_without_noise_learns_its_rows(model: nn.Module) -> None:
    before = loss_at(model)
    train(model, steps=20, **NOISELESS)
    assert loss_at(model) < before - 0.5  # of 1.5 within reach: the head is tied to small random embeddings


def test_one_row_of_each_sampled_unit_is_drawn_uniformly() -> None:
    unit_rows = {"a": ROWS[:3], "b": ROWS[3:4]}
    counts = dict.fromkeys(ROWS, 0)
    sampler = PoissonSampler(sampling_probability=1.0, source=SystemRandomness())
    for _ in range(3_000):
        rows, unit_ids = _sample(unit_rows, sampler)
        assert unit_ids == ("a", "b")
        for row in rows:
            counts[row] += 1
    assert counts[ROWS[3]] == 3_000
    assert stats.chisquare([counts[row] for row in ROWS[:3]]).pvalue > SIGNIFICANCE


# Randomness


def test_the_source_decides_everything_and_library_seeds_nothing(tiny_model_folder: Path) -> None:
    results = []
    for seed in (0, 1):
        model = lora_model(tiny_model_folder)
        torch.manual_seed(seed)
        np.random.seed(seed)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist()
        train(model, source=ReplayableSource(9))
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1] == np.random.get_state()[1].tolist()
        results.append(weights(model))
    assert torch.equal(results[0], results[1])


def test_equal_library_seeds_do_not_repeat_the_noise(tiny_model_folder: Path) -> None:
    results = []
    for _ in range(2):
        model = lora_model(tiny_model_folder)
        torch.manual_seed(0)
        np.random.seed(0)
        train(model, steps=1)
        results.append(weights(model))
    assert not torch.equal(results[0], results[1])


# Evidence


def test_evidence_satisfies_the_claim(model: nn.Module) -> None:
    evidence = train(model).also(preparation="user-wise", population="units", constants=CONFIGURED)
    assert check_dpsgd(PLAN.dpsgd, PrivacyUnit.USER, evidence.public, delta=1e-2) == []
    assert evidence.public["num_parameters"] == weights(model).numel()


def test_public_evidence_is_the_same_for_every_corpus(model: nn.Module) -> None:
    whole, empty = train(model), train(model, read_nothing)
    assert json.dumps(whole.public) == json.dumps(empty.public)
    assert whole.restricted != empty.restricted


def test_progress_hears_of_steps_only(model: nn.Module) -> None:
    heard: list[int] = []
    train(model, advance=heard.append)
    assert heard == [1, 1, 1]


# Interruptions


def test_a_checkpoint_precedes_the_first_private_row(model: nn.Module, checkpoints: Checkpoints) -> None:
    found = []

    def read() -> UnitRows:
        found.append(checkpoints.load())
        return UNIT_ROWS

    train(model, read, steps=1, checkpoints=checkpoints)
    assert len(found) == 1
    assert found[0] is not None
    assert found[0].steps_taken == 0


def test_no_row_is_read_when_the_training_is_refused(model: nn.Module, checkpoints: Checkpoints) -> None:
    def read() -> UnitRows:
        pytest.fail("private rows were read")

    state = interrupted(model, checkpoints)
    with pytest.raises(NoSpareStep):
        train(model, read, spare_steps=0, checkpoints=checkpoints, resume_from=state)
    with pytest.raises(StaleCheckpoint):
        train(model, read, checkpoints=checkpoints)


def test_a_checkpoint_follows_every_step(model: nn.Module, checkpoints: Checkpoints) -> None:
    nonces = []

    def look(_: int) -> None:
        state = checkpoints.load()
        assert state is not None
        nonces.append(state.nonce)
        assert state.steps_taken == state.observed["steps"] == len(state.observed["noise_digests"]) == len(nonces)

    train(model, checkpoints=checkpoints, advance=look)
    assert len(set(nonces)) == 3


def test_a_checkpoint_holds_weights_moments_and_verdicts_and_no_noise(
    model: nn.Module, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws: list[Any] = []
    draw = GaussianNoise.draw

    def noted(self: GaussianNoise, size: int) -> Any:
        draws.append(draw(self, size))
        return draws[-1].copy()

    monkeypatch.setattr(GaussianNoise, "draw", noted)
    interrupted(model, checkpoints, steps=3)
    assert {path.name for path in (tmp_path / "charge").iterdir()} == {"state.pt", "drawn", "lock"}
    assert (tmp_path / "charge" / "lock").read_bytes() == b""
    assert (tmp_path / "charge" / "drawn").read_bytes().strip(b".") == b""
    shapes = {name: list(parameter.shape) for name, parameter in adapter_parameters(model).items()}
    moments = {
        place: {"step": [], "exp_avg": shape, "exp_avg_sq": shape} for place, shape in enumerate(shapes.values())
    }
    stored = torch.load(tmp_path / "charge" / "state.pt", weights_only=True)
    [constants] = stored["optimizer"].pop("param_groups")
    assert all(isinstance(value, bool | int | float | tuple | list | None) for value in constants.values())
    assert constants.pop("params") == list(range(len(shapes)))
    assert constants == torch.optim.Adam([torch.zeros(1)], lr=1e-2).defaults
    assert form_of(stored) == {
        "parameters": shapes,
        "optimizer": {"state": moments},
        "steps_taken": "int",
        "continuations": "int",
        "nonce": "32 hex digits",
        "observed": {
            "steps": "int",
            "batches_as_drawn": "bool",
            "rows_of_their_units": "bool",
            "sums_within_clip": "bool",
            "most_rows_per_unit": "int",
            "l2_clip_norms": ["float"],
            "loss_normalisers": ["float"],
            "normaliser_kept": "bool",
            "noise_energy": "float",
            "noised_tensors": ["str"] * len(shapes),
            "updates_repeated": "bool",
            "parts": [["str", "str", "float", "str", "str", "float", "int", "float"]],
            "largest_share": "float",
            "rounding_slack": "float",
            "changed_elsewhere": [],
            "samples_drawn": "int",
            "noise_digests": ["64 hex digits"] * 2,
            "noise_coordinates": "int",
            "replica": "64 hex digits",
        },
    }
    content = (tmp_path / "charge" / "state.pt").read_bytes()
    for drawn in draws:
        assert drawn[:2].tobytes() not in content
        assert drawn[:4].astype(np.float32).tobytes() not in content


def form_of(value: Any) -> Any:
    """What a stored value consists of: tensors as their shapes, texts and numbers as what they are."""
    match value:
        case dict():
            return {name: form_of(part) for name, part in value.items()}
        case list():
            return [form_of(part) for part in value]
        case torch.Tensor():
            return list(value.shape)
        case str() if re.fullmatch(r"[0-9a-f]+", value):
            return f"{len(value)} hex digits"
    return type(value).__name__


def test_a_continuation_counts_as_one_more_step(tiny_model_folder: Path, checkpoints: Checkpoints) -> None:
    state = interrupted(lora_model(tiny_model_folder), checkpoints)
    assert (state.steps_taken, state.continuations) == (2, 0)
    heard: list[int] = []
    model = lora_model(tiny_model_folder)
    train(model, checkpoints=checkpoints, resume_from=state, advance=heard.append)
    assert heard == [1]
    after = checkpoints.load()
    assert after is not None
    assert (after.steps_taken, after.continuations) == (3, 1)


def test_the_public_evidence_is_the_same_however_often_the_run_was_resumed(
    tiny_model_folder: Path, checkpoints: Checkpoints
) -> None:
    state = interrupted(lora_model(tiny_model_folder), checkpoints)
    resumed = train(lora_model(tiny_model_folder), checkpoints=checkpoints, resume_from=state)
    assert resumed.public == train(lora_model(tiny_model_folder)).public


def test_a_continuation_takes_up_parameters_and_optimizer(tiny_model_folder: Path, checkpoints: Checkpoints) -> None:
    uninterrupted, resumed = lora_model(tiny_model_folder), lora_model(tiny_model_folder)
    train(uninterrupted, steps=4, **NOISELESS)
    state = interrupted(lora_model(tiny_model_folder), checkpoints, steps=4, **NOISELESS)
    train(resumed, steps=4, checkpoints=checkpoints, resume_from=state, **NOISELESS)
    assert torch.allclose(weights(resumed), weights(uninterrupted), atol=1e-6)


def test_the_step_that_failed_half_way_is_not_in_the_checkpoint(model: nn.Module, checkpoints: Checkpoints) -> None:
    class FailsWithinTheSecondStep(ReplayableSource):
        def bits(self, num_words: int) -> Any:
            if self.requests == 6:
                raise OSError("no entropy")
            return super().bits(num_words)

    with pytest.raises(OSError, match="no entropy"):
        train(model, checkpoints=checkpoints, source=FailsWithinTheSecondStep(0))
    state = checkpoints.load()
    assert state is not None
    assert state.steps_taken == 1


def test_no_continuation_beyond_the_spare_steps(tiny_model_folder: Path, checkpoints: Checkpoints) -> None:
    state = interrupted(lora_model(tiny_model_folder), checkpoints, after=1)
    state = interrupted(lora_model(tiny_model_folder), checkpoints, after=1, resume_from=state)
    assert (state.steps_taken, state.continuations) == (2, 1)
    with pytest.raises(NoSpareStep):
        train(lora_model(tiny_model_folder), checkpoints=checkpoints, resume_from=state)
    evidence = train(lora_model(tiny_model_folder), checkpoints=checkpoints, resume_from=state, spare_steps=2)
    assert (evidence.public["steps"], evidence.public["continuations"]) == (3, "within the spare steps")


def test_a_continuation_that_fails_at_once_is_counted(tiny_model_folder: Path, checkpoints: Checkpoints) -> None:
    class NoEntropy(SystemRandomness):
        def bits(self, num_words: int) -> Any:
            raise OSError("no entropy")

    state = interrupted(lora_model(tiny_model_folder), checkpoints)
    with pytest.raises(OSError, match="no entropy"):
        train(lora_model(tiny_model_folder), checkpoints=checkpoints, resume_from=state, source=NoEntropy())
    after = checkpoints.load()
    assert after is not None
    assert after.continuations == 1
    assert after.digest != state.digest


def test_a_checkpoint_is_continued_once(tiny_model_folder: Path, checkpoints: Checkpoints) -> None:
    state = interrupted(lora_model(tiny_model_folder), checkpoints)
    train(lora_model(tiny_model_folder), checkpoints=checkpoints, resume_from=state)
    with pytest.raises(StaleCheckpoint):
        train(lora_model(tiny_model_folder), checkpoints=checkpoints, resume_from=state)


def test_an_unfinished_training_is_not_overwritten(tiny_model_folder: Path, checkpoints: Checkpoints) -> None:
    interrupted(lora_model(tiny_model_folder), checkpoints)
    with pytest.raises(StaleCheckpoint):
        train(lora_model(tiny_model_folder), checkpoints=checkpoints)


def test_training_holds_the_lock(model: nn.Module, checkpoints: Checkpoints) -> None:
    def try_to_lock(_: int) -> None:
        with pytest.raises(TrainingInProgress), checkpoints.locked():
            pass

    train(model, checkpoints=checkpoints, advance=try_to_lock)
    with checkpoints.locked(), pytest.raises(TrainingInProgress):
        train(model, checkpoints=checkpoints)


def test_a_state_needs_the_folder_it_came_from(model: nn.Module, checkpoints: Checkpoints) -> None:
    state = interrupted(model, checkpoints)
    with pytest.raises(ValueError, match="needs checkpoints"):
        train(model, resume_from=state)


def test_a_state_of_another_adapter_is_refused(tiny_model_folder: Path, checkpoints: Checkpoints) -> None:
    state = interrupted(lora_model(tiny_model_folder), checkpoints)
    with pytest.raises(ValueError, match="other parameters"):
        train(lora_model(tiny_model_folder, target_modules=["q_proj"]), checkpoints=checkpoints, resume_from=state)
