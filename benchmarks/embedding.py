"""Embedding texts of mixed lengths: batches of one length against `SentenceTransformer.encode` at its defaults.

    python -m benchmarks.embedding [--texts 1024] [--repeats 7] [--memory]

Sides: `plain` is `encode` at its defaults; `by_length` what public texts get; `fixed_shape` what private ones get, each
vector independent of the other texts to the last bit; `one_by_one` the plain way to the same property, on the first
`--alone` texts. Vectors are compared with the plain ones: cosines, and the nearest of bins fitted to the plain vectors.
"""

import argparse
from typing import Any

import numpy as np

from benchmarks.harness import interleave, options, peak_memory, python, ratio, store, summaries, texts
from dp_assets.selection.bins import fit_bins, nearest_bin
from resources.models.loaders import Embedder

ROWS_A_BIN = 8


def compare(given: argparse.Namespace) -> dict[str, Any]:
    embedder, rows = Embedder(), texts(given.data, limit=given.texts)
    model = embedder._sentence_model()
    sides = {
        "plain": lambda: model.encode(rows, show_progress_bar=False),
        "by_length": lambda: embedder.encode(rows),
        "fixed_shape": lambda: embedder.encode_alone(rows),
        "one_by_one": lambda: [model.encode(row, show_progress_bar=False) for row in rows[: given.alone]],
    }
    seconds = interleave(sides, repeats=given.repeats)
    plain = model.encode(rows, normalize_embeddings=True, show_progress_bar=False)
    vectors = {"by_length": embedder.encode(rows), "fixed_shape": embedder.encode_alone(rows)}
    centroids = fit_bins(plain, num_bins=min(1000, len(rows) // ROWS_A_BIN), seed=0)
    bins = nearest_bin(plain, centroids)
    each = {name: [spent / len(rows) for spent in seconds[name]] for name in ("plain", *vectors)}
    each["one_by_one"] = [spent / min(given.alone, len(rows)) for spent in seconds["one_by_one"]]
    tokens = model.preprocess(rows)["attention_mask"].sum(dim=1).double()
    return {
        "texts": len(rows),
        "tokens_a_text": {"mean": tokens.mean().item(), "median": tokens.median().item(), "most": tokens.max().item()},
        "bins": len(centroids),
        "seconds": summaries(seconds),
        "texts_per_second": {name: 1 / summaries(each)[name].median for name in each},
        "by_length_over_plain": ratio(each["plain"], each["by_length"]),
        "fixed_shape_over_plain": ratio(each["plain"], each["fixed_shape"]),
        "fixed_shape_over_one_by_one": ratio(each["one_by_one"], each["fixed_shape"]),
        "lowest_cosine": {name: (found * plain).sum(axis=1).min() for name, found in vectors.items()},
        "same_nearest_bin": {name: np.mean(nearest_bin(found, centroids) == bins) for name, found in vectors.items()},
    }


def peaks(given: argparse.Namespace) -> dict[str, int]:
    """Peak memory in bytes of a fresh process for each side."""
    data = [f"--data={given.data}"] if given.data else []
    arguments = ["-m", "benchmarks.embedding", f"--texts={given.texts}", *data]
    return {
        name: peak_memory(python(*arguments, f"--side={name}")).bytes for name in ("plain", "by_length", "fixed_shape")
    }


def run(side: str, rows: list[str]) -> None:
    embedder = Embedder()
    if side == "plain":
        embedder._sentence_model().encode(rows, show_progress_bar=False)
    else:
        (embedder.encode if side == "by_length" else embedder.encode_alone)(rows)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--alone", type=int, default=128, help="texts that are embedded one by one")
    parser.add_argument("--side", choices=["plain", "by_length", "fixed_shape"], help="run this side, store nothing")
    parser.add_argument("--memory", action="store_true", help="measure the peak memory of fresh processes too")
    given = parser.parse_args()
    if given.side:
        run(given.side, texts(given.data, limit=given.texts))
        return
    results = compare(given)
    store("embedding", results | ({"peak_bytes": peaks(given)} if given.memory else {}), given)


if __name__ == "__main__":
    main()
