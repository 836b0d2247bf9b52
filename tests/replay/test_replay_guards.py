"""Each replay check fails when the defect that it guards against is planted in the code that it watches."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch

from dp_assets.corpus import prepare
from dp_assets.dpsgd import clipping, training
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.selection import votes
from resources.models.loaders import Embedder
from tests.replay import checks
from tests.replay.neighbors import neighbors
from tests.replay.test_replay_votes import bins_of, embedded, votes_of
from tests.replay.training import Pair

USER = PrivacyUnit.USER
LENGTHS, COPIES, SPOILT = "rows of very different lengths", "the texts of another user", "a gradient that is not finite"


def loss_averaged_over_the_batch(patch: pytest.MonkeyPatch) -> None:
    loss = torch.nn.functional.cross_entropy
    patch.setattr(torch.nn.functional, "cross_entropy", lambda *logits, **_: loss(*logits, reduction="mean"))


def rows_clipped_one_by_one(patch: pytest.MonkeyPatch) -> None:
    clip = clipping.clipped_sum
    patch.setattr(clipping, "clipped_sum", lambda model, rows, _, constants: clip(model, rows, ids(rows), constants))


def ids(rows: Any) -> list[str]:
    return [str(place) for place in range(len(rows))]


def sum_divided_by_the_size_of_the_sample(patch: pytest.MonkeyPatch) -> None:
    clip = clipping.clipped_sum

    def average(model: Any, rows: Any, unit_ids: Any, constants: Any) -> Any:
        exact_sum, clipped = clip(model, rows, unit_ids, constants)
        return {name: tensor / max(1, len(rows)) for name, tensor in exact_sum.items()}, clipped

    patch.setattr(clipping, "clipped_sum", average)


def loss_normalizer_taken_from_the_rows(patch: pytest.MonkeyPatch) -> None:
    clip = clipping.clipped_sum

    def by_length(model: Any, rows: Any, unit_ids: Any, constants: Any) -> Any:
        longest = max((len(row) for row in rows), default=1)
        return clip(model, rows, unit_ids, replace(constants, loss_normalizer=float(longest)))

    patch.setattr(clipping, "clipped_sum", by_length)


def steps_taken_from_the_data(patch: pytest.MonkeyPatch) -> None:
    train = training.train_privately

    def as_many_as_fit(model: Any, rows: Any, plan: Any, *args: Any, **kwargs: Any) -> Any:
        dpsgd = replace(plan.dpsgd, steps=28 - len(rows.open()))
        return train(model, rows, replace(plan, dpsgd=dpsgd), *args, **kwargs)

    patch.setattr(training, "train_privately", as_many_as_fit)


def infinite_gradients_let_through(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "isfinite", lambda tensor: torch.ones_like(tensor, dtype=torch.bool))


def duplicates_removed_across_units(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        prepare, "drop_duplicates_in_units", lambda rows: rows.unique("text", keep="first", maintain_order=True)
    )


def split_by_place_in_the_file(patch: pytest.MonkeyPatch) -> None:
    place = pl.int_range(pl.len()) % 2
    by_place = pl.when(place == 0).then(pl.lit("train")).otherwise(pl.lit("test"))
    patch.setattr(prepare, "assign_splits", lambda rows, **_: rows.with_columns(split=by_place))


def vectors_centered_on_their_mean(patch: pytest.MonkeyPatch) -> None:
    encode = Embedder.encode_alone

    def centered(embedder: Embedder, texts: Any) -> npt.NDArray[np.float32]:
        vectors = encode(embedder, texts)
        return vectors - vectors.mean(axis=0)

    patch.setattr(Embedder, "encode_alone", centered)


def a_vote_for_each_row(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(votes, "one_row_each_unit", lambda vectors, **_: vectors)


def sums(folder: Path, model_folder: Path, case: str) -> None:
    pair = Pair(folder, model_folder, USER, case)
    recording = pair.recording()
    checks.each_sum_moves_by_the_newcomers_share_alone(recording, pair.replay(recording))


def whole_units(folder: Path, model_folder: Path, case: str) -> None:
    checks.the_sum_of_all_rows_moves_by_one_share(Pair(folder, model_folder, USER, case), budget=512)


def looks(folder: Path, model_folder: Path, case: str) -> None:
    pair = Pair(folder, model_folder, USER, case)
    recording = pair.recording()
    checks.both_runs_look_alike(recording, pair.replay(recording))


def rows(folder: Path, _: Path, case: str) -> None:
    checks.others_keep_their_rows(neighbors(folder, USER, case))


def vectors(folder: Path, _: Path, case: str) -> None:
    embedder, pair = Embedder(model="hashing"), neighbors(folder, USER, case)
    checks.others_keep_their_vectors(embedded(pair.without, embedder), embedded(pair.joined, embedder))


def ballots(folder: Path, _: Path, case: str) -> None:
    embedder, pair = Embedder(model="hashing"), neighbors(folder, USER, case)
    before, after = (votes_of(embedded(table, embedder), bins_of(embedder)) for table in (pair.without, pair.joined))
    checks.at_most_one_vote_moves(before, after)


@dataclass(frozen=True)
class Defect:
    """What is planted, and the check on a case that must notice."""

    plant: Callable[[pytest.MonkeyPatch], None]
    check: Callable[[Path, Path, str], None]
    case: str

    def __str__(self) -> str:
        return self.plant.__name__


DEFECTS = (
    Defect(loss_averaged_over_the_batch, sums, LENGTHS),
    Defect(rows_clipped_one_by_one, whole_units, LENGTHS),
    Defect(sum_divided_by_the_size_of_the_sample, sums, LENGTHS),
    Defect(loss_normalizer_taken_from_the_rows, sums, LENGTHS),
    Defect(infinite_gradients_let_through, sums, SPOILT),
    Defect(steps_taken_from_the_data, looks, LENGTHS),
    Defect(duplicates_removed_across_units, rows, COPIES),
    Defect(split_by_place_in_the_file, rows, LENGTHS),
    Defect(vectors_centered_on_their_mean, vectors, LENGTHS),
    Defect(a_vote_for_each_row, ballots, LENGTHS),
)


@pytest.mark.parametrize("defect", DEFECTS, ids=str)
def test_a_planted_defect_fails_its_check(tmp_path: Path, tiny_model_folder: Path, defect: Defect) -> None:
    sound, spoilt = tmp_path / "sound", tmp_path / "spoilt"
    sound.mkdir(), spoilt.mkdir()
    defect.check(sound, tiny_model_folder, defect.case)
    with pytest.MonkeyPatch.context() as patch:
        defect.plant(patch)
        with pytest.raises(AssertionError):
            defect.check(spoilt, tiny_model_folder, defect.case)
