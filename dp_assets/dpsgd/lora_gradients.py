"""LoRA layers as autograd functions that pass the factors of their matrices' gradients to a callback, the tap.

A linear layer with a low-rank branch (Hu et al. 2022, LoRA) computes

    y = x W' + b + s (x A') B'        W and b frozen, s the scaling, A [rank, inputs], B [outputs, rank]

With G the gradient of y and H = s G B, the gradients are

    of B   G' (s x A')                of A   H' x                of x   G W + H A

Those of A and B are sums over tokens of outer products of two factors.

During a pass this function replaces the forward of PEFT's layers. Its backward pass calls a tap with both factors of
each trainable matrix and gives the matrix itself no gradient. The tap decides what to compute from the factors, such as
one gradient for each row (`clipping.py`). The low-rank branch is added in place to the frozen layer's output, so it
costs two narrow products and no further pass over the activations. PEFT's own layers make several.

Left out: branches that compute anything else (DoRA and other variants, biases, several adapters at once), and frozen
layers that are more than a product or have hooks. They are refused. Dropout is not computed: `clipping.py` refuses it
in training mode, and in evaluation mode it has no effect.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from dp_assets.dpsgd.packing import causal_lm, forwarding
from dp_assets.privacy.errors import PublicError

Tap = Callable[[str, Tensor, Tensor], None]
"""Takes a matrix's name and the factors of its gradient: [1, tokens, outputs] in float32, and [1, tokens, inputs] as
autograd saved it, in the type of the layer's inputs."""


class UnclippableParameter(PublicError, ValueError):
    """A trainable parameter whose per-row gradient cannot be computed, and so cannot be clipped."""


