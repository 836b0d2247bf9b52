"""Sampling in vLLM, an optional extra for GPUs: paged attention, kernels of its own, and all texts in flight at once.

The frozen model is loaded by vLLM itself and the generator's LoRA adapter from a folder as it is released, not folded
into the weights. vLLM computes it in the model's type, so texts may differ from those of transformers by rounding; its
random numbers differ anyway. Each text has a seed of its own that follows from the public seed and its number, so which
texts are in flight together decides nothing but rounding.

vLLM is imported when the engine starts, with its reports of usage to its makers switched off. It takes most of the
GPU's free memory until the engine is let go of. The folder of the adapter is a temporary one: no private adapter may
come here.
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
    """What is read of `dp_assets.generation.decoding.Decoding`."""

    @property
    def max_new_tokens(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def stop_ids(self) -> Collection[int]: ...
    @property
    def seed(self) -> int: ...


def require_usable(*, dtype: str, device: str) -> None:
    """Find out what can be found out without starting the engine.

    Raises:
      ImportError: vLLM is not installed, or does not fit what is.
      ValueError: its kernels for adapters do not compute in this type there.
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
      reference: what `from_pretrained` would take.
      dtype: "float32" or "bfloat16".
      texts_in_flight: the most that are written at once.

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
            skip_tokenizer_init=True,  # prompts are token ids already, and token ids are what is wanted
            generation_config="vllm",  # a model's own settings would change how tokens are chosen
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
        """What `dp_assets.generation.decoding.decode` does, but `batch_size` is not read: the engine batches itself."""
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
    """63 bits from a public seed and a text's number: texts of one prompt and one seed would be the same text."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> np.uint64(1))
