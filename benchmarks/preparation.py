"""Memory and time of the private steps before the mechanisms, and of what the mechanisms read, up to a million rows.

    python -m benchmarks.preparation [--data PATH] [--sizes 10000 100000 1000000]

A data set of conversations with the schema of allenai/WildChat-1M is made as the hub lays it out, of --data or the
packaged texts: one to a few texts a turn, so that lengths are spread as in real chats, and about one user for four
rows, some of whom wrote hundreds. Then each step runs in a fresh process, as a user's run does:

    real_instructions   the asset, through the preset: reading, cleaning, bounding, fingerprints, storing
    real_embeddings     the asset, with the hashing embedder, so that storage is measured and not a model
    votes               exact votes of the stored vectors for 1,000 bins, without the mechanism around them
    units               training units as private training holds them, with a batch of 4,096 drawn and encoded
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import options, peak_memory, python, store, texts
from tests.corpus.chat_data import SCHEMAS

PRESET = "allenai/WildChat-1M"
SIZES = (10_000, 100_000, 1_000_000)
ROWS_IN_A_FILE, ROWS_IN_A_GROUP = 20_000, 1_000
ROWS_PER_USER, TURNS_TO_CHOOSE_FROM = 4, 50_000
ENGLISH, REDACTED, FLAGGED = 0.6, 0.02, 0.1
NUM_BINS, DRAWN = 1_000, 4_096
STAGES = ("real_instructions", "real_embeddings", "votes", "units")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of conversations")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        run_stage(given.stage, given.folder)
        return
    store("preparation", {str(size): measured(size, given.stages, given.data) for size in given.sizes}, given)


def measured(size: int, stages: Sequence[str], data: Path | None) -> dict[str, Any]:
    """Figures of each stage on `size` conversations, each stage in a fresh process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_conversations(folder / "source", texts(data), size)
        found: dict[str, Any] = {"source_bytes": bytes_below(folder / "source")}
        for stage in stages:
            peak = peak_memory(python("-m", "benchmarks.preparation", "--stage", stage, "--folder", name))
            found[stage] = {"peak_bytes": peak.bytes, "process_seconds": peak.seconds}
            found[stage] |= json.loads((folder / "stage.json").read_text())
            print(size, stage, found[stage], file=sys.stderr, flush=True)
        return found


