"""The replica goes where the optimizer of public constants takes it, and tells a difference of one bit."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from dp_assets.dpsgd.replica import Replica, digests_of, same_bits

NEW_OPTIMIZER = partial(torch.optim.Adam, lr=0.01)


def start() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {name: nn.Parameter(torch.randn(3, 2)) for name in ("a", "b")}


@pytest.fixture
def parameters() -> dict[str, nn.Parameter]:
    return start()


def gradients(number: int) -> dict[str, Tensor | None]:
    torch.manual_seed(number)
    return {"a": torch.randn(3, 2), "b": torch.randn(3, 2) if number else None}


def trained(parameters: dict[str, nn.Parameter], steps: int) -> tuple[torch.optim.Optimizer, Replica]:
    optimizer, replica = NEW_OPTIMIZER(parameters.values()), Replica(parameters, NEW_OPTIMIZER)
    for number in range(steps):
        for name, gradient in gradients(number).items():
            parameters[name].grad = gradient
        replica.take(gradients(number))
        optimizer.step()
        replica.step()
    return optimizer, replica


def test_the_same_gradients_lead_to_the_same_bits(parameters: dict[str, nn.Parameter]) -> None:
    _, replica = trained(parameters, 4)
    assert replica.differing(parameters) == set()


def test_a_parameter_that_moves_by_one_bit_is_named_until_it_is_followed(parameters: dict[str, nn.Parameter]) -> None:
    _, replica = trained(parameters, 2)
    with torch.no_grad():
        parameters["b"].view(torch.int32)[0, 0] ^= 1
    assert replica.differing(parameters) == {"b"}
    replica.follow(parameters)
    assert replica.differing(parameters) == set()


def test_the_digest_covers_parameters_and_moments(parameters: dict[str, nn.Parameter]) -> None:
    _, replica = trained(parameters, 2)
    before = replica.digest
    for tensor in (replica.parameters["a"].detach(), replica.optimizer.state[replica.parameters["a"]]["exp_avg"]):
        was = tensor.clone()
        tensor[0, 0] += 1
        assert replica.digest != before
        tensor.copy_(was)
        assert replica.digest == before


def test_what_a_checkpoint_holds_is_restored_but_for_its_constants(parameters: dict[str, nn.Parameter]) -> None:
    optimizer, replica = trained(parameters, 3)
    stored = copy.deepcopy(optimizer.state_dict())
    stored["param_groups"][0]["lr"] = 1.0
    other = Replica(start(), NEW_OPTIMIZER)
    other.restore({name: tensor.detach() for name, tensor in parameters.items()}, stored)
    assert other.digest == replica.digest
    assert other.optimizer.param_groups[0]["lr"] == 0.01
    for each in (replica, other):
        each.take(gradients(7))
        each.step()
    assert other.digest == replica.digest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool])
def test_bits_are_compared_and_not_numbers(dtype: torch.dtype) -> None:
    assert same_bits(torch.ones(3, dtype=dtype), torch.ones(3, dtype=dtype))
    if dtype.is_floating_point:
        nothing, not_a_number = torch.zeros(2, dtype=dtype), torch.full((2,), float("nan"), dtype=dtype)
        assert not same_bits(nothing, -nothing)
        assert same_bits(not_a_number, not_a_number.clone())


def test_a_digest_tells_types_and_shapes_apart() -> None:
    forms = {"flat": torch.zeros(4), "square": torch.zeros(2, 2), "integers": torch.zeros(4, dtype=torch.int32)}
    assert len(set(digests_of(forms).values())) == 3
