"""Keeping a command's output to what its user needs to read."""

import atexit
import os
import sys
import warnings

ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
STANDARD_ERROR = 2


def quiet_process() -> None:
    """Switch off what libraries say that is no fault of a user's.

    That is telemetry and progress bars, one warning about a name that PEFT uses, and DuckDB's report at exit.
    """
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    atexit.register(_close_standard_error)


def _close_standard_error() -> None:
    """Exit handlers run last in, first out, so whatever a handler registered later prints is still seen."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_ERROR)
