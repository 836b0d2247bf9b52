"""A copy of the adapter and its optimizer, which the run monitor steps only with the gradients that it compared.

Guarantee: if the parameters of training and replica are equal after every step, the trained parameters are what an
optimizer with public constants computes from the gradients so far, to the last bit. An exact gradient in an optimizer
moment, a learning rate that depends on the batch, or a parameter that was set directly gives different bits, in this
step or a later one. Equality is exact because the same class runs the same operations on tensors of the same shapes, on
the same device.

A checkpoint keeps only a digest of the replica. On resuming it shows whether the restored state is the monitored one.
"""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

NewOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Replica:
    """Copies of `parameters`, and their own optimizer."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], new_optimizer: NewOptimizer) -> None:
        self.parameters = {name: nn.Parameter(tensor.detach().clone()) for name, tensor in parameters.items()}
        self.optimizer = new_optimizer(self.parameters.values())

    def take(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Copy the gradients for the next step; None for a parameter without one."""
        for name, parameter in self.parameters.items():
            gradient = gradients[name]
            parameter.grad = None if gradient is None else gradient.detach().clone()

    def step(self) -> None:
        """Update the copies once with the gradients of `take`."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def differing(self, parameters: Mapping[str, Tensor]) -> set[str]:
        """Return the names of the tensors in `parameters` whose bits differ from the copies."""
        return {name for name, tensor in parameters.items() if not same_bits(tensor, self.parameters[name])}

    def follow(self, parameters: Mapping[str, Tensor]) -> None:
        """Set the copies to `parameters`, so that a difference is reported once."""
        with torch.no_grad():
            for name, tensor in parameters.items():
                self.parameters[name].copy_(tensor)

    def restore(self, parameters: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> None:
        """Restore a checkpoint's parameters and moments. The constants stay those of this process."""
        self.follow(parameters)
        constants = self.optimizer.state_dict()["param_groups"]
        moments = copy.deepcopy(optimizer["state"])  # torch would share the tensors, and steps change them in place
        self.optimizer.load_state_dict({"state": moments, "param_groups": constants})

    @property
    def digest(self) -> str:
        """SHA-256 of parameters and moments."""
        digest = hashlib.sha256()
        for name, tensor in self._tensors():
            digest.update(name.encode())
            _add(digest, tensor)
        return digest.hexdigest()

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.parameters.items():
            yield name, parameter
            for moment, value in sorted(self.optimizer.state.get(parameter, {}).items()):
                yield f"{name} {moment}", torch.as_tensor(value)


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer with its name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def digests_of(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the SHA-256 of each tensor by name."""
    digests = {}
    for name, tensor in tensors.items():
        digest = hashlib.sha256()
        _add(digest, tensor)
        digests[name] = digest.hexdigest()
    return digests


def _add(digest: "hashlib._Hash", tensor: Tensor) -> None:
    """Add type, shape and bits of a tensor to a digest."""
    digest.update(f" {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of the same shape and type hold the same bits. NaN equals an identical NaN."""
    return bool(torch.equal(bits(first), bits(second)))


def bits(tensor: Tensor) -> Tensor:
    """Return the bits of a tensor as integers, flat."""
    flat = tensor.detach().reshape(-1)
    return flat.view(INTEGERS[flat.element_size()])
