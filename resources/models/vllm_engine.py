"""Sampling in vLLM, an optional extra for GPUs: paged attention, its own kernels, and continuous batching.

vLLM loads the frozen model itself, and the generator's LoRA adapter from a folder as it is released, without merging it
into the weights. It computes the adapter in the model's type, so texts may differ from those of transformers by
rounding; its random numbers differ anyway. Each text has a seed of its own, which follows from the public seed and its
number. So the texts that are sampled together affect one another by rounding only.

vLLM is imported when the engine starts, with its usage reports to its makers switched off. It takes most of the GPU's
free memory until the engine is deleted. The adapter's folder is a temporary one, so no private adapter may be loaded
here.
"""

import os
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dp_assets.artifacts import Adapter
from dp_assets.settings.vllm import RANKS
from resources.storage.adapter_io import save_adapter


class HowTokensAreChosen(Protocol):
    """The parts of `dp_assets.generation.decoding.Decoding` that are read."""

    @property
    def max_new_tokens(self) -> int:
        """The longest text."""

    @property
    def temperature(self) -> float:
        """What logits are divided by; 0 takes the likeliest token."""

    @property
    def top_p(self) -> float:
        """The share of the likeliest tokens that are drawn from."""

    @property
    def stop_ids(self) -> Collection[int]:
        """The tokens that end a text."""

    @property
    def seed(self) -> int:
        """The public seed."""


def require_usable(*, dtype: str, device: str) -> None:
    """Check what can be checked without starting the engine.

    Raises:
      ImportError: vLLM is not installed, or does not fit the installed packages.
      ValueError: its kernels for adapters do not compute in this type on this device.
    """
    _vllm()
    if device.startswith("cuda") and dtype == "float32":
        raise ValueError("dtype is float32, and on a GPU vLLM computes adapters in 16 bits; set dtype to 'bfloat16'")


def _vllm() -> Any:
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    import vllm

    return vllm


class VllmModel:
    """A causal language model in vLLM, with a LoRA adapter on it unless `adapter` is None.

    Args:
      reference: the argument that `from_pretrained` would take.
      dtype: "float32" or "bfloat16".
      texts_in_flight: the largest number of texts that are sampled at once.

    Raises:
      ValueError: the adapter's rank is larger than vLLM serves.
    """

    def __init__(self, reference: str, adapter: Adapter | None, *, dtype: str, texts_in_flight: int) -> None:
        LLM = _vllm().LLM
        self._folder = tempfile.TemporaryDirectory(prefix="adapter-")
        self._adapter = None if adapter is None else _requested(adapter, Path(self._folder.name))
        self._engine = LLM(
            model=reference,
            dtype=dtype,
            max_num_seqs=texts_in_flight,
            skip_tokenizer_init=True,  # prompts and results are token ids
            generation_config="vllm",  # the model's own settings would change how tokens are chosen
            **({} if adapter is None else {"enable_lora": True, "max_lora_rank": _room_for(adapter)}),
        )

    def continue_texts(
        self,
        prompts: Sequence[Sequence[int]],
        decoding: HowTokensAreChosen,
        *,
        batch_size: int,
        first_number: int,
        advance: Callable[[int], None],
    ) -> list[list[int]]:
        """Do the same as `dp_assets.generation.decoding.decode`. The engine batches itself and ignores `batch_size`."""
        outputs = self._engine.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            [_parameters(decoding, first_number + index) for index in range(len(prompts))],
            lora_request=self._adapter,
            use_tqdm=False,
        )
        advance(len(prompts))
        return [list(output.outputs[0].token_ids) for output in outputs]


def _requested(adapter: Adapter, folder: Path) -> Any:
    from vllm.lora.request import LoRARequest

    save_adapter(adapter, folder)
    return LoRARequest("generator", 1, str(folder))


def _room_for(adapter: Adapter) -> int:
    rank = int(adapter.config["r"])
    if rank > RANKS[-1]:
        raise ValueError(
            f"generator.rank is {rank}, and vLLM serves adapters of rank {RANKS[-1]} at most; set sampling.engine to"
            " 'transformers'"
        )
    return next(room for room in RANKS if rank <= room)


def _parameters(decoding: HowTokensAreChosen, number: int) -> Any:
    return _vllm().SamplingParams(
        max_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        stop_token_ids=sorted(decoding.stop_ids),
        seed=_seed_of_text(decoding.seed, number),
        detokenize=False,
    )


def _seed_of_text(seed: int, number: int) -> int:
    """Return 63 bits from a public seed and a text's number. With one seed, texts of one prompt would be equal."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> np.uint64(1))
