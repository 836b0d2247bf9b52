"""The assets themselves, from a source file to noisy votes, on neighboring corpora.

The recording runs without the newcomer. The replay, in a copy of its data folder with the same key, runs with them: the
words of both mechanisms are the recorded ones, dealt to units by name, and each training step goes on with the
recorded sum (see `training`). So generator, pool and bins are the same, and the votes are counted for the same bins:
what the proof of the composition compares. Values that name a run (ids, times, folders) are blanked before comparing.
"""

import io
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import pytest
import torch

from dp_assets.artifacts import CONTENT
from dp_assets.definitions import ALL_ASSETS
from dp_assets.dpsgd.packing import TokenRow
from dp_assets.generation import token_rows
from dp_assets.privacy.labels import Zone
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.privacy.units import PrivacyUnit
from dp_assets.selection import noisy_votes
from dp_assets.settings.profile import Profile
from tests.privacy.replay import ReplayableSource
from tests.replay import checks
from tests.replay.neighbors import NEWCOMERS, joined, others, write
from tests.replay.training import Run
from tests.tiny_pipeline import DOWN_TO_THE_HISTOGRAM, PARTITION, register, tiny_profile, tiny_resources

IDS = r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}"
TIMES = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+(\.\d+)? ?m?s\b"
TAG_OF_CONTENT = re.compile(r"-[0-9a-f]{16}(?=\.parquet$)")  # follows from the released votes, which differ
NAMES_OF_A_RUN = re.compile(f"{IDS}|{TIMES}")


@dataclass
class Side:
    """One of the two runs, and what it left for anybody to see."""

    training: Run
    votes_source: ReplayableSource = field(default_factory=lambda: ReplayableSource(11))
    exact_votes: list[npt.NDArray[np.int64]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    printed: str = ""
    released: list[str] = field(default_factory=list)  # names of files; sizes follow from ids and noise
    records: list[Mapping[str, Any]] = field(default_factory=list)

    def replayed(self, patch: pytest.MonkeyPatch, sampling_probability: float) -> None:
        """Deal the words of this side to both mechanisms, and keep what they count."""
        group, count = token_rows.unit_rows, noisy_votes.exact_votes

        def unit_rows(*args: Any, **settings: Any) -> dict[str, Sequence[TokenRow]]:
            units = group(*args, **settings)
            self.training.open(list(units), sampling_probability=sampling_probability)
            return units

        def exact_votes(*args: Any, **settings: Any) -> npt.NDArray[np.int64]:
            counted = count(*args, **settings)
            if "ballots" in settings:  # else they are those of a probe of public units
                self.exact_votes.append(counted)
            return counted

        def bits(system: SystemRandomness, num_words: int) -> npt.NDArray[np.uint64]:
            source = self.votes_source if self.exact_votes else self.training
            return source.bits(num_words)

        patch.setattr(token_rows, "unit_rows", unit_rows)
        patch.setattr(noisy_votes, "exact_votes", exact_votes)
        patch.setattr(SystemRandomness, "bits", bits)


def blanked(text: str, home: Path) -> str:
    return NAMES_OF_A_RUN.sub("*", text.replace(str(home), "HOME"))


def materialize(side: Side, profile: Profile, home: Path) -> Side:
    """Run the assets in the data folder and gather what they show."""
    resources = tiny_resources(profile, home)
    resources["language_model"] = resources["language_model"].model_copy(update={"dtype": "bfloat16"})
    instance, printed = dg.DagsterInstance.ephemeral(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        side.training.recording(),
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        side.replayed(patch, profile.generator.sampling_probability)
        result = dg.materialize(
            ALL_ASSETS, selection=DOWN_TO_THE_HISTOGRAM, partition_key=PARTITION, resources=resources, instance=instance
        )
    assert result.success
    side.printed = blanked(printed.getvalue(), home)
    side.log = sorted(blanked(str(entry.user_message), home) for entry in instance.all_logs(result.run_id))
    for event in result.get_asset_materialization_events():
        values = {name: value.value for name, value in event.materialization.metadata.items()}
        side.metadata[event.asset_key.to_user_string()] = blanked(repr(sorted(values.items())), home)
    folder = home / Zone.RELEASED
    files = [path for path in folder.rglob("*") if path.is_file()]
    side.released = sorted(TAG_OF_CONTENT.sub("-*", blanked(str(path.relative_to(folder)), home)) for path in files)
    records = [result.output_for_node(name).record for name in ("dp_generator", "dp_histogram")]
    side.records = [
        {**record, CONTENT: None} for record in records
    ]  # a hash of what is released, and differs as that does
    return side


@pytest.fixture(scope="module", params=list(PrivacyUnit))
def sides(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path
) -> tuple[Side, Side]:
    unit, folder = request.param, tmp_path_factory.mktemp("replay")
    source = write(folder / "corpus.parquet", others())
    bound = {"unit": str(unit), "max_rows_per_unit": 3 if unit is PrivacyUnit.USER else 1, "train_fraction": 1.0}
    profile = tiny_profile(source, tiny_model_folder, **bound)
    register(tiny_resources(profile, folder / "without")["ledger"], profile)
    shutil.copytree(folder / "without", folder / "joined")
    without = materialize(Side(Run()), profile, folder / "without")
    case = "rows of very different lengths" if unit is PrivacyUnit.USER else "the text of another row"
    write(source, joined(others(), NEWCOMERS[unit][case]))
    return without, materialize(Side(Run(frozen=without.training)), profile, folder / "joined")


@pytest.mark.slow
def test_each_step_moves_by_the_newcomers_share(sides: tuple[Side, Side]) -> None:
    checks.each_sum_moves_by_the_newcomers_share_alone(*(side.training for side in sides))
    assert sides[1].training.newcomer is not None


@pytest.mark.slow
def test_the_same_bins_get_the_same_votes_but_for_one(sides: tuple[Side, Side]) -> None:
    (before,), (after,) = (side.exact_votes for side in sides)
    checks.at_most_one_vote_moves(before, after)
    assert after.sum() == before.sum() + 1 == len(sides[1].training.unit_ids)


@pytest.mark.slow
def test_both_mechanisms_ask_for_random_words_alike(sides: tuple[Side, Side]) -> None:
    without, joined_by_one = (side.training.words for side in sides)
    assert len(without) == len(joined_by_one)
    assert without[2:5] == joined_by_one[2:5]
    assert sides[0].votes_source.words == sides[1].votes_source.words


@pytest.mark.slow
@pytest.mark.parametrize("what", ["metadata", "records", "log", "printed", "released"])
def test_nothing_that_anybody_sees_tells_the_runs_apart(sides: tuple[Side, Side], what: str) -> None:
    without, joined_by_one = (getattr(side, what) for side in sides)
    assert without
    assert without == joined_by_one


@pytest.mark.slow
def test_training_is_in_the_generators_type_whatever_public_steps_use(sides: tuple[Side, Side]) -> None:
    assert all(side.training.dtypes == {torch.float32} for side in sides)
