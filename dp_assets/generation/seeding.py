"""Public seeds for public randomness: adapter initialization, sampling of a released model, generated answers.

Seeds serve repeatability only. The noise and the batch draws of a mechanism never run inside `public_seed`: they take
operating-system entropy, and a seed would make them predictable.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def public_seed(seed: int) -> Iterator[None]:
    """Run the body under `seed` and put torch's global generators (CPU and every CUDA device) back afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()), device_type="cuda"):
        torch.manual_seed(seed)
        yield
