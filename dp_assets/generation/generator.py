"""The first mechanism: a LoRA adapter of a public language model, trained with DP-SGD to write instructions.

The loss of a row is taken over its own tokens after a fixed public prompt, so the adapter models an instruction given
nothing private. Preparation here is row by row: a text is cut to a public number of tokens and never looked at beside
another one. What is left out: any choice that depends on the rows, such as a vocabulary, a length statistic or an early
stop.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import polars as pl
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.artifacts import Adapter, PrivateTable, ResumableCharge, content_digest
from dp_assets.dpsgd.checkpoints import Checkpoints
from dp_assets.dpsgd.clipping import clipped_sum
from dp_assets.dpsgd.monitor import WATCHED_FROM, WATCHED_TO, Picks
from dp_assets.dpsgd.packing import TokenRow, require_rows_apart
from dp_assets.dpsgd.replica import digests_of, tensors_of
from dp_assets.dpsgd.sensitivity_probe import probe_shares
from dp_assets.dpsgd.training import UnitRows, train_privately
from dp_assets.generation.adapters import adapter_from_model, arrays_of_parameters, new_adapter_model
from dp_assets.generation.fitness import (
    PUBLIC_TEXTS,
    UnfitModel,
    public_rows,
    require_causal,
    require_layers,
    require_length,
    require_prompts,
    require_same_tokens,
    require_vocabulary,
    said_by,
)
from dp_assets.generation.prompts import (
    encode_instruction,
    generator_prompt_ids,
)
from dp_assets.generation.settings import GeneratorPrompt
from dp_assets.privacy.accounting import signal_to_noise
from dp_assets.privacy.claim import CONFIGURED, excesses, largest_shares
from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.evidence import OTHERWISE, Evidence, fingerprint
from dp_assets.privacy.ledger import ChargeRecord
from dp_assets.privacy.mechanisms import noise_draws
from dp_assets.privacy.metadata import BASE_DTYPE, SIGNAL_TO_NOISE
from dp_assets.privacy.plan import PrivacyPlan
from dp_assets.privacy.randomness import SystemRandomness
from dp_assets.progress import private_progress

PUBLIC_TEXT = "The quick brown fox jumps over the lazy dog; 0123456789 times, or Zwölf Boxkämpfer do."

LoadModel = Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]

FEW_TOKENS = 64
OF_KERNELS = 4  # numbers that a kernel takes at a time; those that are left over are added up in another order


def require_trainable(
    load_model: LoadModel,
    plan: PrivacyPlan,
    *,
    prompt: GeneratorPrompt,
    target_modules: Sequence[str],
    max_tokens: int,
    loss_normaliser: float,
    tokens_per_micro_batch: int,
    **adapter: Any,
) -> None:
    """Find what is wrong with the model or with the settings that concern it, before anything is charged.

    Last of all gradients of constant public texts are clipped as in the run. Left out are sampling, noise and the
    optimiser's step, which depend on no model. The adapter is taken off again, so a model that `load_model` keeps is as
    it was. Where rounding does not depend on how many tokens a line has, few show what they must; else the probe takes
    those of the run.

    Raises:
      UnfitModel: a target module is no layer of the model, its tokenizer does not go with the prompt, it cannot be
        trained, or the claim would be refused for shares that exceed the clip norm or do not add up.
      RowsInteract: the model mixes the tokens of different texts, or takes no row as long as the longest.
      RoundingTooCoarse: the gradient of a text rounds by more than can be allowed for.
      UnclippableParameter: see `per_unit`.
    """
    base, tokenizer = load_model()
    require_layers(base, target_modules, setting="generator.target_modules")
    require_vocabulary(base, tokenizer)
    require_prompts(tokenizer, [prompt])
    require_same_tokens(tokenizer, text_of_at_least(max_tokens))
    require_causal(base)
    prompt_ids = tuple(generator_prompt_ids(tokenizer, prompt=prompt))
    longest = len(prompt_ids) + max_tokens
    require_length(base, longest, setting="generator.max_tokens")
    with _trainable("language_model cannot be trained privately"):
        require_rows_apart(base, longest=longest)
        model = with_new_adapter(base, target_modules=target_modules, **adapter)
        tokens = min(tokens_per_micro_batch, FEW_TOKENS) if _rounds_alike(model) else tokens_per_micro_batch
        try:
            clip = partial(
                clipped_sum,
                model,
                l2_clip_norm=plan.dpsgd.l2_clip_norm,
                loss_normaliser=loss_normaliser,
                tokens_per_micro_batch=tokens,
            )
            probed = probe_shares(
                model,
                clip,
                l2_clip_norm=plan.dpsgd.l2_clip_norm,
                loss_normaliser=loss_normaliser,
                largest_batch=plan.largest_batch,
                tokens_per_micro_batch=tokens,
                longest=longest,
            )
            _, clipping = clip(public_rows(tokenizer, prompt_ids, max_tokens=max_tokens), PUBLIC_TEXTS)
        finally:
            model.unload()
    if excesses(largest_shares(plan.largest_batch), probed):
        raise UnfitModel(
            "the clipped gradients of public texts do not add up within the clip norm, so no claim could be made;"
            " choose another model, or undo what was changed in dp_assets/generation"
        )
    if clipping.num_non_finite:
        raise UnfitModel(
            "gradients of language_model are not finite; set generator.dtype to float32, or choose another"
        )


def _rounds_alike(model: nn.Module) -> bool:
    """Whether kernels round a row alike wherever it stands: in float32, where all widths are multiples of 4."""
    tensors = list(model.parameters())
    return all(t.dtype == torch.float32 and all(width % OF_KERNELS == 0 for width in t.shape) for t in tensors)


@contextmanager
def _trainable(what: str) -> Iterator[None]:
    """Let the refusals of private training through, and say of any other error that it came from a public text."""
    try:
        yield
    except PublicError:
        raise
    except Exception as error:
        raise UnfitModel(f"{what}: {said_by(error)}; choose another model or other generator settings") from None


def with_new_adapter(
    base: PreTrainedModel,
    *,
    rank: int,
    alpha: int,
    target_modules: Sequence[str],
    last_layers: int | None,
    seed: int,
    **_: object,
) -> PeftModel:
    """`base` with the adapter that private training starts from, by the generator's settings; others are ignored."""
    layers = last_blocks(base.config.num_hidden_layers, last_layers)
    return new_adapter_model(base, rank=rank, alpha=alpha, target_modules=target_modules, layers=layers, seed=seed)


