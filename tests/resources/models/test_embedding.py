"""A private text is embedded in a shape of its own, so that its vector does not depend on who else is embedded."""

import json
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
import torch

from dp_assets.corpus.stability import UnstablePreparation, require_alone
from resources.models.embedding import TOKENS_IN_FIXED_SHAPE, batches_by_length, batches_of_fixed_shape
from resources.models.loaders import Embedder, ModelUnavailable

WORDS = ("red", "car", "sun", "tree", "house", "water", "music", "paper")


def some_texts(number: int) -> list[str]:
    """Public texts of 1 to 40 words, several of each length."""
    drawn = np.random.default_rng(0)
    return [" ".join(drawn.choice(WORDS, size=1 + index % 5 * 9)) for index in range(number)]


@pytest.mark.parametrize("batches", [batches_by_length, batches_of_fixed_shape])
def test_batches_hold_every_text_and_texts_of_one_length_only(batches: object) -> None:
    lengths = np.random.default_rng(0).integers(1, 400, size=300)
    parts = list(batches(lengths))  # type: ignore[operator]
    assert set(np.concatenate(parts)) == set(range(300))
    assert all(len(set(lengths[part])) == 1 for part in parts)
    assert list(batches(lengths[:0])) == []  # type: ignore[operator]


def test_the_shape_of_a_private_batch_follows_from_the_length_alone() -> None:
    drawn = np.random.default_rng(0)
    shapes: dict[int, set[int]] = {}
    for number in (1, 2, 50, 700):
        lengths = drawn.integers(1, 300, size=number)
        for part in batches_of_fixed_shape(lengths):
            shapes.setdefault(int(lengths[part[0]]), set()).add(len(part))
    assert {length: max(1, TOKENS_IN_FIXED_SHAPE // length) for length in shapes} == {
        length: sizes.pop() for length, sizes in shapes.items() if len(sizes) == 1
    }


@pytest.mark.slow
@pytest.mark.packaged
def test_a_private_vector_keeps_its_bits_whoever_else_is_embedded() -> None:
    embedder, texts = Embedder(device="cpu"), some_texts(60)
    vectors = embedder.encode_alone(texts)
    order = np.random.default_rng(1).permutation(60)[:43]
    assert np.array_equal(embedder.encode_alone([texts[index] for index in order]), vectors[order])
    assert np.array_equal(embedder.encode_alone(texts[7:8]), vectors[7:8])


@pytest.mark.slow
@pytest.mark.packaged
def test_vectors_are_those_of_plain_encode() -> None:
    embedder, texts = Embedder(device="cpu"), [*some_texts(40), "", "word " * 400]
    plain = embedder._sentence_model().encode(texts, normalize_embeddings=True)
    for vectors in (embedder.encode(texts), embedder.encode_alone(texts)):
        assert (vectors * plain).sum(axis=1).min() > 0.9999


def save_rotary_embedder(folder: Path, tiny_model_folder: Path, **rope: Any) -> str:
    """A tiny model that reads 256 letters and was made for 64, with rotary embeddings of a kind."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    vocabulary = {"[UNK]": 0, "[PAD]": 1} | {letter: 2 + place for place, letter in enumerate(ascii_lowercase)}
    splitting = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    splitting.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=splitting, unk_token="[UNK]", pad_token="[PAD]", model_max_length=256
    )
    config = LlamaConfig.from_pretrained(
        tiny_model_folder, max_position_embeddings=64, rope_parameters={"rope_theta": 10000.0, **rope}
    )
    torch.manual_seed(0)
    LlamaModel(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    body = Transformer(str(folder / "model"), max_seq_length=256)
    model = SentenceTransformer(modules=[body, Pooling(32, pooling_mode="mean")], device="cpu")
    model.save(str(folder / "embedder"))
    settings = folder / "embedder" / "sentence_bert_config.json"  # else it reads no more than it was made for
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"max_seq_length": 256}))
    return str(folder / "embedder")


def test_an_embedder_that_remembers_the_longest_text_is_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    plain, scaled = (
        Embedder(model=save_rotary_embedder(tmp_path / kind, tiny_model_folder, rope_type=kind, **factor), device="cpu")
        for kind, factor in (("default", {}), ("dynamic", {"factor": 4.0}))
    )
    assert plain.max_tokens == scaled.max_tokens == 256
    require_alone(plain.encode_alone, longest=plain.max_tokens)
    with pytest.raises(UnstablePreparation, match="texts embedded before it"):
        require_alone(scaled.encode_alone, longest=scaled.max_tokens)


def test_a_text_without_tokens_gets_the_zero_vector_and_stops_nobody(tmp_path: Path, tiny_model_folder: Path) -> None:
    embedder = Embedder(model=save_rotary_embedder(tmp_path, tiny_model_folder, rope_type="default"), device="cpu")
    for encode in (embedder.encode, embedder.encode_alone):
        vectors = encode(["a b", "", "c"])
        assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1])


def static_embedder(folder: Path, rotary: str) -> str:
    """A table of vectors without layers, as model2vec makes them."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer

    torch.manual_seed(0)
    words = Tokenizer.from_file(str(next(Path(rotary).rglob("tokenizer.json"))))
    SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=16)]).save(str(folder))
    return str(folder)


def truncated_embedder(folder: Path, rotary: str) -> str:
    """The rotary one, cut to the first 8 numbers of a vector."""
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(rotary, truncate_dim=8).save(str(folder))
    return str(folder)


@pytest.mark.parametrize(("make", "dimension"), [(static_embedder, 16), (truncated_embedder, 8)])
def test_static_and_truncated_embedders_give_the_vectors_of_plain_encode_each_by_itself(
    tmp_path: Path, tiny_model_folder: Path, make: Any, dimension: int
) -> None:
    rotary = save_rotary_embedder(tmp_path / "rotary", tiny_model_folder, rope_type="default")
    embedder, texts = Embedder(model=make(tmp_path / "model", rotary), device="cpu"), ["a b c", "d", "", "a d c b " * 9]
    embedder.require_usable()
    require_alone(embedder.encode_alone, longest=64)
    plain = embedder._sentence_model().encode(texts, normalize_embeddings=True)
    assert embedder.dimension == dimension
    for vectors in (embedder.encode(texts), embedder.encode_alone(texts)):
        assert vectors.shape == (len(texts), dimension)
        assert np.allclose(vectors[[0, 1, 3]], plain[[0, 1, 3]], atol=1e-5)
        assert not vectors[2].any()
    assert embedder.encode([]).shape == (0, dimension)


def test_an_embedder_whose_vectors_are_not_finite_is_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(save_rotary_embedder(tmp_path / "rotary", tiny_model_folder, rope_type="default"))
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    model.save(str(tmp_path / "void"))
    with pytest.raises(ModelUnavailable, match="zero or not finite; choose another embedder"):
        Embedder(model=str(tmp_path / "void"), device="cpu").require_usable()


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_text("{")])
def test_an_embedder_without_a_readable_tokenizer_is_refused(
    tmp_path: Path, tiny_model_folder: Path, spoil: Any
) -> None:
    folder = Path(save_rotary_embedder(tmp_path / "rotary", tiny_model_folder, rope_type="default"))
    for file in folder.rglob("tokenizer*"):
        spoil(file)
    with pytest.raises(ModelUnavailable, match="embedder is "):
        Embedder(model=str(folder), device="cpu").require_usable()