def run_stage(stage: str, folder: Path) -> None:
    """One stage in this process. Memory of the process that reads the data set is reported apart."""
    started = time.perf_counter()
    apart = {"votes": count_votes, "units": hold_units}
    facts = apart[stage](folder) if stage in apart else materialize(stage, folder)
    usage = {"seconds": time.perf_counter() - started}
    usage["own_peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    usage["reader_peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    (folder / "stage.json").write_text(json.dumps(usage | facts))


def materialize(asset: str, folder: Path) -> dict[str, Any]:
    """Run one private asset as the command does, on a registered corpus."""
    import dagster as dg

    from dp_assets.assets.real_embeddings import real_embeddings
    from dp_assets.assets.real_instructions import real_instructions
    from dp_assets.pipeline.corpus import register_corpus
    from dp_assets.settings.named import load_profile
    from dp_assets.settings.profile import Profile
    from resources.build import build_resources

    settings = load_profile("demo").model_dump(mode="json") | {"embedder": "hashing"}
    source = {"kind": "huggingface", "path": str(folder / "source"), "preset": PRESET}
    settings["corpus"] |= {"source": source, "min_words": 2, "max_words": 1_000, "max_characters": 8_000}
    profile = Profile.model_validate(settings)
    resources = build_resources(profile, folder / "home")
    register_corpus(resources["ledger"], profile, declared_public=False)
    known = {"real_instructions": real_instructions, "real_embeddings": real_embeddings}
    started = time.perf_counter()
    with dg.DagsterInstance.ephemeral() as instance:
        chosen = known[asset]
        ran = dg.materialize(list(known.values()), selection=[chosen], resources=resources, instance=instance)
    assert ran.success
    took = time.perf_counter() - started
    stored = folder / "home/private/artifacts" / asset
    rows = pl.scan_parquet(stored / "*.parquet").select(pl.len()).collect().item()
    left = bytes_below(folder / "home/private/tmp")
    return {"asset_seconds": took, "rows": rows, "stored_bytes": bytes_below(stored), "bytes_left_behind": left}


def count_votes(folder: Path) -> dict[str, Any]:
    from dp_assets.selection.votes import exact_votes
    from resources.models.hashed_ngrams import DIMENSION

    centroids = np.random.default_rng(0).normal(size=(NUM_BINS, DIMENSION)).astype(np.float32)
    vectors = pl.scan_parquet(folder / "home/private/artifacts/real_embeddings/*.parquet")
    ballots: list[tuple[str, int]] = []
    votes = exact_votes(
        vectors.select("unit_id", "instruction_id", "vector"), centroids, key=bytes(32), ballots=ballots
    )
    return {"votes": int(votes.sum()), "dimension": DIMENSION}


def hold_units(folder: Path) -> dict[str, Any]:
    """What the units add to this process, whose peak is that of loading a tokenizer, and the time to encode a batch."""
    from dp_assets.generation.token_rows import RowEncoder, unit_rows
    from resources.models.loaders import LanguageModel

    tokenizer = LanguageModel(cache_root=str(folder / "models")).load_tokenizer()
    rows = pl.scan_parquet(folder / "home/private/artifacts/real_instructions/*.parquet")
    before = resident_bytes()
    units = unit_rows(rows.filter(pl.col("split") == "train"), RowEncoder(tokenizer, prompt_ids=(1,), max_tokens=128))
    held = resident_bytes() - before
    started = time.perf_counter()
    drawn = [each[0] for each in list(units.values())[:DRAWN]]
    encoding = time.perf_counter() - started
    num_rows, num_tokens = sum(map(len, units.values())), sum(len(row.target_ids) for row in drawn)
    return {
        "held_bytes": held,
        "units": len(units),
        "rows": num_rows,
        "drawn": len(drawn),
        "drawn_tokens": num_tokens,
        "encoding_seconds": encoding,
    }


def resident_bytes() -> int:
    """What this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def write_conversations(folder: Path, written: Sequence[str], size: int) -> None:
    """`size` rows of the schema of `PRESET`, in files as the hub has them."""
    rng = np.random.default_rng(0)
    asked, answered = turns(written, rng, median=1.5), turns(written, rng, median=4.0)
    busy = user_weights(rng, max(1, size // ROWS_PER_USER))
    (folder / "data").mkdir(parents=True)
    starts = range(0, size, ROWS_IN_A_FILE)
    for number, start in enumerate(starts):
        rows = conversations(rng, asked, answered, busy, min(ROWS_IN_A_FILE, size - start))
        file = folder / "data" / f"train-{number:05d}-of-{len(starts):05d}.parquet"
        rows.write_parquet(file, row_group_size=ROWS_IN_A_GROUP, compression="snappy")


def turns(written: Sequence[str], rng: np.random.Generator, *, median: float) -> pl.Series:
    """Turns of a log-normal number of texts, about `median` in the middle and more than ten times that at the end."""
    counts = np.maximum(1, rng.lognormal(np.log(median), 1.0, TURNS_TO_CHOOSE_FROM).astype(int))
    chosen = rng.integers(len(written), size=counts.sum())
    ends = np.cumsum(counts)
    pieces = [written[place] for place in chosen]
    spans = zip(ends - counts, ends, strict=True)
    return pl.Series([" ".join(pieces[begin:end]) for begin, end in spans], dtype=pl.String)


def user_weights(rng: np.random.Generator, num_users: int) -> np.ndarray[Any, Any]:
    """The share of each user, a Pareto: most wrote a row or two, a few thousands of a million."""
    shares = rng.pareto(1.2, num_users) + 0.1
    return np.cumsum(shares / shares.sum())


def conversations(
    rng: np.random.Generator, asked: pl.Series, answered: pl.Series, busy: np.ndarray[Any, Any], size: int
) -> pl.DataFrame:
    """Two turns of a user and two answers a row; the first turn ends in words of another, so that few are equal."""

    def some(pool: pl.Series) -> pl.Series:
        return pool.gather(rng.integers(len(pool), size=size))

    users = pl.Series(np.minimum(np.searchsorted(busy, rng.random(size)), len(busy) - 1)).cast(pl.String)
    seconds = datetime(2023, 4, 9, tzinfo=UTC).timestamp() + rng.random(size) * 3e7
    spoken = [some(asked) + " " + some(asked).str.head(40), some(answered), some(asked), some(answered)]
    rows = pl.DataFrame(
        {
            "conversation_hash": [f"{bits:032x}" for bits in rng.integers(2**62, size=size).tolist()],
            "timestamp": pl.Series((seconds * 1e6).astype(np.int64)),
            "language": np.where(rng.random(size) < ENGLISH, "English", "Chinese"),
            "toxic": rng.random(size) < FLAGGED,
            "redacted": rng.random(size) < REDACTED,
            "hashed_ip": users.hash(0).cast(pl.String) + users,
            **{f"turn_{place}": text for place, text in enumerate(spoken)},
        }
    )
    schema = SCHEMAS[PRESET]
    rows = rows.with_columns(conversation=pl.concat_list(message(place, schema) for place in range(len(spoken))))
    return rows.select(
        pl.col(name).cast(dtype) if name in rows.columns else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in schema.items()
    )


def message(place: int, schema: Mapping[str, Any]) -> pl.Expr:
    """A message of the schema whose text is in the column `turn_<place>`; people and the model take turns."""
    given = {
        "content": pl.col(f"turn_{place}"),
        "role": pl.lit(("user", "assistant")[place % 2]),
        "toxic": pl.lit(False),
    }
    fields = schema["conversation"].inner.fields
    return pl.struct(given.get(field.name, pl.lit(None, dtype=field.dtype)).alias(field.name) for field in fields)


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    main()
