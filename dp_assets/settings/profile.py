"""The profile: every public choice of a run in one frozen value.

So a click in the UI, a backfill and a command run the same plan.

A profile is a resource of the code location and is selected when that loads (`named.py`). It holds public constants
only. A change of a number that decides the guarantee gives another plan, which the ledger treats as a new charge.
"""

import hashlib
from pathlib import Path
from typing import Any

from dp_assets.alignment.settings import (
    OPERATIONAL,
    AdapterTraining,
    AnnotationSettings,
    PreferenceSettings,
    RewardSettings,
    RlhfSettings,
)
from dp_assets.corpus.settings import CorpusSettings
from dp_assets.evaluation.settings import ReportSettings
from dp_assets.fields import ModelDtype, PublicName, Settings
from dp_assets.generation.settings import GeneratorSettings, SamplingSettings
from dp_assets.privacy.plan import PrivacyPlan, make_plan
from dp_assets.selection.settings import SelectionSettings, VotesSettings

OWN_SETTINGS = {"annotated_instructions": "annotation", "preference_pairs": "preferences"}
"""The groups of settings that decide one asset and what is made from it."""
MISSING_FILE = "missing"


class Profile(Settings):
    """Everything public that a run depends on. `consistency` checks whether its settings fit together."""

    name: PublicName
    corpus: CorpusSettings
    generator: GeneratorSettings
    votes: VotesSettings
    sampling: SamplingSettings
    selection: SelectionSettings
    annotation: AnnotationSettings
    sft: AdapterTraining
    preferences: PreferenceSettings
    reward: RewardSettings
    rlhf: RlhfSettings
    report: ReportSettings
    language_model: str = "packaged"
    embedder: str = "packaged"
    device: str = "auto"
    dtype: ModelDtype = "auto"

    def plan(self, level: str) -> PrivacyPlan:
        """Return the privacy plan of a level.

        Raises:
          UnreachableTarget: no sensible noise meets the level's target.
        """
        return make_plan(
            level,
            delta=self.corpus.delta,
            unit=self.corpus.unit,
            max_rows_per_unit=self.corpus.max_rows_per_unit,
            dpsgd=self.generator.plan_without_noise,
            votes=self.votes.plan,
        )

    def planned(self) -> tuple[PrivacyPlan, ...]:
        """Return the plans of the planned levels, which are registered before any output exists."""
        return tuple(self.plan(level) for level in self.corpus.planned_levels)

    @property
    def baseline_sampling(self) -> SamplingSettings:
        """Settings for samples of the untrained base model: the pool's, with the report's size and seed."""
        return self.sampling.resized(self.report.baseline_samples, seed=self.report.seed)

    @property
    def digest(self) -> str:
        """A short hash of every setting that can change a result, except those that `own_digest` covers.

        - A new name, a raised budget, a further level or a declared number of units make nothing out of date.
        - Another annotator or judge makes only its own asset and what follows it out of date. Sampling the pool again
          might give other texts, whose answers would have to be paid for, or written by people, again.
        """
        beside: dict[str, Any] = dict.fromkeys(("name", *OWN_SETTINGS.values()), True)
        beside["corpus"] = {"planned_levels", "budget_epsilon", "declared_units"}
        return _short_hash(self.model_dump_json(exclude=beside))

    def own_digest(self, asset: str) -> str | None:
        """Return a short hash of what decides this asset but no asset upstream, or None if there is no such thing.

        It covers a group of settings and the content of the file that they name. A raised budget, or another address of
        the server or path of the file, does not change it.
        """
        if asset not in OWN_SETTINGS:
            return None
        settings: AnnotationSettings | PreferenceSettings = getattr(self, OWN_SETTINGS[asset])
        reads_file = settings.source in ("file", "human")
        content = _content_hash(settings.path) if reads_file and settings.path is not None else ""
        decisive = settings.model_dump_json(exclude={"endpoint": OPERATIONAL, "judge": OPERATIONAL, "path": True})
        return _short_hash(decisive + content)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content_hash(path: Path) -> str:
    """Return the hash of a file, or a constant if it is missing."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return MISSING_FILE
