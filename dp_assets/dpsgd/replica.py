"""A second copy of the adapter and its optimizer, which the run monitor moves by the gradients that it checked alone.

Guarantee: after each step the trained parameters are, to the last bit, what an optimizer of public constants makes of
the gradients so far. An exact gradient in a moment, a learning rate that follows the batch or a parameter set by hand
gives other bits, here or in a later step. Equality is exact because the same class computes the same operations on
tensors of the same shapes, on the same device.

A checkpoint keeps only a digest of the replica, which tells whether what is restored from it is what was watched.
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
    """Copies of `parameters`, and an optimizer of their own."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], new_optimizer: NewOptimizer) -> None:
        self.parameters = {name: nn.Parameter(tensor.detach().clone()) for name, tensor in parameters.items()}
        self.optimizer = new_optimizer(self.parameters.values())

    def take(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Keep copies of the gradients for the next step; None where a parameter has none."""
        for name, parameter in self.parameters.items():
            gradient = gradients[name]
            parameter.grad = None if gradient is None else gradient.detach().clone()

    def step(self) -> None:
        """One update with the gradients taken."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def differing(self, parameters: Mapping[str, Tensor]) -> set[str]:
        """The names under which `parameters` hold other bits than the copies."""
        return {name for name, tensor in parameters.items() if not same_bits(tensor, self.parameters[name])}

    def follow(self, parameters: Mapping[str, Tensor]) -> None:
        """Take over `parameters`, so that one difference is noted once."""
        with torch.no_grad():
            for name, tensor in parameters.items():
                self.parameters[name].copy_(tensor)

    def restore(self, parameters: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> None:
        """Go back to a checkpoint's parameters and moments. The constants stay those of this process."""
        self.follow(parameters)
        constants = self.optimizer.state_dict()["param_groups"]
        moments = copy.deepcopy(optimizer["state"])  # torch would share the tensors, which change in place
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
    """Every parameter and buffer by name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def digests_of(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of each tensor by name."""
    digests = {}
    for name, tensor in tensors.items():
        digest = hashlib.sha256()
        _add(digest, tensor)
        digests[name] = digest.hexdigest()
    return digests


def _add(digest: "hashlib._Hash", tensor: Tensor) -> None:
    """Type, shape and bits of a tensor."""
    digest.update(f" {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one shape and type hold the same bits, whatever numbers those stand for."""
    return bool(torch.equal(bits(first), bits(second)))


def bits(tensor: Tensor) -> Tensor:
    """The bits of a tensor, read as integers, flat."""
    flat = tensor.detach().reshape(-1)
    return flat.view(INTEGERS[flat.element_size()])
