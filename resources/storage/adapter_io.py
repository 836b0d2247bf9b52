"""Write an adapter to a folder and read it back. `PeftModel.from_pretrained(base, folder)` opens the same folder.

    adapter_config.json         PEFT's configuration
    adapter_model.safetensors   the float32 tensors
    provenance.json             base model, charge ids and training record

The provenance lies in the folder itself, so that a copied adapter still states its lineage. This module needs no torch.
Writing in one step (temporary name, then rename) is left to the caller.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from dp_assets.artifacts import Adapter

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PROVENANCE_FILE = "provenance.json"


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write the three files of `adapter` into `folder`, which is created if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    provenance = {
        "base_model": adapter.base_model,
        "charge_ids": list(adapter.charge_ids),
        "record": dict(adapter.record),
    }
    (folder / CONFIG_FILE).write_text(_pretty(dict(adapter.config)), encoding="utf-8")
    (folder / PROVENANCE_FILE).write_text(_pretty(provenance), encoding="utf-8")
    tensors = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in adapter.weights.items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})  # Hugging Face loaders look for this mark


def load_adapter(folder: Path) -> Adapter:
    """Return the adapter that `save_adapter` wrote to `folder`.

    Raises:
      FileNotFoundError: a file is missing. An adapter without provenance would appear to have no privacy cost.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"the adapter folder {folder} has no {name}; materialize the adapter again")
    provenance = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))
    return Adapter(
        weights=load_file(folder / WEIGHTS_FILE),
        config=json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")),
        base_model=provenance["base_model"],
        charge_ids=tuple(provenance["charge_ids"]),
        record=provenance["record"],
    )


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