@dataclass(frozen=True)
class LowRankLayer:
    """A PEFT layer with one active adapter, and the parameter names of A and B; None for a frozen one."""

    module: LoraLinear
    adapter: str
    names: tuple[str | None, str | None]

    @property
    def matrices(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return A and B."""
        return self.module.lora_A[self.adapter].weight, self.module.lora_B[self.adapter].weight

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the matrices that are trained, by name."""
        return {name: matrix for name, matrix in zip(self.names, self.matrices, strict=True) if name}

    @property
    def scaling(self) -> float:
        """Return s, the factor of the low-rank branch."""
        return float(self.module.scaling[self.adapter])

    @property
    def frozen(self) -> tuple[Tensor, Tensor | None]:
        """Return W and b; None for a layer without bias."""
        base = self.module.base_layer
        return base.weight.T if isinstance(base, Conv1D) else base.weight, base.bias


def low_rank_layers(model: nn.Module) -> list[LowRankLayer]:
    """Return the layers of the model's body that have a trainable matrix. A matrix shared by two is in both.

    Raises:
      UnclippableParameter: something trainable is not a float32 matrix of a layer that `tapped` can run.
      ValueError: nothing is trainable.
    """
    trainable = {id(weight): name for name, weight in model.named_parameters() if weight.requires_grad}
    body = causal_lm(model).base_model.modules()  # per-row gradients can be computed only here
    modules = [module for module in body if isinstance(module, LoraLayer)]
    matrices = {id(matrix): matrix for module in modules for matrix in _matrices(module)}
    for key, name in sorted(trainable.items(), key=lambda item: item[1]):
        if key not in matrices:
            raise UnclippableParameter(
                f"{name} is trainable but is no LoRA matrix of a linear layer of the model's body; freeze it"
            )
        if matrices[key].dtype != torch.float32:
            raise UnclippableParameter(f"{name} must be float32: lower precision is too coarse to clip and to add up")
    if not trainable:
        raise ValueError("the model has no trainable LoRA matrix; wrap it with peft.get_peft_model first")
    return [_checked(module, trainable) for module in modules if any(id(m) in trainable for m in _matrices(module))]


def _matrices(module: LoraLayer) -> list[Tensor]:
    """Return the low-rank matrices of all adapters of a layer."""
    parts = [*module.lora_A.values(), *module.lora_B.values()]
    return [part.weight for part in parts if type(part) is nn.Linear]


def _checked(module: LoraLayer, trainable: Mapping[int, str]) -> LowRankLayer:
    """Return the layer if it computes exactly what `_LowRankLinear` does.

    Raises:
      UnclippableParameter: it computes anything else, or holds a trainable matrix of an adapter that is not active.
    """
    names = {trainable[id(matrix)] for matrix in _matrices(module) if id(matrix) in trainable}
    name = min(names)
    active = [adapter for adapter in module.active_adapters if adapter in module.lora_A]
    if module.disable_adapters or module.merged or len(active) != 1:
        raise UnclippableParameter(f"{name} takes no part in the loss, or not alone; activate one adapter, unmerged")
    [adapter] = active
    first, second = module.lora_A[adapter], module.lora_B[adapter]
    if type(module) is not LoraLinear or type(module.base_layer) not in (nn.Linear, Conv1D):
        raise UnclippableParameter(f"{name} adapts a layer that is not a plain product; choose other target modules")
    if module.lora_variant or module.lora_bias[adapter]:
        raise UnclippableParameter(f"{name} belongs to a variant of LoRA; train a plain LoRA adapter")
    if any(_is_hooked(part) for part in (module, module.base_layer, first, second)):
        raise UnclippableParameter(f"{name} lies in a layer with hooks or another forward; remove them")
    layer = LowRankLayer(module, adapter, (trainable.get(id(first.weight)), trainable.get(id(second.weight))))
    if idle := names - layer.trainable.keys():
        raise UnclippableParameter(f"{min(idle)} is trainable, but its adapter is not active; freeze it")
    return layer


def _is_hooked(module: nn.Module) -> bool:
    return "forward" in vars(module) or bool(module._forward_hooks or module._forward_pre_hooks)


@contextmanager
def tapped(layers: Sequence[LowRankLayer], tap: Tap, *, num_tokens: int) -> Iterator[None]:
    """Within the context, the backward pass of a packed sequence calls `tap` with the factors of each trainable matrix.

    Raises:
      UnclippableParameter: in the forward pass, if a layer's input is not [1, num_tokens, features].
    """

    def run(layer: LowRankLayer, inputs: Tensor) -> Tensor:
        if inputs.ndim != 3 or inputs.shape[:2] != (1, num_tokens):
            name = next(iter(layer.trainable))
            raise UnclippableParameter(f"{name} gets an input that is not [1, tokens, features]; freeze it")
        output: Tensor = _LowRankLinear.apply(inputs, *layer.matrices, layer, tap)  # type: ignore[no-untyped-call]
        return output

    with ExitStack() as taps:
        for layer in layers:
            taps.enter_context(forwarding(layer.module, partial(run, layer)))
        yield


class _LowRankLinear(torch.autograd.Function):  # type: ignore[misc]
    """The formulas of this module's docstring, for a packed sequence [1, tokens, features].

    The matrices are arguments so that autograd calls `backward` even if the inputs need no gradient. Taps are called in
    the backward pass only, so a forward pass that gradient checkpointing repeats is not counted twice.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, first: Tensor, second: Tensor, layer: LowRankLayer, tap: Tap) -> Tensor:
        narrow = layer.scaling * functional.linear(inputs.to(first.dtype), first)
        weight, bias = layer.frozen
        output = functional.linear(inputs, weight).to(second.dtype)  # with a bias argument it would be a view
        output[0].addmm_(narrow[0], second.T)
        if bias is not None:
            output += bias
        ctx.save_for_backward(inputs, narrow, first, second)
        ctx.layer, ctx.tap = layer, tap
        return output.to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        inputs, narrow, first, second = ctx.saved_tensors
        gradient = output_gradient.to(second.dtype)
        narrow_gradient = ctx.layer.scaling * (gradient @ second)
        for name, *factors in zip(ctx.layer.names, (narrow_gradient, gradient), (inputs, narrow), strict=True):
            if name is not None:
                ctx.tap(name, *factors)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        weight, _ = ctx.layer.frozen
        input_gradient = (output_gradient @ weight).to(first.dtype)
        input_gradient[0].addmm_(narrow_gradient[0], first)
        return input_gradient.to(inputs.dtype), None, None, None, None