def can_resume(checkpoints_root: Path, spare_steps: int, charge: ChargeRecord) -> bool:
    """Whether an interrupted run under this charge left a checkpoint that may still be continued."""
    checkpoints = Checkpoints(checkpoints_root / charge.charge_id)
    state = checkpoints.load()
    return (
        state is not None
        and state.continuations < spare_steps
        and state.digest not in charge.continuations
        and checkpoints.is_accounted(state)
    )


def discard_checkpoints(checkpoints_root: Path, charge_ids: Sequence[str]) -> None:
    """Delete the checkpoints of charges whose release is stored."""
    for charge_id in charge_ids:
        Checkpoints(checkpoints_root / charge_id).discard()


def train_generator(
    charge: ResumableCharge,
    *,
    table: PrivateTable,
    plan: PrivacyPlan,
    load_model: LoadModel,
    base_model: str,
    checkpoints_root: Path,
    prompt: GeneratorPrompt,
    rank: int,
    alpha: int,
    target_modules: Sequence[str],
    last_layers: int | None,
    learning_rate: float,
    max_tokens: int,
    loss_normaliser: float,
    tokens_per_micro_batch: int,
    seed: int,
) -> tuple[Adapter, Evidence]:
    """Train under `charge`, from its checkpoint if it has one. Sampling, clipping and noise are the plan's.

    `last_layers` counts the transformer blocks from the end that get an adapter (None: all). The noise of a step grows
    with the square root of the trained parameters and the signal does not, so a small corpus wants few of them.

    The evidence's `content` is the adapter as it was before a private row was read, with the weights that were watched.
    """
    base, tokenizer = load_model()
    model = with_new_adapter(
        base, rank=rank, alpha=alpha, target_modules=target_modules, last_layers=last_layers, seed=seed
    )
    checkpoints = Checkpoints(checkpoints_root / charge.charge_id)
    state = checkpoints.load()
    prompt_ids = tuple(generator_prompt_ids(tokenizer, prompt=prompt))
    read = _UnitReader(
        table,
        charge,
        model=model,
        encode=encoder(tokenizer, prompt_ids=prompt_ids, max_tokens=max_tokens),
        public_text=text_of_at_least(max_tokens),
    )
    as_adapter = partial(adapter_from_model, model, base_model=base_model, charge_ids=(), record={})
    untrained = as_adapter()
    remaining = plan.dpsgd.steps - (state.steps_taken if state is not None else 0)
    with private_progress("training the generator with DP-SGD", remaining, "steps") as advance:
        weights, evidence = train_privately(
            model,
            read,
            owns=read.owns,
            steps=plan.dpsgd.steps,
            spare_steps=plan.dpsgd.spare_steps,
            sampling_probability=plan.dpsgd.sampling_probability,
            l2_clip_norm=plan.dpsgd.l2_clip_norm,
            noise_multiplier=plan.dpsgd.noise_multiplier,
            expected_batch_size=plan.dpsgd.expected_batch_size,
            largest_batch=plan.largest_batch,
            learning_rate=learning_rate,
            loss_normaliser=loss_normaliser,
            tokens_per_micro_batch=tokens_per_micro_batch,
            longest=len(prompt_ids) + max_tokens,
            unit=str(plan.unit),
            source=SystemRandomness(),
            checkpoints=checkpoints,
            resume_from=state,
            note_continued=read.note_continued,
            advance=advance,
        )
    constants = {"learning_rate": learning_rate, "loss_normaliser": loss_normaliser}
    is_configured = evidence.public["constants"] == constants
    seen = evidence.also(
        preparation=table.preparation,
        constants=CONFIGURED if is_configured else OTHERWISE,
        **read.observed(evidence, steps=remaining),
    )
    is_last = digests_of(weights) == evidence.restricted[WATCHED_TO]
    watched = replace(untrained, weights=arrays_of_parameters(weights))
    return as_adapter(), replace(seen, content=content_digest(watched) if is_last else "")


