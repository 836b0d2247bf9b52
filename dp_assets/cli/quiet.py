"""Suppress output of libraries that does not concern the user of a command."""

import atexit
import os
import signal
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
    """Suppress what libraries print that the user cannot act on.

    That is telemetry, progress bars, one warning about a name that PEFT uses, and DuckDB's report at exit.
    """
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    atexit.register(_close_standard_error)


def let_interrupts_end_waits() -> None:
    """Let SIGINT end a wait of the main thread at once. The handler that Polars installs at import resumes waits."""
    signal.siginterrupt(signal.SIGINT, True)


def _close_standard_error() -> None:
    """Close standard error. Exit handlers run last in, first out, so handlers registered later still print."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_ERROR)
