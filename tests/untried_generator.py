"""The real generator whose model is not tried before the charge.

A difference that a test plants would be found by that, and here the evidence is to tell it.
"""

from dp_assets.generation.generator import DpSgdGenerator


class UntriedGenerator(DpSgdGenerator):
    """Trains as the generator does."""

    def require_ready(self) -> None:
        """The model is not tried."""