@dataclass
class _UnitReader:
    """Opens the table, and compares whom the training samples and what it clips with the table as it is stored.

    What a model is before its rows are opened follows from public facts, so its digests are taken then.
    """

    table: PrivateTable
    charge: ResumableCharge
    model: nn.Module
    encode: Callable[[str], TokenRow]
    public_text: str
    _is_whole: bool = False
    _is_public_model: bool = False
    _num_batches: int = 0
    _draws_before: int = 0
    _probed: TokenRow | None = None
    _public_tensors: Mapping[str, str] = field(default_factory=dict)
    _stored: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)
    _texts: dict[TokenRow, set[str]] = field(default_factory=dict, repr=False)  # that were encoded since the last step

    def __call__(self) -> UnitRows:
        self._probed = self.encode(self.public_text)
        self._draws_before = noise_draws()
        self._public_tensors = digests_of(dict(tensors_of(self.model)))
        units = unit_rows(self.table.open(self.charge), encode=self._encode)
        self._stored = self.table.as_stored(self.charge).select("unit_id", "text").collect()
        stored_sizes = dict(self._stored["unit_id"].value_counts().iter_rows())
        self._is_whole = {unit_id: len(rows) for unit_id, rows in units.items()} == stored_sizes
        return units

    def note_continued(self, checkpoint: str) -> None:
        """Book that the run goes on from this checkpoint; the table is then opened as a continuation."""
        self.charge = self.charge.continued(checkpoint)

    def owns(self, rows: Sequence[TokenRow], unit_ids: Sequence[str], picks: Picks, steps: int) -> bool:
        """Whether each row was encoded, as texts were at first, from the one that was drawn of its unit's texts."""
        self._num_batches += 1
        if self._num_batches == 1:
            self._is_public_model = digests_of(dict(tensors_of(self.model))) == self._public_tensors
        is_one_run = self._num_batches - 1 == noise_draws() - self._draws_before == steps
        encoded, self._texts = self._texts, {}
        stored = self._texts_of(unit_ids)
        is_as_read = (
            is_one_run and self._is_whole and self._is_public_model and self.encode(self.public_text) == self._probed
        )
        return is_as_read and all(
            _is_drawn(encoded.get(row, ()), stored.get(unit_id, ()), *picks.get(unit_id, (0, 0)))
            for row, unit_id in zip(rows, unit_ids, strict=True)
        )

    def observed(self, evidence: Evidence, *, steps: int) -> dict[str, Any]:
        """What of the evidence of `steps` steps the table and the model before it was opened decide.

        Each batch of its rows and each noise drawn since must be of these steps: a run that was thrown away adds more.
        """
        public, watched = evidence.public, evidence.restricted[WATCHED_FROM]
        is_one_run = self._num_batches == noise_draws() - self._draws_before == steps
        changed = {name for name, digest in self._public_tensors.items() if watched.get(name) != digest}
        return {
            "population": "units" if self._is_whole else OTHERWISE,
            "batches": public["batches"] if is_one_run else OTHERWISE,
            "changed_elsewhere": fingerprint(changed) if changed else public["changed_elsewhere"],
        }

    def _texts_of(self, unit_ids: Sequence[str]) -> dict[str, list[str]]:
        """The texts that the table holds for some units, in the order of `unit_rows`."""
        named = pl.DataFrame({"unit_id": unit_ids}, schema={"unit_id": pl.String})
        texts: dict[str, list[str]] = {}
        for unit_id, text in self._stored.join(named, on="unit_id", how="semi").iter_rows():
            texts.setdefault(unit_id, []).append(text)
        return {unit_id: sorted(of_unit) for unit_id, of_unit in texts.items()}

    def _encode(self, text: str) -> TokenRow:
        row = self.encode(text)
        self._texts.setdefault(row, set()).add(text)
        return row


