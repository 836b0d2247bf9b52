"""Private training on neighboring corpora, with the draws of everybody else and the outputs of every step replayed.

Two things make the exact sums of two whole runs comparable (the idea of arXiv 2602.17454, record and replay).

Aligned by unit. Each unit's words are its own (`WordsByUnit`), so that everybody else is sampled, and gives the same
row, in both runs, wherever the newcomer falls in the order. Noise is a function of the step.

Frozen outputs. A step's output, the noisy sum, is what the next step may depend on. The recording runs on one corpus.
The replay runs on the neighbor and computes each step's exact sum there, but goes on with the recorded one, to which
the same noise is added. So the parameters, the optimizer and whatever else follows from outputs are the recorded ones
to the last bit, and each step's two exact sums are taken at one point of one real trajectory. That is the comparison
that the proof of an adaptive composition makes.

Everything else is `train_privately` as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoTokenizer

from dp_assets.dpsgd import clipping, training
from dp_assets.dpsgd.checkpoints import Checkpoints
from dp_assets.dpsgd.clipping import Clipping, Gradients, adapter_parameters
from dp_assets.dpsgd.packing import TokenRow
from dp_assets.dpsgd.training import TrainingSettings
from dp_assets.privacy.evidence import Evidence
from dp_assets.privacy.plan import DpSgdPlan
from dp_assets.privacy.units import PrivacyUnit
from tests.generation.tiny_lora import lora_model
from tests.privacy.plans import small_plan
from tests.privacy.replay import WordsByUnit
from tests.replay.neighbors import POISON, neighbors, token_rows

STEPS = 3
C = 0.1  # some units' gradients are longer, some shorter
PROBABILITY = 0.5
PLAN = replace(
    small_plan(),
    delta=0.1 / 12,  # so that the largest batch is of twelve units
    dpsgd=DpSgdPlan(
        sampling_probability=PROBABILITY,
        steps=STEPS,
        spare_steps=1,
        l2_clip_norm=C,
        noise_multiplier=1.0,
        expected_batch_size=12,
    ),
)
SETTINGS = TrainingSettings(learning_rate=1e-2, loss_normalizer=48.0, tokens_per_micro_batch=256, longest_row=0)


@dataclass(frozen=True)
class Step:
    """What entered and what left the clip in one step, and the adapter that it was taken at."""

    unit_ids: tuple[str, ...]
    rows: tuple[TokenRow, ...]
    exact_sum: Gradients = field(repr=False)
    share: Tensor | None = field(repr=False)  # the newcomer's own, clipped alone at the same adapter
    adapter: Tensor = field(repr=False)


class Run:
    """One training: its steps, and all that it showed to anybody.

    With `frozen`, every step goes on with that run's exact sum, and the one unit that the other run lacks is in every
    sample.
    """

    def __init__(self, frozen: "Run | None" = None) -> None:
        self.steps: list[Step] = []
        self.dtypes: set[torch.dtype] = set()  # of the model's tensors while real rows pass through it
        self.source: WordsByUnit | None = None
        self.newcomer: str | None = None
        self.clip_norm = 0.0
        self.heard: list[int] = []  # what progress was told
        self.files: list[list[str]] = []  # in the folder of the checkpoint, after each step
        self.evidence: Evidence | None = None
        self._frozen = frozen

    @property
    def words(self) -> list[int]:
        """The number of words of each request to the source of randomness."""
        assert self.source is not None
        return self.source.log

    def open(self, unit_ids: Sequence[str], *, sampling_probability: float) -> None:
        """The private rows are opened, and randomness is dealt to these units."""
        known = set(unit_ids) if self._frozen is None else set(self._frozen.unit_ids)
        always = [unit_id for unit_id in unit_ids if unit_id not in known]
        assert len(always) <= 1, "the newcomer is more than one unit"
        self.newcomer = always[0] if always else None
        self.unit_ids = tuple(unit_ids)
        self.source = WordsByUnit(8, unit_ids, sampling_probability=sampling_probability, always=always)

    def bits(self, num_words: int) -> npt.NDArray[np.uint64]:
        assert self.source is not None, "randomness is asked for before the private rows are opened"
        return self.source.bits(num_words)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within the context every clipped sum of real rows is kept, and the frozen one is handed back."""
        clip = clipping.clipped_sum

        def recorded(model: nn.Module, rows: Sequence[TokenRow], unit_ids: Sequence[str], terms: Clipping) -> Any:
            exact_sum, clipped = clip(model, rows, unit_ids, terms)
            if self.source is None:
                return exact_sum, clipped  # of public rows, before the private ones are opened
            own = [row for row, unit_id in zip(rows, unit_ids, strict=True) if unit_id == self.newcomer]
            share = flat(clip(model, own, [str(self.newcomer)] * len(own), terms)[0]) if own else None
            self.clip_norm = terms.l2_clip_norm
            self.dtypes |= {parameter.dtype for parameter in model.parameters()}
            self.steps.append(Step(tuple(unit_ids), tuple(rows), exact_sum, share, flat(adapter_parameters(model))))
            handed = exact_sum if self._frozen is None else self._frozen.steps[len(self.steps) - 1].exact_sum
            return handed, clipped

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clipping, "clipped_sum", recorded)
            yield


