"""Text embeddings by a sentence-transformers model, without padding and in batches of chosen shapes.

`SentenceTransformer.encode` sorts by characters and pads to the longest text of 32. Here all texts of a batch have
equally many tokens, so nothing is padded.

The shapes of tensors decide which kernels run, and so how a product rounds. For private texts, the shape of a batch
follows from the number of tokens of each text in it and a public constant; unused rows of a batch are filled. The other
texts then decide only the other contents that the same kernels read. `require_alone` (`dp_assets/corpus/stability.py`)
tests in the run that vectors are equal to the last bit, and refuses a model or device where they are not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

TOKENS_IN_FIXED_SHAPE = 256
"""The number of tokens of a batch: small, because the last batch of each length is computed in full, and large
enough to keep a processor busy."""
TOKENS_BY_LENGTH = 1024

Batches = Callable[[npt.NDArray[np.int64]], Iterator[npt.NDArray[np.int64]]]
"""Maps the number of tokens of each text to batches of indices of texts, with equally many tokens within a batch. Texts
without tokens are in no batch."""


def sentence_vectors(model: Any, texts: Sequence[str], batches: Batches) -> npt.NDArray[np.float32]:
    """Return L2-normalized vectors of shape (number of texts, dimension), batched by number of tokens.

    The vector of a text in which the model finds no token is zero.
    """
    import torch

    vectors = np.zeros((len(texts), dimension_of(model)), dtype=np.float32)
    if not texts:
        return vectors
    features = _features(model, texts)
    with torch.inference_mode():
        if "attention_mask" not in features:  # for example static embeddings, which are sums of vectors from a table
            for index, text in enumerate(texts):
                vectors[index] = _embedded(model, _features(model, [text]))[0]
            return vectors
        mask = features["attention_mask"].numpy().astype(bool)
        for batch in batches(mask.sum(axis=1)):
            columns = mask[batch[0]]
            vectors[batch] = _embedded(model, {name: _rows(value, batch, columns) for name, value in features.items()})
    return vectors


def dimension_of(model: Any) -> int:
    """Return the length of the model's vectors, which may be truncated (Matryoshka embeddings)."""
    return int(model.get_embedding_dimension())


def _features(model: Any, texts: Sequence[str]) -> Any:
    """Return the model's inputs for texts, each after the model's default prompt if it has one, as in `encode`."""
    return model.preprocess(list(texts), prompt=model.prompts.get(model.default_prompt_name))


def _embedded(model: Any, features: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Return vectors of length one, truncated to the model's dimension as in `encode`."""
    import torch

    on_device = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in features.items()}
    embedded = model(on_device)["sentence_embedding"].float()[:, : dimension_of(model)]
    normalized: npt.NDArray[np.float32] = torch.nn.functional.normalize(embedded, dim=-1).cpu().numpy()
    return normalized


def batches_by_length(lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches of texts of one length, up to a number of tokens."""
    for length in np.unique(lengths[lengths > 0]):
        indices = np.flatnonzero(lengths == length)
        slots = max(1, TOKENS_BY_LENGTH // int(length))
        yield from (indices[start : start + slots] for start in range(0, len(indices), slots))


def batches_of_fixed_shape(lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches with the same number of texts for one length; the last batch repeats its first text."""
    for length in np.unique(lengths[lengths > 0]):
        indices = np.flatnonzero(lengths == length)
        slots = max(1, TOKENS_IN_FIXED_SHAPE // int(length))
        for start in range(0, len(indices), slots):
            batch = indices[start : start + slots]
            yield np.concatenate([batch, np.repeat(batch[:1], slots - len(batch))])


def _rows(value: Any, batch: npt.NDArray[np.int64], columns: npt.NDArray[np.bool_]) -> Any:
    """Return the tokens of some texts in a feature with one number per token; other features are unchanged."""
    is_by_token = getattr(value, "ndim", 0) == 2 and value.shape[1] == len(columns)
    return value[batch][:, columns] if is_by_token else value
