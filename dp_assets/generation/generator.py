"""Mechanism 1: a LoRA adapter of a public language model, trained with DP-SGD to generate instructions.

    sensitivity   one unit changes the clipped sum of a step by at most `plan.dpsgd.l2_clip_norm` (`clipping.py`)
    event         `plan.dpsgd.event`: one Poisson-subsampled Gaussian for each step, spare steps included
    checks        `check_dpsgd` compares what ran with the plan

The loss of a row is taken over its own tokens after a fixed public prompt, so the adapter models instructions without
any private context. Left out: any choice that depends on the private rows, such as a vocabulary, a length statistic or
early stopping.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.artifacts import Adapter, PrivateTable, ResumableCharge, content_digest
from dp_assets.dpsgd.checkpoints import Checkpoints
from dp_assets.dpsgd.clipping import Clipping, GradientEngine
from dp_assets.dpsgd.monitor import WATCHED_TO
from dp_assets.dpsgd.packing import require_rows_apart
from dp_assets.dpsgd.replica import digests_of
from dp_assets.dpsgd.sensitivity_probe import probe_sensitivity
from dp_assets.dpsgd.training import TrainingSettings, train_privately
from dp_assets.generation.adapters import adapter_from_model, arrays_of_parameters, new_adapter_model
from dp_assets.generation.fitness import (
    PUBLIC_TEXTS,
    UnfitModel,
    require_causal,
    require_layers,
    require_length,
    require_prompts,
    require_same_tokens,
    require_vocabulary,
    said_by,
)
from dp_assets.generation.settings import GeneratorSettings
from dp_assets.generation.token_rows import PrivateTokenRows, RowEncoder
from dp_assets.privacy.accounting import signal_to_noise
from dp_assets.privacy.claim import CONFIGURED, Discrepancy, check_dpsgd, excesses, probe_limits
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.evidence import OTHERWISE, Evidence
from dp_assets.privacy.ledger_state import ChargeRecord
from dp_assets.privacy.metadata import BASE_DTYPE, SIGNAL_TO_NOISE
from dp_assets.privacy.plan import GENERATOR, PrivacyPlan
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.progress import private_progress

FEW_TOKENS = 64
OF_KERNELS = 4  # numbers that a kernel processes together; remaining ones are added in another order


class LoadableModel(Protocol):
    """A public language model that can be loaded. The language model's resource implements it."""

    @property
    def public_name(self) -> str:
        """Return its name in releases."""

    def load(self, *, dtype: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return the model and its tokenizer."""


@dataclass(frozen=True)
class DpSgdGenerator:
    """The training of the generator at one privacy level, on one private table.

    `checkpoints_root` is a private folder that holds one folder for each charge.
    """

    name: ClassVar[str] = GENERATOR

    plan: PrivacyPlan
    settings: GeneratorSettings
    table: PrivateTable
    language_model: LoadableModel
    checkpoints_root: Path

    @cached_property
    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return the base model and its tokenizer, loaded once for the checks and the training."""
        return self.language_model.load(dtype=self.settings.dtype)

    def require_ready(self) -> None:
        """Raise an error if the model or its settings cannot be trained: see `require_trainable`."""
        base, tokenizer = self.loaded
        require_trainable(base, tokenizer, self.plan, self.settings)

    def run(self, charge: ResumableCharge) -> tuple[Adapter, Evidence]:
        """Train under `charge`, from its checkpoint if it has one. Sampling, clipping and noise follow the plan.

        The evidence's `content` is the digest of the adapter as it was before a private row was read, with the weights
        of the run monitor.
        """
        base, tokenizer = self.loaded
        model = with_new_adapter(base, self.settings)
        checkpoints = self._checkpoints_of(charge.charge_id)
        state = checkpoints.load()
        encoder = RowEncoder.of(tokenizer, self.settings)
        private_rows = PrivateTokenRows(self.table, charge, model=model, encoder=encoder)
        untrained = self._as_adapter(model)
        remaining = self.plan.dpsgd.steps - (state.steps_taken if state is not None else 0)
        with private_progress("training the generator with DP-SGD", remaining, "steps") as advance:
            weights, evidence = train_privately(
                model,
                private_rows,
                self.plan,
                self._training_settings(encoder),
                source=SystemRandomness(),
                checkpoints=checkpoints,
                resume_from=state,
                advance=advance,
            )
        seen = evidence.also(
            preparation=self.table.preparation,
            constants=CONFIGURED if self._is_configured(evidence) else OTHERWISE,
            **private_rows.observed(evidence, steps=remaining),
        )
        is_last = digests_of(weights) == evidence.restricted[WATCHED_TO]
        watched = replace(untrained, weights=arrays_of_parameters(weights))
        return self._as_adapter(model), replace(seen, content=content_digest(watched) if is_last else "")

    def check(self, evidence: Mapping[str, Any]) -> list[Discrepancy]:
        """Return every difference between a run of DP-SGD and the plan."""
        return check_dpsgd(self.plan.dpsgd, self.plan.unit, evidence, delta=self.plan.delta)

    def can_resume(self, record: ChargeRecord) -> bool:
        """Whether an interrupted run under this charge left a checkpoint that may still be continued."""
        checkpoints = self._checkpoints_of(record.charge_id)
        state = checkpoints.load()
        return (
            state is not None
            and state.continuations < self.plan.dpsgd.spare_steps
            and state.digest not in record.continuations
            and checkpoints.is_accounted(state)
        )

    def describe(self, evidence: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the signal-to-noise ratio of a step, and the number type of the base model."""
        base, _ = self.loaded
        ratio = signal_to_noise(
            expected_batch_size=self.plan.dpsgd.expected_batch_size,
            noise_multiplier=self.plan.dpsgd.noise_multiplier,
            num_parameters=evidence["num_parameters"],
        )
        return {SIGNAL_TO_NOISE: ratio, BASE_DTYPE: str(base.dtype).removeprefix("torch.")}

    def discard_checkpoints(self, release: Adapter) -> None:
        """Delete the checkpoints of a release after it was stored."""
        for charge_id in release.charge_ids:
            self._checkpoints_of(charge_id).discard()

    def _checkpoints_of(self, charge_id: str) -> Checkpoints:
        return Checkpoints(self.checkpoints_root / charge_id)

    def _as_adapter(self, model: PeftModel) -> Adapter:
        return adapter_from_model(model, base_model=self.language_model.public_name, record={})

    def _training_settings(self, encoder: RowEncoder) -> TrainingSettings:
        return TrainingSettings(
            learning_rate=self.settings.learning_rate,
            loss_normalizer=self.settings.loss_normaliser,
            tokens_per_micro_batch=self.settings.tokens_per_micro_batch,
            longest_row=encoder.longest_row,
        )

    def _is_configured(self, evidence: Evidence) -> bool:
        """Whether the constants of the run are those of the settings."""
        constants = {"learning_rate": self.settings.learning_rate, "loss_normaliser": self.settings.loss_normaliser}
        return bool(evidence.public["constants"] == constants)


def require_trainable(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, plan: PrivacyPlan, settings: GeneratorSettings
) -> None:
    """Check that the model can be trained with these settings, before anything is charged.

    - At the end, gradients of constant public texts are clipped as in the run. Sampling, noise and the optimizer's step
      are left out, because they do not depend on the model.
    - The adapter is removed afterwards, so the model is unchanged.
    - The sensitivity probe uses small micro-batches if rounding does not depend on the number of tokens in one.
      Otherwise it uses the token budget of the run.

    Raises:
      UnfitModel: a target module is no layer of the model, its tokenizer does not fit the prompt, it cannot be trained,
        or the claim would be refused because clipped gradients exceed the clip norm or do not add up.
      RowsInteract: the model mixes the tokens of different texts, or cannot run a row of the largest length.
      RoundingTooCoarse: the rounding of a gradient depends on the rest of the batch by more than is allowed.
      UnclippableParameter: see `clipped_sum`.
    """
    require_layers(base, settings.target_modules, setting="generator.target_modules")
    require_vocabulary(base, tokenizer)
    require_prompts(tokenizer, [settings.prompt])
    encoder = RowEncoder.of(tokenizer, settings)
    require_same_tokens(tokenizer, encoder.public_text)
    require_causal(base)
    require_length(base, encoder.longest_row, setting="generator.max_tokens")
    with _trainable("language_model cannot be trained privately"):
        require_rows_apart(base, longest=encoder.longest_row)
        model = with_new_adapter(base, settings)
        budget = settings.tokens_per_micro_batch
        tokens = min(budget, FEW_TOKENS) if _rounds_alike(model) else budget
        try:
            engine = GradientEngine(model, Clipping(plan.dpsgd.l2_clip_norm, settings.loss_normaliser, tokens))
            probed = probe_sensitivity(engine, largest_batch=plan.largest_batch, longest_row=encoder.longest_row)
            _, clipped = engine.clipped_sum([encoder.encode(text) for text in PUBLIC_TEXTS], PUBLIC_TEXTS)
        finally:
            model.unload()
    if excesses(probe_limits(plan.largest_batch), asdict(probed)):
        raise UnfitModel(
            "the clipped gradients of public texts do not add up within the clip norm, so no claim could be made;"
            " choose another model, or undo what was changed in dp_assets/generation"
        )
    if clipped.num_non_finite:
        raise UnfitModel(
            "gradients of language_model are not finite; set generator.dtype to float32, or choose another"
        )


def _rounds_alike(model: nn.Module) -> bool:
    """Whether kernels round a row in the same way at every position: in float32, if all widths are multiples of 4."""
    tensors = list(model.parameters())
    return all(t.dtype == torch.float32 and all(width % OF_KERNELS == 0 for width in t.shape) for t in tensors)


@contextmanager
def _trainable(what: str) -> Iterator[None]:
    """Turn an error on public texts into an `UnfitModel`. A `PublicError`, such as a refusal, is passed on.

    Raises:
      UnfitModel: with `what` and the error's first line.
    """
    try:
        yield
    except PublicError:
        raise
    except Exception as error:
        raise UnfitModel(f"{what}: {said_by(error)}; choose another model or other generator settings") from None


def with_new_adapter(base: PreTrainedModel, settings: GeneratorSettings) -> PeftModel:
    """Add to `base` the adapter from which private training starts, and return the PEFT model.

    The last `settings.last_layers` transformer blocks get an adapter (None: all). The noise of a step grows with the
    square root of the number of trained parameters and the signal does not, so a small corpus needs few of them.
    """
    return new_adapter_model(
        base,
        rank=settings.rank,
        alpha=settings.alpha,
        target_modules=settings.target_modules,
        layers=last_blocks(base.config.num_hidden_layers, settings.last_layers),
        seed=settings.seed,
    )


def last_blocks(num_blocks: int, last_layers: int | None) -> list[int] | None:
    """Return the indices of the last `last_layers` of `num_blocks` transformer blocks; None means all of them."""
    return None if last_layers is None else list(range(max(0, num_blocks - last_layers), num_blocks))


def page_figures(adapter: Adapter) -> dict[str, float]:
    """Return the figures for the asset's page."""
    return {SIGNAL_TO_NOISE: float(adapter.record[SIGNAL_TO_NOISE])}
