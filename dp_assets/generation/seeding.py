"""Public seeds for public randomness: adapter initialization, sampling of a released model, generated answers.

Seeds are for reproducibility only. The noise and the batch sampling of a mechanism never run inside `public_seed`. They
use the operating system's entropy, because a seed would make them predictable.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def public_seed(seed: int) -> Iterator[None]:
    """Run the body under `seed`, then restore torch's global generators (CPU and every CUDA device)."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()), device_type="cuda"):
        torch.manual_seed(seed)
        yield
