"""Vectors of texts by a sentence-transformers model, without padding and in batches of chosen shapes.

`SentenceTransformer.encode` sorts by characters and pads to the longest text of 32. Here texts of as many tokens share
a batch, so nothing is padded.

Which kernels run, and so how a product rounds, follows from the shapes of tensors. For private texts a batch has a
shape that follows from the number of tokens of each text in it and a public constant: places that no text needs are
filled. Who else is embedded then decides only which other contents the same kernels see. `require_alone`
(`dp_assets/corpus/stability.py`) tests in the run that vectors come out the same to the last bit, and refuses a model
or device where they do not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

TOKENS_IN_FIXED_SHAPE = 256
"""Small, since the last batch of each length is computed in full, and enough to keep a processor busy."""
TOKENS_BY_LENGTH = 1024

Batches = Callable[[npt.NDArray[np.int64]], Iterator[npt.NDArray[np.int64]]]
"""From the number of tokens of each text to batches of indices of texts, all of a batch of as many tokens. Texts of
none are in no batch."""


def sentence_vectors(model: Any, texts: Sequence[str], batches: Batches) -> npt.NDArray[np.float32]:
    """L2-normalised vectors of shape (number of texts, dimension), each computed in a batch of its own length.

    The vector of a text in which the model finds no token is zero.
    """
    import torch

    vectors = np.zeros((len(texts), dimension_of(model)), dtype=np.float32)
    if not texts:
        return vectors
    features = _features(model, texts)
    with torch.inference_mode():
        if "attention_mask" not in features:  # such as static embeddings, which are sums of vectors from a table
            for index, text in enumerate(texts):
                vectors[index] = _embedded(model, _features(model, [text]))[0]
            return vectors
        mask = features["attention_mask"].numpy().astype(bool)
        for batch in batches(mask.sum(axis=1)):
            columns = mask[batch[0]]
            vectors[batch] = _embedded(model, {name: _rows(value, batch, columns) for name, value in features.items()})
    return vectors


def dimension_of(model: Any) -> int:
    """Length of a vector of the model, which may be cut to its first numbers (Matryoshka embeddings)."""
    return int(model.get_embedding_dimension())


def _features(model: Any, texts: Sequence[str]) -> Any:
    """What the model reads of texts, after its default prompt if it has one, as `encode` puts it before each text."""
    return model.preprocess(list(texts), prompt=model.prompts.get(model.default_prompt_name))


def _embedded(model: Any, features: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Vectors of length one, cut to the model's dimension as `encode` cuts them."""
    import torch

    on_device = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in features.items()}
    embedded = model(on_device)["sentence_embedding"].float()[:, : dimension_of(model)]
    normalised: npt.NDArray[np.float32] = torch.nn.functional.normalize(embedded, dim=-1).cpu().numpy()
    return normalised


def batches_by_length(lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """As many texts as there are of one length, up to a number of tokens."""
    for length in np.unique(lengths[lengths > 0]):
        indices = np.flatnonzero(lengths == length)
        slots = max(1, TOKENS_BY_LENGTH // int(length))
        yield from (indices[start : start + slots] for start in range(0, len(indices), slots))


def batches_of_fixed_shape(lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """The same number of texts in each batch of one length: the last batch repeats its first text."""
    for length in np.unique(lengths[lengths > 0]):
        indices = np.flatnonzero(lengths == length)
        slots = max(1, TOKENS_IN_FIXED_SHAPE // int(length))
        for start in range(0, len(indices), slots):
            batch = indices[start : start + slots]
            yield np.concatenate([batch, np.repeat(batch[:1], slots - len(batch))])


def _rows(value: Any, batch: npt.NDArray[np.int64], columns: npt.NDArray[np.bool_]) -> Any:
    """The tokens of some texts, of a feature that has one number a token; features of another form are as they are."""
    is_by_token = getattr(value, "ndim", 0) == 2 and value.shape[1] == len(columns)
    return value[batch][:, columns] if is_by_token else value
