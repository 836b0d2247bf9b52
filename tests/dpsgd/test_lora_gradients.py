"""Tapped LoRA layers compute what PEFT's do, hand out the factors of their gradients, and refuse what they cannot."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.pytorch_utils import Conv1D

from dp_assets.dpsgd.lora_gradients import UnclippableParameter, low_rank_layers, tapped

TOKENS, INPUTS, OUTPUTS = 7, 6, 10
A, B = (f"base_model.model.base_model.proj.lora_{matrix}.default.weight" for matrix in "AB")
FROZEN_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(INPUTS, OUTPUTS),
    "linear without bias": lambda: nn.Linear(INPUTS, OUTPUTS, bias=False),
    "transposed": lambda: Conv1D(OUTPUTS, INPUTS),
}


class Toy(nn.Module):
    """The least that taps ask of a language model: a body, of one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.ModuleDict({"proj": layer})


def adapted(frozen_layer: nn.Module, **config: Any) -> PeftModel:
    torch.manual_seed(5)
    options = {"r": 2, "lora_alpha": 6, "target_modules": ["proj"], "init_lora_weights": False}
    options["fan_in_fan_out"] = isinstance(frozen_layer, Conv1D)
    if frozen_layer.bias is not None:
        nn.init.normal_(frozen_layer.bias)  # type: ignore[arg-type]
    return get_peft_model(Toy(frozen_layer), LoraConfig(**(options | config))).eval()


def layer_of(model: PeftModel) -> Any:
    return model.get_base_model().base_model["proj"]


def backpropagate(model: PeftModel, inputs: Tensor) -> Tensor:
    """The layer's output, after the backward pass of a fixed weighted sum of it."""
    output: Tensor = layer_of(model)(inputs)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    (output.float() * weights).sum().backward()
    return output


