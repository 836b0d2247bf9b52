"""How time and memory of each stage grow over three sizes a decade apart.

    python -m benchmarks.growth [--sizes 10000 100000 1000000] [--model-sizes 4 40 400] [--stage STAGE ...]

A stage runs in a fresh process a size: its seconds are those of the work alone, its peak memory is that of the whole
process, imports included. Each stage gets an exponent, the slope of log time over log size between the last two sizes,
where fixed costs weigh least. Stages, with what the size counts:

  embeddings  rows of synthetic_embeddings written by the IO manager      export      rows of the pool and its vectors
  bins        vectors of the pool, of which bins are fitted to a sample   catalog     rows of the released tables
  assignment  vectors of the pool                                         engine      units of one private step
  votes       real units                                                  sampling    samples of the pool
  resample    rows of the pool

The last two load the packaged language model and take the sizes of `--model-sizes`. Corpus preparation has a benchmark
of its own.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks._vectors import ids, mixture_blocks
from benchmarks.harness import options, peak_memory, python, store, texts

BINS, VOTED_SHARE = 1_000, 0.18
PLACE = ("all", "eps-8")
SMALL_REPEATS = 3
MODELS = ("engine", "sampling")
MARKERS = "osD^vP*Xh"
LEAST_GAP = 0.05
"""Between names in the plot, as a share of its height."""

Work = Callable[[], object]


def prepare(folder: Path, size: int) -> None:
    """A data folder with a pool of `size` texts and their vectors, as the IO manager stores them."""
    real = np.random.default_rng(0).standard_normal((2_000, 384), dtype=np.float32)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    parts, start = folder / "parts", 0
    parts.mkdir(parents=True)
    for number, block in enumerate(mixture_blocks(real, number=size, seed=1)):
        rows = {"synthetic_id": ids(start + len(block)).tail(len(block)), "vector": block}
        pl.DataFrame(rows).write_parquet(parts / f"{number:05d}.parquet", compression="lz4")
        start += len(block)
    _put(_released(folder, "synthetic_embeddings"), pl.scan_parquet(parts / "*.parquet"))
    known = pl.Series(texts(None))
    pool = pl.DataFrame({"synthetic_id": ids(size), "text": known[np.arange(size) % len(known)]})
    _put(_released(folder, "synthetic_pool"), pool.lazy())


def _released(folder: Path, asset: str) -> Path:
    return folder.joinpath("home", "released", "artifacts", asset, *PLACE)


def _put(place: Path, rows: pl.LazyFrame) -> None:
    from dp_assets.artifacts import Table
    from resources.storage.artifact_files import write_artifact

    place.mkdir(parents=True)
    write_artifact(place, Table(rows))


def _stored(folder: Path, asset: str) -> pl.LazyFrame:
    from dp_assets.artifacts import Table
    from resources.storage.artifact_files import read_artifact

    table = read_artifact(_released(folder, asset))
    assert isinstance(table, Table)
    return table.rows


def _some_centroids(folder: Path) -> Any:
    return _stored(folder, "synthetic_embeddings").head(BINS).collect()["vector"].to_numpy()


def embeddings(folder: Path, _: int) -> Work:
    parts = folder / "parts"
    return lambda: _put(folder / "written", pl.scan_parquet(parts / "*.parquet"))


def bins(folder: Path, _: int) -> Work:
    from dp_assets.selection.bins import SAMPLED_VECTORS_PER_BIN, fit_bins
    from dp_assets.selection.vectors import sampled_vectors

    rows = _stored(folder, "synthetic_embeddings")

    def fit() -> None:
        fit_bins(sampled_vectors(rows, most=BINS * SAMPLED_VECTORS_PER_BIN, seed=0), num_bins=BINS, seed=0)

    return fit


def assignment(folder: Path, _: int) -> Work:
    from dp_assets.selection.vectors import assigned

    rows, centroids = _stored(folder, "synthetic_embeddings"), _some_centroids(folder)
    return lambda: assigned(rows, centroids)


@dataclass(frozen=True)
class AnyCharge:
    """A charge that fits the table of the stage votes and records nothing."""

    corpus_id: str = "benchmark"
    snapshot: str = "1"
    cohort: str = PLACE[0]

    def mark_opened(self) -> None:
        pass


def votes(folder: Path, _: int) -> Work:
    from dp_assets.artifacts import TRAIN_SPLIT, PrivateTable, Table
    from dp_assets.selection.bins import digest_of
    from dp_assets.selection.noisy_votes import NoisyVotes
    from dp_assets.settings.named import load_profile

    rows, charge = _stored(folder, "synthetic_embeddings"), AnyCharge()
    units = rows.select(
        "vector",
        unit_id="synthetic_id",
        instruction_id="synthetic_id",
        cohort=pl.lit(charge.cohort),
        split=pl.lit(TRAIN_SPLIT),
    )
    table = PrivateTable(units, corpus_id=charge.corpus_id, snapshot=charge.snapshot)
    centroids = _some_centroids(folder)
    bins = Table(pl.LazyFrame())
    demo = load_profile("demo")
    votes = NoisyVotes(demo.plan(PLACE[1]), table, bins, centroids, digest_of(centroids), demo.embedder, b"benchmark")
    return lambda: votes.run(charge)


def resample(_: Path, size: int) -> Work:
    from dp_assets.selection.resample import quotas, resample_exactly

    draw = np.random.default_rng(0)
    pool = pl.DataFrame({"synthetic_id": ids(size), "bin_id": draw.integers(BINS, size=size)})
    target = int(VOTED_SHARE * size)
    noisy = draw.integers(0, 2 * target // BINS + 2, size=BINS)
    return lambda: resample_exactly(pool, quotas=quotas(noisy, target_size=target), target_size=target, seed=0)


def catalog(folder: Path, _: int) -> Work:
    from dp_assets.privacy.ledger_state import LedgerState
    from resources.storage.catalog import rebuild

    return lambda: rebuild(folder / "home", LedgerState())


def export(folder: Path, _: int) -> Work:
    """Tables and checksums: all of an export that depends on the number of rows."""
    from dp_assets.export.folder import _write_tables
    from dp_assets.export.parts import chosen_parts
    from dp_assets.export.release import Release
    from dp_assets.export.target import write_checksums

    parts = chosen_parts(["pool", "embeddings"])
    folders = {part: _released(folder, part.asset) for part in parts}
    release = Release("|".join(PLACE), folders, {}, {}, {}, (), {})
    target = folder / "export"
    target.mkdir()

    def write() -> None:
        _write_tables(target, release, {})
        write_checksums(target)

    return write


def _model(folder: Path) -> tuple[Any, Any]:
    from resources.models.loaders import LanguageModel

    return LanguageModel(cache_root=str(folder / "models"), dtype="float32").load()


def engine(folder: Path, size: int) -> Work:
    from dp_assets.dpsgd.clipping import Clipping, clipped_sum
    from dp_assets.generation.generator import with_new_adapter
    from dp_assets.generation.token_rows import RowEncoder, unit_rows
    from dp_assets.settings.named import load_profile

    settings = load_profile("demo").generator
    model, tokenizer = _model(folder)
    adapted = with_new_adapter(model, settings)
    table = pl.LazyFrame({"unit_id": [str(number) for number in range(size)], "text": texts(None, limit=size)})
    units = unit_rows(table, RowEncoder.of(tokenizer, settings))
    clipping = Clipping(settings.l2_clip_norm, settings.loss_normaliser, settings.tokens_per_micro_batch)
    return lambda: clipped_sum(adapted, [rows[0] for rows in units.values()], list(units), clipping)


def sampling(folder: Path, size: int) -> Work:
    from dp_assets.generation.drawing import sample_baseline
    from dp_assets.settings.named import load_profile

    loaded = _model(folder)
    drawn = load_profile("demo").sampling
    settings = drawn.resized(size, seed=drawn.seed)
    return lambda: sample_baseline(lambda: loaded, settings)


STAGES: Mapping[str, Callable[[Path, int], Work]] = {
    "embeddings": embeddings,
    "bins": bins,
    "assignment": assignment,
    "votes": votes,
    "resample": resample,
    "catalog": catalog,
    "export": export,
    "engine": engine,
    "sampling": sampling,
}


def run_here(given: argparse.Namespace) -> None:
    """One stage at one size, in this process."""
    if given.here == "prepare":
        prepare(given.folder, given.size)
        return
    work = STAGES[given.here](given.folder, given.size)
    started = time.perf_counter()
    work()
    (given.folder / "seconds.json").write_text(json.dumps(time.perf_counter() - started))


def measure(folder: Path, stage: str, size: int) -> tuple[float, int]:
    """Seconds and peak bytes of a stage in a fresh process."""
    given = ("--here", stage, "--folder", str(folder), "--size", str(size))
    peak = peak_memory(python("-m", "benchmarks.growth", *given))
    written = folder / "written", folder / "export"
    for left in written:
        for file in sorted(left.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        if left.exists():
            left.rmdir()
    file = folder / "seconds.json"
    return (json.loads(file.read_text()) if file.exists() else peak.seconds), peak.bytes


def grown(stages: list[str], sizes: list[int], *, repeats: int) -> dict[str, Any]:
    """Sizes, median seconds and peak bytes of each stage; the largest size is measured once."""
    found: dict[str, Any] = {stage: {"sizes": sizes, "seconds": [], "peak_bytes": []} for stage in stages}
    with tempfile.TemporaryDirectory() as root:
        for size in sizes:
            folder = Path(root) / str(size)
            folder.mkdir()
            (folder / "models").symlink_to(Path(root) / "models")
            (Path(root) / "models").mkdir(exist_ok=True)
            if set(stages) - set(MODELS):
                measure(folder, "prepare", size)
            for stage in stages:
                runs = [measure(folder, stage, size) for _ in range(1 if size == sizes[-1] else repeats)]
                found[stage]["seconds"].append(statistics.median(seconds for seconds, _ in runs))
                found[stage]["peak_bytes"].append(max(peak for _, peak in runs))
    return {stage: each | {"exponent": exponent(each["sizes"], each["seconds"])} for stage, each in found.items()}


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """The slope of log time over log size between the last two sizes."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])


