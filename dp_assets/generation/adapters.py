"""LoRA adapters as values: add a new one to a frozen model, extract it from a trained model, attach it to a base model.

The base model never changes. What is trained, released and composed is the adapter (Hu et al. 2022, LoRA). Adapter
tensors are float32 whatever the base model's type, because they carry the noise, and small updates that bfloat16 would
round to zero. Dropout is 0, so that a unit's gradient is one deterministic vector. Biases stay frozen, because DP-SGD
clips only the gradients of LoRA matrices.

The functions work on PEFT models of any task type. So the `score` head of a reward model (`modules_to_save`) is stored
with its adapter. Left out: adapters of other kinds than LoRA, and several adapters on one model (merge one before
attaching the next).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from transformers import PreTrainedModel

from dp_assets.artifacts import Adapter
from dp_assets.generation.seeding import public_seed

_ACTIVE = "default"


def new_adapter_model(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: float,
    target_modules: Sequence[str],
    layers: Sequence[int] | None,
    seed: int,
) -> PeftModel:
    """Freeze `model` and add a trainable LoRA adapter, which does not change its outputs yet.

    Args:
      model: the base model.
      rank: inner dimension r of the two factors.
      alpha: the product of the factors is scaled by alpha / rank.
      target_modules: names of the adapted linear layers, such as "q_proj".
      layers: indices of the adapted blocks; None for all.
      seed: public seed of the first factor. The second factor starts at zero.

    Raises:
      ValueError: `layers` names a block that the model does not have, or `target_modules` matches nothing.
    """
    num_layers = model.config.num_hidden_layers
    if layers is not None and not all(0 <= layer < num_layers for layer in layers):
        raise ValueError(f"layers names a block outside 0..{num_layers - 1}; the model has {num_layers} blocks")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(target_modules),
        layers_to_transform=None if layers is None else list(layers),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with public_seed(seed):
        return get_peft_model(model, config, autocast_adapter_dtype=True)


def adapter_from_model(model: PeftModel, *, base_model: str, record: Mapping[str, Any]) -> Adapter:
    """Return the adapter of `model` as a value that shares no memory with it. The caller adds its charges.

    Args:
      model: a PEFT model with one adapter.
      base_model: the id under which users find the base model. It replaces the local path in the PEFT configuration.
      record: public facts about the training.
    """
    config = model.peft_config[_ACTIVE].to_dict() | {"base_model_name_or_path": base_model, "inference_mode": True}
    return Adapter(
        weights=_float32_arrays(_adapter_tensors(model)),
        config=json.loads(json.dumps(config, default=sorted)),  # PEFT keeps sets of names, and JSON has no sets.
        base_model=base_model,
        record=dict(record),
    )


def attach_adapter(model: PreTrainedModel, adapter: Adapter, *, trainable: bool = False) -> PeftModel:
    """Attach `adapter` to `model` in place, frozen unless `trainable`, and return the PEFT model.

    Call `merge_and_unload()` on the result to get a plain model with the adapter folded in.

    Raises:
      ValueError: the names of the adapter's tensors are not those that its configuration requires on this model.
    """
    stored = {**adapter.config, "base_model_name_or_path": None, "inference_mode": not trainable}
    with public_seed(0):  # PEFT draws an initialization that the stored tensors then replace.
        attached = get_peft_model(model, PeftConfig.from_peft_type(**stored), autocast_adapter_dtype=True)
    if _adapter_tensors(attached).keys() != adapter.weights.keys():
        raise ValueError("adapter.weights do not fit the model; attach the adapter to its own adapter.base_model")
    tensors = {name: torch.tensor(array) for name, array in adapter.weights.items()}
    set_peft_model_state_dict(attached, tensors)
    return attached


def _adapter_tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return the adapter's state dict. Embeddings are never adapted; letting PEFT check that would query the hub."""
    tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return tensors


def arrays_of_parameters(parameters: Mapping[str, torch.Tensor]) -> dict[str, npt.NDArray[np.float32]]:
    """Convert LoRA parameters, by their names in a PEFT model, to the weights of an adapter."""
    return _float32_arrays({name.replace(f".{_ACTIVE}.", "."): tensor for name, tensor in parameters.items()})


def _float32_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, npt.NDArray[np.float32]]:
    return {name: np.array(tensor.detach().float().cpu().numpy()) for name, tensor in tensors.items()}
