"""The run monitor passes every training that keeps its plan, whatever its numbers, and carries on over a checkpoint."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from dp_assets.dpsgd.clipping import ClippingEvidence, Gradients, adapter_parameters
from dp_assets.dpsgd.monitor import RunMonitor
from dp_assets.dpsgd.private_rows import UnitRows
from dp_assets.dpsgd.sensitivity_probe import ProbeResult
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.privacy.sampling_and_noise import GaussianNoise, PoissonSampler
from tests.generation.tiny_lora import lora_model

SECURE = SystemRandomness()
UNITS = {"a": 1, "b": 2}


class AsDrawn:
    """Rows that are always those that were drawn."""

    def open(self) -> UnitRows:
        return {}

    def match_stored_rows(self, *_: object) -> bool:
        return True

    def note_continued(self, checkpoint: str) -> None:
        """Nothing is recorded."""


ROUNDED, OTHER = 1 + 2**-24, 1 + 2**-12  # a float32 product may be the first; a normalizer that differs is the second


class Training:
    """A hand-made loop over the adapter: every unit in every batch, sums of a chosen size."""

    def __init__(self, model: nn.Module, *, noise_stddev: float) -> None:
        self.parameters = adapter_parameters(model)
        new_optimizer = partial(torch.optim.Adam, lr=1e-3)
        self.optimizer = new_optimizer(self.parameters.values())
        self.sampler = PoissonSampler(sampling_probability=1.0, source=SECURE)
        self.noise = GaussianNoise(noise_stddev=noise_stddev, source=SECURE)
        self.monitor = RunMonitor(
            model,
            self.optimizer,
            new_optimizer=new_optimizer,
            sampler=self.sampler,
            noise=self.noise,
            normalizer=7,
            probed=ProbeResult(largest_share=0.5, rounding_slack=0.0),
        )

    def step(self, size: float, *, change: Callable[[torch.Tensor], torch.Tensor] = lambda handed: handed) -> None:
        exact = {name: size * torch.randn(tensor.shape) for name, tensor in self.parameters.items()}
        self.monitor.begin(AsDrawn(), UNITS.keys())
        self.monitor.observe_clipped_sum([], self.sampler.draw(list(UNITS)), exact, clipping(exact))
        drawn = torch.from_numpy(self.noise.draw(sum(tensor.numel() for tensor in exact.values())))
        for (name, tensor), piece in zip(exact.items(), drawn.split([t.numel() for t in exact.values()]), strict=True):
            self.parameters[name].grad = change((tensor.double() + piece.view(tensor.shape)) / 7).float()
        self.optimizer.step()


def clipping(exact: Gradients) -> ClippingEvidence:
    return ClippingEvidence(
        names=tuple(exact),
        l2_clip_norm=1.0,
        loss_normalizer=1.0,
        num_units=2,
        num_clipped=0,
        num_non_finite=0,
        norm_quantiles=(),
    )


@pytest.fixture
def model(tiny_model_folder: Path) -> nn.Module:
    torch.manual_seed(0)
    return lora_model(tiny_model_folder)


@pytest.mark.parametrize("noise_stddev", [0.0, 1e-12, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 1e4])
def test_no_size_of_sum_and_noise_is_mistaken_for_a_difference(
    model: nn.Module, noise_stddev: float, size: float
) -> None:
    training = Training(model, noise_stddev=noise_stddev)
    for _ in range(20):
        training.step(size)
    seen = training.monitor.observed()
    assert seen.steps == 20
    assert seen.batches_as_drawn
    assert seen.normalizers == (7,)
    assert set(seen.noised_tensors) == set(seen.trained_tensors)
    assert seen.changed_elsewhere == ()


def test_a_normalizer_that_differs_a_little_is_seen(model: nn.Module) -> None:
    training = Training(model, noise_stddev=1.0)
    training.step(1.0, change=lambda handed: handed * ROUNDED)
    assert training.monitor.observed().normalizers == (7,)
    training.step(1.0, change=lambda handed: handed * OTHER)
    assert training.monitor.observed().normalizers == ()
    assert training.monitor.observed().noised_tensors == ()


def test_a_step_without_a_clipped_sum_is_seen(model: nn.Module) -> None:
    training = Training(model, noise_stddev=1.0)
    training.step(1.0)
    training.optimizer.step()
    assert training.monitor.observed().noised_tensors == ()


@pytest.mark.parametrize("name", ["a buffer", "a frozen weight", "a trained tensor"])
def test_one_changed_value_anywhere_is_seen(model: nn.Module, name: str) -> None:
    training = Training(model, noise_stddev=1.0)
    training.step(1.0)
    tensor = {
        "a buffer": next(model.buffers()),
        "a frozen weight": model.get_input_embeddings().weight,
        "a trained tensor": next(iter(training.parameters.values())),
    }[name]
    with torch.no_grad():
        tensor.view(-1)[0] = torch.nextafter(tensor.view(-1)[0], torch.tensor(torch.inf))
    assert len(training.monitor.observed().changed_elsewhere) == 1


def test_what_was_seen_survives_a_checkpoint(model: nn.Module) -> None:
    before, after = Training(model, noise_stddev=1.0), Training(model, noise_stddev=1.0)
    before.step(1.0, change=lambda handed: handed * OTHER)
    after.monitor.resume(before.monitor.kept(), optimizer=before.optimizer.state_dict())
    after.step(1.0)
    seen = after.monitor.observed()
    assert (seen.steps, after.sampler.samples_drawn, len(after.noise.digests)) == (2, 2, 2)
    assert (seen.normalizers, seen.noised_tensors) == ((), ())
    assert seen.noise_energy > before.monitor.observed().noise_energy