def _is_drawn(encoded: Collection[str], texts: Sequence[str], index: int, size: int) -> bool:
    """Whether one of the `encoded` texts is the one of this index among `texts`, of which there are `size`."""
    return index < size == len(texts) and texts[index] in encoded


def text_of_at_least(num_tokens: int) -> str:
    """A public text that no shorter cut than one to `num_tokens` leaves as it is."""
    return " ".join([PUBLIC_TEXT] * (1 + num_tokens // len(PUBLIC_TEXT.split())))


def last_blocks(num_blocks: int, last_layers: int | None) -> list[int] | None:
    """Indices of the last `last_layers` of `num_blocks` transformer blocks; None means all of them."""
    return None if last_layers is None else list(range(max(0, num_blocks - last_layers), num_blocks))


def encoder(
    tokenizer: PreTrainedTokenizerBase, *, prompt_ids: tuple[int, ...], max_tokens: int
) -> Callable[[str], TokenRow]:
    """What makes a token row of a text, from that text and public values alone."""
    return lambda text: TokenRow(prompt_ids, tuple(encode_instruction(tokenizer, text, max_tokens=max_tokens)))


def unit_rows(rows: pl.LazyFrame, encode: Callable[[str], TokenRow]) -> dict[str, Sequence[TokenRow]]:
    """The token rows of each unit, its texts sorted. Reads the private rows; a text is encoded whenever it is drawn."""
    units: dict[str, list[str]] = {}
    for unit_id, text in rows.select("unit_id", "text").collect().iter_rows():
        units.setdefault(unit_id, []).append(text)
    return {unit_id: EncodedOnDraw(encode, tuple(sorted(units.pop(unit_id)))) for unit_id in list(units)}


class EncodedOnDraw(Sequence[TokenRow]):
    """The texts of a unit as token rows, each encoded whenever it is asked for.

    Any unit may be drawn in any step, so all texts are held. As tokens they would take ten times the memory, and a run
    draws a row a few times at most.
    """

    __slots__ = ("_encode", "_texts")

    def __init__(self, encode: Callable[[str], TokenRow], texts: tuple[str, ...]) -> None:
        self._encode, self._texts = encode, texts

    @overload
    def __getitem__(self, place: int) -> TokenRow: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[TokenRow]: ...

    def __getitem__(self, place: int | slice) -> TokenRow | Sequence[TokenRow]:
        if isinstance(place, slice):
            return EncodedOnDraw(self._encode, self._texts[place])
        return self._encode(self._texts[place])

    def __len__(self) -> int:
        return len(self._texts)


def public_record(plan: PrivacyPlan, load_model: LoadModel, evidence: Mapping[str, Any]) -> dict[str, object]:
    """Public facts that travel with the adapter beside its evidence: how a step's signal compares with its noise, and
    the type of the base model's numbers.
    """
    base, _ = load_model()
    ratio = signal_to_noise(
        expected_batch_size=plan.dpsgd.expected_batch_size,
        noise_multiplier=plan.dpsgd.noise_multiplier,
        num_parameters=evidence["num_parameters"],
    )
    return {SIGNAL_TO_NOISE: ratio, BASE_DTYPE: str(base.dtype).removeprefix("torch.")}


def headline(adapter: Adapter) -> dict[str, float]:
    """Figures for the asset's page."""
    return {SIGNAL_TO_NOISE: float(adapter.record[SIGNAL_TO_NOISE])}
