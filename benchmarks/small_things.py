"""Small things that people wait for: calibrating a plan, loading the code location, storing and reading artifacts.

    python -m benchmarks.small_things [--repeats 5] [--rows 100000] [--part PART]

Parts:
  plans     a level's plan calibrated in a fresh process, of every level that the profiles demo and paper plan
  location  a fresh process that loads the code location, interpreter and all, and must not have loaded torch
  storing   what the IO manager takes to store vectors, in turns with a plain Parquet file of the same rows and with
            embedding them; and to read them, in turns with finding their bins
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._vectors import mixtures, pool_table
from benchmarks.harness import interleave, options, peak_memory, python, ratio, store, summaries, summary, texts
from dp_assets.artifacts import Table
from dp_assets.privacy.labels import Zone

PROFILES = ("demo", "paper")
BINS = 1_000
HEAVY = ("torch", "transformers", "trl", "peft", "sentence_transformers")


def plans(given: Any) -> dict[str, Any]:
    from dp_assets.settings.named import load_profile

    found = dict[str, Any]()
    for name in PROFILES:
        for level in load_profile(name).corpus.planned_levels:
            seconds = [_in_fresh_process("plan", name, level) for _ in range(given.repeats)]
            found[f"{name}_{level}"] = {"seconds": summary(seconds)}
    return found | {"slowest_seconds": max(each["seconds"].median for each in found.values())}


def _in_fresh_process(*words: str) -> float:
    """What this module's `here` says of itself in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "seconds.json"
        peak_memory(python("-m", "benchmarks.small_things", "--here", *words, "--report", str(report)))
        seconds: float = json.loads(report.read_text())
    return seconds


def here(words: list[str], report: Path) -> None:
    from dp_assets.settings.named import load_profile

    _, name, level = words
    profile = load_profile(name)
    started = time.perf_counter()
    profile.plan(level)
    report.write_text(json.dumps(time.perf_counter() - started))


def location(given: Any) -> dict[str, Any]:
    check = f"import sys, dp_assets.definitions; sys.exit(any(name in sys.modules for name in {HEAVY}))"
    peaks = [peak_memory(python("-c", check)) for _ in range(given.repeats + 1)][1:]
    return {"seconds": summary([peak.seconds for peak in peaks]), "peak_bytes": max(peak.bytes for peak in peaks)}


def storing(given: Any) -> dict[str, Any]:
    from dp_assets.selection.vectors import assigned, blocks
    from resources.models.loaders import Embedder
    from resources.storage.artifact_files import read_artifact
    from resources.storage.stores import _store

    real = Embedder().encode(some := texts(given.data, limit=given.texts))
    rows = pool_table(mixtures(real, number=given.rows, seed=1))
    centroids = rows["vector"].head(BINS).to_numpy()
    with tempfile.TemporaryDirectory() as folder:
        home, plain = Path(folder), Path(folder) / "plain.parquet"
        place = home / Zone.RELEASED / "artifacts" / "vectors"
        writing = interleave(
            {
                "io_manager": lambda: _store(place, Table(rows.lazy()), home, Zone.RELEASED, asset="vectors"),
                "plain_parquet": lambda: rows.lazy().sink_parquet(plain),
                "embedding_some": lambda: Embedder().encode(some),
            },
            repeats=given.repeats,
        )
        stored = read_artifact(place)
        assert isinstance(stored, Table)
        reading = interleave(
            {
                "handing_over": lambda: read_artifact(place),
                "reading": lambda: [block.height for block in blocks(stored.rows)],
                "assignment": lambda: assigned(stored.rows, centroids),
            },
            repeats=given.repeats,
        )
    embedding = np.array(writing["embedding_some"]) * (given.rows / len(some))
    return {
        "rows": given.rows,
        "texts_embedded": len(some),
        "seconds": summaries(writing | reading),
        "io_manager_over_plain_parquet": ratio(writing["io_manager"], writing["plain_parquet"]),
        "storing_over_embedding": ratio(writing["io_manager"], embedding.tolist()),
        "handing_over_over_assignment": ratio(reading["handing_over"], reading["assignment"]),
        "reading_over_assignment": ratio(reading["reading"], reading["assignment"]),
    }


PARTS = {"plans": plans, "location": location, "storing": storing}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--texts", type=int, default=512, help="texts that are embedded")
    parser.add_argument("--part", choices=list(PARTS), action="append", help="one part, or several; else all")
    parser.add_argument("--here", nargs=3, metavar=("WHAT", "PROFILE", "LEVEL"), help="in this process, for the parts")
    parser.add_argument("--report", type=Path, help="where --here writes")
    parser.set_defaults(repeats=5)
    given = parser.parse_args()
    if given.here:
        here(given.here, given.report)
        return
    store("small_things", {name: PARTS[name](given) for name in given.part or PARTS}, given, in_parts=True)


if __name__ == "__main__":
    main()