def flat(gradients: Mapping[str, Tensor]) -> Tensor:
    """All tensors of a sum one after the other, float64."""
    return torch.cat([gradients[name].detach().flatten().double() for name in sorted(gradients)])


def train(
    model: nn.Module,
    unit_rows: Mapping[str, Sequence[TokenRow]],
    *,
    frozen: Run | None = None,
    folder: Path | None = None,
    **changes: Any,
) -> Run:
    """Train `model` on the units by `train_privately`; `folder` is for checkpoints."""
    run = Run(frozen)

    def advance(increment: int) -> None:
        run.heard.append(increment)
        run.files.append(sorted(path.name for path in folder.rglob("*")) if folder else [])

    checkpoints = Checkpoints(folder) if folder else None
    with run.recording():
        settings = replace(SETTINGS, **changes)
        _, run.evidence = training.train_privately(
            model,
            Rows(run, unit_rows),
            PLAN,
            settings,
            source=run,
            checkpoints=checkpoints,
            resume_from=None,
            advance=advance,
        )
    return run


@dataclass(frozen=True)
class Rows:
    """The units' rows, of which each drawn one passes. Randomness is dealt when they are opened."""

    run: Run
    unit_rows: Mapping[str, Sequence[TokenRow]]

    def open(self) -> Mapping[str, Sequence[TokenRow]]:
        self.run.open(list(self.unit_rows), sampling_probability=PROBABILITY)
        return self.unit_rows

    def match_stored_rows(self, *_: object) -> bool:
        return True

    def note_continued(self, checkpoint: str) -> None:
        """Nothing is recorded."""


class Pair:
    """A case of neighbors, ready to be trained on."""

    def __init__(self, folder: Path, model_folder: Path, unit: PrivacyUnit, case: str, **size: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model_folder)
        self._folder, self._model_folder = folder, model_folder
        tables = neighbors(folder, unit, case, **size)
        self.newcomer = tables.newcomer
        self.without, self.joined = (token_rows(table, self.tokenizer) for table in (tables.without, tables.joined))

    def model(self, *, checkpointing: bool = False) -> PeftModel:
        model = lora_model(self._model_folder)
        poison(model, self.tokenizer(POISON)["input_ids"][0])
        if checkpointing:
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
            model.train()
        return model

    def recording(self, **changes: Any) -> Run:
        return train(self.model(), self.without, folder=self._folder / "without", **changes)

    def replay(self, recording: Run, *, checkpointing: bool = False, **changes: Any) -> Run:
        model = self.model(checkpointing=checkpointing)
        return train(model, self.joined, frozen=recording, folder=self._folder / "joined", **changes)


def poison(model: PeftModel, token: int) -> None:
    """Make every text with this token one whose loss and gradient are not finite."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.get_input_embeddings().weight.data[token] = torch.inf


def total(model: nn.Module, units: Mapping[str, Sequence[TokenRow]], *, budget: int, clip_norm: float = C) -> Tensor:
    """The clipped sum of all rows of all units, flat."""
    owned = [(row, unit_id) for unit_id, rows in units.items() for row in rows]
    exact_sum, _ = clipping.clipped_sum(
        model,
        [row for row, _ in owned],
        [unit_id for _, unit_id in owned],
        Clipping(clip_norm, SETTINGS.loss_normalizer, budget),
    )
    return flat(exact_sum)