def draw(found: Mapping[str, Any], file: Path) -> None:
    """Time and memory over size, on logarithmic axes; each line has its stage's name at its end."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

    from dp_assets.reports.plot_style import LIGHT, dress, new_figure, png

    subtitle = "Each stage in a fresh process on 2 cores; dashed lines grow in proportion to the size"
    figure = new_figure(LIGHT, height=5.2, title="How each stage grows", subtitle=subtitle)
    scales = {"seconds": ("Seconds", 1), "peak_bytes": ("Peak memory of the process, GiB", 2**30)}
    for axes, (key, (title, scale)) in zip(figure.subplots(1, 2), scales.items(), strict=True):
        dress(axes, LIGHT, title=title, xlabel="rows, vectors, units or samples")
        axes.set(xscale="log", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if key == "seconds" else (1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        lines = {stage: (each["sizes"], [value / scale for value in each[key]]) for stage, each in found.items()}
        _draw_lines(axes, lines)

    file.write_bytes(png(figure))


def _draw_lines(axes: Any, lines: Mapping[str, tuple[list[int], list[float]]]) -> None:
    """The lines, with names beside their ends that are moved apart where they would overlap, and guides behind them."""
    from dp_assets.reports.plot_style import LIGHT, note, series_colors

    values = [value for _, each in lines.values() for value in each]
    bottom, top = min(values) / 1.5, max(values) * 1.5
    smallest, largest = (limit(size for sizes, _ in lines.values() for size in sizes) for limit in (min, max))
    axes.set(xlim=(smallest / 1.4, largest * (largest / smallest) ** 0.32), ylim=(bottom, top))
    for start in 10.0 ** np.arange(-9, 3):
        axes.plot([smallest, largest], [start, start * largest / smallest], color=LIGHT.grid, ls="--", lw=0.8, zorder=0)
    below = dict[int, float]()  # how high the last name beside each largest size stands
    colors, markers = series_colors(LIGHT, len(lines)), dict(zip(lines, MARKERS, strict=False))
    of_stage = dict(zip(lines, colors, strict=True))
    for stage, (sizes, each) in sorted(lines.items(), key=lambda line: line[1][1][-1]):
        axes.plot(sizes, each, color=of_stage[stage], marker=markers[stage], markersize=4.5, linewidth=1.4)
        height = max(math.log(each[-1] / bottom) / math.log(top / bottom), below.get(sizes[-1], -1.0) + LEAST_GAP)
        note(axes, LIGHT, stage, (sizes[-1] * 1.25, bottom * (top / bottom) ** height), color=of_stage[stage])
        below[sizes[-1]] = height


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--sizes", type=int, nargs=3, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--model-sizes", type=int, nargs=3, default=[4, 40, 400])
    parser.add_argument("--stage", choices=list(STAGES), action="append", dest="part", help="one, or several; else all")
    parser.add_argument("--here", choices=["prepare", *STAGES], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.set_defaults(repeats=SMALL_REPEATS)
    given = parser.parse_args()
    if given.here:
        run_here(given)
        return
    chosen = given.part or list(STAGES)
    found = dict[str, Any]()
    for stages, sizes in (
        ([stage for stage in chosen if stage not in MODELS], given.sizes),
        ([stage for stage in chosen if stage in MODELS], given.model_sizes),
    ):
        found |= grown(stages, sizes, repeats=given.repeats) if stages else {}
    path = store("growth", found, given, in_parts=True)
    draw(json.loads(path.read_text())["results"], path.with_suffix(".png"))


if __name__ == "__main__":
    main()
