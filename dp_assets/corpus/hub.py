"""Data sets of the Hugging Face hub, streamed into the private zone. Folders and files in the hub's layout work too.

The library `datasets` runs in a process of its own (`hub_reader.py`). It and the hub's client fix the paths of their
caches on first import, and this process may have imported them for public models. In the reader's process every cache
is in the private scratch folder, progress bars and telemetry are off, and printed text goes to standard error.

Left out: data sets that are not stored as Parquet or Arrow, because their columns' types would be guessed from private
rows.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dp_assets.corpus.columns import SourceError, check_mapping
from dp_assets.corpus.presets import PRESETS
from dp_assets.corpus.settings import PresetSteps
from dp_assets.corpus.spool import spooled

REFUSED = 3
"""The reader's exit status when its standard output says what to correct. Any other failure may depend on rows."""
ROWS = "rows"
CODE = Path(__file__).parents[2]
DEFAULT_HF_HOME = Path("~/.cache/huggingface")
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
CACHES = {
    "HF_HOME": "hub",
    "HF_HUB_CACHE": "hub/hub",
    "HUGGINGFACE_HUB_CACHE": "hub/hub",
    "HF_ASSETS_CACHE": "hub/assets",
    "HUGGINGFACE_ASSETS_CACHE": "hub/assets",
    "HF_XET_CACHE": "hub/xet",
    "HF_DATASETS_CACHE": "hub/datasets",
    "HF_MODULES_CACHE": "hub/modules",
    "XDG_CACHE_HOME": "cache",
    "TMPDIR": "tmp",
    "POLARS_OOC_SPILL_DIR": "tmp",
}


@dataclass(frozen=True)
class HubSource:
    """One split of a data set, given by `dataset`, an id on the hub, or by `path`, a local folder or Parquet file.

    A preset defines the columns and the steps. Without one, `own_columns` maps ours to the data set's, as for files.
    `revision` pins a commit, a branch or a tag.

    Raises:
      SourceError: there is no such preset, or the mapping lacks `text`.
    """

    dataset: str | None
    path: Path | None
    subset: str | None
    split: str
    revision: str | None
    preset: str | None
    own_columns: Mapping[str, str]
    steps: PresetSteps

    def __post_init__(self) -> None:
        if self.preset is None:
            check_mapping(self.own_columns)
        elif self.preset not in PRESETS:
            raise SourceError(f"source.preset must be one of {', '.join(PRESETS)}")

    @property
    def locator(self) -> str:
        """The data set without split and revision, which are snapshots of one corpus."""
        return f"huggingface:{self.dataset.lower()}" if self.dataset else f"file:{Path(self.path or '').resolve()}"

    @property
    def columns(self) -> Mapping[str, str]:
        """The configured columns, or those of the preset."""
        return self.own_columns if self.preset is None else PRESETS[self.preset].columns

    def scan(self, scratch: Path) -> pl.LazyFrame:
        """Return the rows, which are in `scratch` when this returns.

        Raises:
          SourceError: the library is not installed, the data set cannot be opened or is not Parquet, or its columns
            are not those of the mapping or the preset.
          RuntimeError: reading failed midway. The reader's own output may depend on rows and is not quoted.
        """
        self._read(scratch, only_open=False)
        return spooled(scratch / ROWS)

    def require_opened(self) -> None:
        """Open the data set and check its columns, without reading rows.

        Raises:
          SourceError: see `scan`.
        """
        with tempfile.TemporaryDirectory() as scratch:
            try:
                self._read(Path(scratch), only_open=True)
            except RuntimeError:
                raise SourceError(
                    f"the data set {self.dataset or self.path} cannot be opened; check source.dataset or path, the"
                    " network and its proxy"
                ) from None

    def _read(self, scratch: Path, *, only_open: bool) -> None:
        """Run the reader, which writes the rows to the folder `ROWS` of `scratch`, or only opens the data set."""
        if self.path is not None and not self.path.exists():
            raise SourceError(f"source.path {self.path} is neither a file nor a folder; correct the path")
        rows = scratch / ROWS
        for folder in (rows, *(scratch / name for name in CACHES.values())):
            folder.mkdir(parents=True, exist_ok=True)
        where = {"path": None if self.path is None else str(self.path), "rows": str(rows)}
        request = vars(self) | where | {"steps": self.steps.model_dump(), "only_open": only_open}
        done = subprocess.run(
            [sys.executable, "-m", "dp_assets.corpus.hub_reader"],
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL if only_open else None,  # None leads to the private log
            env=reader_environment(scratch),
        )
        if done.returncode == REFUSED:
            raise SourceError(done.stdout)
        if done.returncode:
            raise RuntimeError("the data set could not be read to its end")


def reader_environment(scratch: Path) -> dict[str, str]:
    """Return the reader's environment: caches in `scratch`, and the path of the user's own access token."""
    home = Path(os.environ.get("HF_HOME", DEFAULT_HF_HOME)).expanduser()
    token = {"HF_TOKEN_PATH": os.environ.get("HF_TOKEN_PATH", str(home / "token"))}
    caches = {variable: str(scratch / name) for variable, name in CACHES.items()}
    paths = [str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | token | caches | QUIET | {"PYTHONPATH": os.pathsep.join(paths)}
