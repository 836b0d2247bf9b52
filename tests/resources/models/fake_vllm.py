"""A fake of vLLM, which few machines have: it writes tokens that follow from each text's seed."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from dp_assets.artifacts import Adapter
from resources.storage.adapter_io import load_adapter

LETTERS = range(40, 60)


class FakeLLM:
    """Writes tokens that follow from each text's seed, and ends with a stop token."""

    made: ClassVar["list[FakeLLM]"] = []
    refusal: ClassVar[Exception | None] = None

    def __init__(self, **settings: Any) -> None:
        if FakeLLM.refusal is not None:
            raise FakeLLM.refusal
        self.settings, self.calls = settings, list[SimpleNamespace]()
        self.adapter: Adapter | None = None
        FakeLLM.made.append(self)

    def generate(self, prompts: list[Any], parameters: list[Any], *, lora_request: Any, use_tqdm: bool) -> list[Any]:
        if lora_request is not None:
            self.adapter = load_adapter(Path(lora_request.path))
        self.calls.append(SimpleNamespace(prompts=prompts, parameters=parameters))
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=self._text(each))]) for each in parameters]

    def _text(self, parameters: Any) -> tuple[int, ...]:
        letters = np.random.default_rng(parameters.seed).choice(LETTERS, parameters.max_tokens - 1)
        return (*letters.tolist(), parameters.stop_token_ids[-1])


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    """Let an import of vLLM find the fake."""
    package, requests = ModuleType("vllm"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams = FakeLLM, SimpleNamespace  # type: ignore[attr-defined]
    requests.LoRARequest = lambda name, number, path: SimpleNamespace(  # type: ignore[attr-defined]
        name=name, number=number, path=path
    )
    for name, module in (("vllm", package), ("vllm.lora", ModuleType("vllm.lora")), ("vllm.lora.request", requests)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(FakeLLM, "made", [])
    monkeypatch.setattr(FakeLLM, "refusal", None)
    return FakeLLM


def adapter(*, rank: int = 4) -> Adapter:
    weights = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": np.ones((rank, 8), np.float32)}
    return Adapter(weights, {"r": rank, "lora_alpha": 8, "peft_type": "LORA"}, "tiny", ("charge",))