def handed_out(model: PeftModel, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output of the tapped layer, and the gradient that each pair of factors makes."""
    handed: dict[str, Tensor] = {}

    def tap(name: str, output_gradient: Tensor, tapped_inputs: Tensor) -> None:
        assert name not in handed
        handed[name] = output_gradient[0].T @ tapped_inputs[0].float()

    with tapped(low_rank_layers(model), tap, num_tokens=TOKENS):
        output = backpropagate(model, inputs)
    return output, handed


def line(dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(6)
    return torch.randn(1, TOKENS, INPUTS).to(dtype).requires_grad_()


@pytest.mark.parametrize("kind", FROZEN_LAYERS)
def test_a_tapped_layer_computes_what_peft_does_and_hands_out_the_factors_of_its_gradients(kind: str) -> None:
    model, mine, peft = adapted(FROZEN_LAYERS[kind]()), line(), line()
    expected_output = backpropagate(model, peft)
    expected = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    model.zero_grad(set_to_none=True)
    output, handed = handed_out(model, mine)
    assert_close(output, expected_output)
    assert_close(mine.grad, peft.grad)
    assert set(handed) == {A, B}
    assert_close(handed, expected)
    assert all(weight.grad is None for weight in model.parameters())


def test_with_a_bfloat16_base_the_branch_is_computed_in_float32() -> None:
    model, mine, peft = adapted(nn.Linear(INPUTS, OUTPUTS).bfloat16()), line(torch.bfloat16), line(torch.bfloat16)
    expected_output = backpropagate(model, peft)
    expected = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    output, handed = handed_out(model, mine)
    assert output.dtype == torch.bfloat16
    assert_close(output, expected_output, rtol=2**-7, atol=2**-7)
    assert_close(mine.grad, peft.grad, rtol=2**-6, atol=2**-6)
    assert_close(handed, expected)  # in float32; a branch in bfloat16 would differ by 2**-9


def test_where_the_inputs_need_no_gradient_the_matrices_are_tapped_all_the_same() -> None:
    assert set(handed_out(adapted(nn.Linear(INPUTS, OUTPUTS)), line().detach())[1]) == {A, B}


@pytest.mark.parametrize("kind", FROZEN_LAYERS)
def test_what_a_tapped_layer_returns_may_be_changed_in_place(kind: str) -> None:
    """As some models clamp it."""
    model = adapted(FROZEN_LAYERS[kind]())
    with tapped(low_rank_layers(model), lambda *_: None, num_tokens=TOKENS):
        layer_of(model)(line()).clamp_(-1, 1).sum().backward()


def test_a_frozen_matrix_is_not_handed_out() -> None:
    model = adapted(nn.Linear(INPUTS, OUTPUTS))
    layer_of(model).lora_A.requires_grad_(False)
    assert set(handed_out(model, line())[1]) == {B}


def test_after_a_pass_that_fails_peft_runs_its_layers_again() -> None:
    model = adapted(nn.Linear(INPUTS, OUTPUTS))
    layers = low_rank_layers(model)

    def fail(*_: Any) -> None:
        assert "forward" in vars(layer_of(model))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), tapped(layers, fail, num_tokens=TOKENS):
        backpropagate(model, line())
    assert "forward" not in vars(layer_of(model))


# What is refused


def merge(model: PeftModel) -> None:
    layer_of(model).merge()


def disable(model: PeftModel) -> None:
    model.base_model.disable_adapter_layers()
    layer_of(model).lora_A.requires_grad_(True)


def activate_two(model: PeftModel) -> None:
    model.add_adapter("other", LoraConfig(r=2, target_modules=["proj"]))
    model.base_model.set_adapter(["default", "other"])


def activate_one_that_the_layer_lacks(model: PeftModel) -> None:
    layer_of(model).set_adapter("other")
    layer_of(model).lora_A.requires_grad_(True)


def leave_an_idle_adapter_trainable(model: PeftModel) -> None:
    model.add_adapter("other", LoraConfig(r=2, target_modules=["proj"]))
    layer_of(model).lora_B["other"].requires_grad_(True)


def replace_the_frozen_forward(model: PeftModel) -> None:
    layer_of(model).base_layer.forward = torch.tanh


def replace_the_forward(model: PeftModel) -> None:
    layer_of(model).forward = torch.tanh


def hook_a_matrix(model: PeftModel) -> None:
    layer_of(model).lora_A["default"].register_forward_hook(lambda module, inputs, output: 2 * output)


def hook_the_frozen_layer(model: PeftModel) -> None:
    layer_of(model).base_layer.register_forward_pre_hook(lambda module, inputs: inputs)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (merge, "takes no part in the loss, or not alone"),
        (disable, "takes no part in the loss, or not alone"),
        (activate_two, "takes no part in the loss, or not alone"),
        (activate_one_that_the_layer_lacks, "takes no part in the loss, or not alone"),
        (leave_an_idle_adapter_trainable, "lora_B.other.weight is trainable, but its adapter is not active"),
        (replace_the_frozen_forward, "hooks or another forward"),
        (replace_the_forward, "hooks or another forward"),
        (hook_a_matrix, "hooks or another forward"),
        (hook_the_frozen_layer, "hooks or another forward"),
    ],
)
def test_a_layer_in_a_state_that_computes_something_else_is_refused(
    change: Callable[[PeftModel], None], problem: str
) -> None:
    model = adapted(nn.Linear(INPUTS, OUTPUTS))
    change(model)
    with pytest.raises(UnclippableParameter, match=problem):
        low_rank_layers(model)


@pytest.mark.parametrize("config", [{"use_dora": True}, {"lora_bias": True}])
def test_a_variant_of_lora_is_refused_even_where_what_it_adds_is_frozen(config: dict[str, Any]) -> None:
    model = adapted(nn.Linear(INPUTS, OUTPUTS), **config)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in (A, B))
    with pytest.raises(UnclippableParameter, match="variant of LoRA"):
        low_rank_layers(model)


class Scaled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_a_frozen_layer_that_is_more_than_a_product_is_refused() -> None:
    with pytest.raises(UnclippableParameter, match="not a plain product"):
        low_rank_layers(adapted(Scaled(INPUTS, OUTPUTS)))


def test_an_adapter_upon_another_adapter_is_refused() -> None:
    """The frozen product is not all that lies beneath."""
    model = adapted(nn.Linear(INPUTS, OUTPUTS))
    layer_of(model).base_layer = layer_of(adapted(nn.Linear(INPUTS, OUTPUTS))).requires_grad_(False)
    with pytest.raises(UnclippableParameter, match="not a plain product"):
        low_rank_layers(model)
