"""Facts about vLLM that settings need: how it is installed, and the ranks of adapters that it serves."""

from importlib.util import find_spec

INSTALL = "pip install 'dp-instructions[vllm]'"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""vLLM sets memory aside for one of these ranks; smaller ones fit into it."""


def is_installed() -> bool:
    """Return whether vLLM is installed."""
    return find_spec("vllm") is not None
