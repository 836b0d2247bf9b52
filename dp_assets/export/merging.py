"""Full models: the base model with an adapter merged into it, in the form that `AutoModel...from_pretrained` opens.

The weights are added in float32, because bfloat16 would round away part of an adapter's small update. They are stored
in float32 unless the profile sets another type.
"""

from pathlib import Path
from typing import Any

from dp_assets.alignment.reward import attach_reward_adapter
from dp_assets.artifacts import Adapter
from dp_assets.export.parts import Part
from dp_assets.generation.adapters import attach_adapter
from resources.models.loaders import LanguageModel
from resources.storage.adapter_io import load_adapter


def write_merged(part: Part, adapter_folder: Path, target: Path, *, language_model: LanguageModel, dtype: str) -> None:
    """Write the merged model of a part and its tokenizer to `target`.

    Args:
      part: the model.
      adapter_folder: where its adapter is.
      target: the folder to write.
      language_model: the base model.
      dtype: of the stored weights, "float32" or "bfloat16".

    Raises:
      ModelUnavailable: the base model cannot be loaded.
      ValueError: the adapter belongs to another base model.
    """
    base, tokenizer = language_model.load(dtype="float32")
    merged = _attached(base, tokenizer, load_adapter(adapter_folder), part.is_scorer).merge_and_unload()
    if dtype == "bfloat16":
        merged = merged.bfloat16()
    merged.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _attached(base: Any, tokenizer: Any, adapter: Adapter, is_scorer: bool) -> Any:
    return attach_reward_adapter(base, tokenizer, adapter) if is_scorer else attach_adapter(base, adapter)
