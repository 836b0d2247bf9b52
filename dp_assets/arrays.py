"""Arrays by the type of their numbers, as signatures name them; their shapes are said beside the parameters."""

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
"""Embeddings or centroids, one a row."""
Integers = npt.NDArray[np.int64]
"""Counts, or ids of bins."""
Floats = npt.NDArray[np.float64]
