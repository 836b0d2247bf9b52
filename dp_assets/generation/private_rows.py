"""The real instructions as private training sees them: opened under a charge, encoded when they are drawn.

Preparation here is row by row: a text is cut to a public number of tokens and never looked at beside another one. What
is clipped in each step is compared with the table as it is stored, which is read again by other code.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

import polars as pl
from torch import nn
from transformers import PreTrainedTokenizerBase

from dp_assets.artifacts import PrivateTable, ResumableCharge
from dp_assets.dpsgd.monitor import WATCHED_FROM
from dp_assets.dpsgd.packing import TokenRow
from dp_assets.dpsgd.private_rows import Picks, UnitRows
from dp_assets.dpsgd.replica import digests_of, tensors_of
from dp_assets.generation.prompts import encode_instruction, generator_prompt_ids
from dp_assets.generation.settings import GeneratorSettings
from dp_assets.privacy.evidence import OTHERWISE, Evidence, fingerprint
from dp_assets.privacy.mechanisms import noise_draws

PUBLIC_TEXT = "The quick brown fox jumps over the lazy dog; 0123456789 times, or Zwölf Boxkämpfer do."


class Encoder(Protocol):
    """Makes a token row of a text."""

    def encode(self, text: str) -> TokenRow:
        """Return the token row of a text."""


@dataclass(frozen=True)
class RowEncoder:
    """Makes a token row of a text, from that text and public values alone."""

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    prompt_ids: tuple[int, ...]
    max_tokens: int

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase, settings: GeneratorSettings) -> "RowEncoder":
        """Return the encoder that the settings describe."""
        prompt_ids = tuple(generator_prompt_ids(tokenizer, prompt=settings.prompt))
        return RowEncoder(tokenizer, prompt_ids, settings.max_tokens)

    @property
    def longest_row(self) -> int:
        """The most tokens that a row has."""
        return len(self.prompt_ids) + self.max_tokens

    @property
    def public_text(self) -> str:
        """A public text that is as long as rows may be."""
        return text_of_at_least(self.max_tokens)

    def encode(self, text: str) -> TokenRow:
        """The row of a text, cut to `max_tokens` after the prompt."""
        return TokenRow(self.prompt_ids, tuple(encode_instruction(self.tokenizer, text, max_tokens=self.max_tokens)))


def text_of_at_least(num_tokens: int) -> str:
    """A public text that no shorter cut than one to `num_tokens` leaves as it is."""
    return " ".join([PUBLIC_TEXT] * (1 + num_tokens // len(PUBLIC_TEXT.split())))


@dataclass
class PrivateTokenRows:
    """The token rows of a private table under one charge.

    Compares whom the training samples and what it clips with the table as it is stored.

    What a model is before its rows are opened follows from public facts, so its digests are taken then.
    """

    table: PrivateTable
    charge: ResumableCharge
    model: nn.Module
    encoder: RowEncoder
    _is_whole: bool = False
    _is_public_model: bool = False
    _num_batches: int = 0
    _draws_before: int = 0
    _probed: TokenRow | None = None
    _public_tensors: Mapping[str, str] = field(default_factory=dict)
    _stored: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)
    _texts: dict[TokenRow, set[str]] = field(default_factory=dict, repr=False)  # that were encoded since the last step

    def open(self) -> UnitRows:
        """The rows of each unit, once the charge is marked as opened."""
        self._probed = self._encode_public_text()
        self._draws_before = noise_draws()
        self._public_tensors = digests_of(dict(tensors_of(self.model)))
        units = unit_rows(self.table.open(self.charge), encoder=self)
        self._stored = self.table.as_stored(self.charge).select("unit_id", "text").collect()
        stored_sizes = dict(self._stored["unit_id"].value_counts().iter_rows())
        self._is_whole = {unit_id: len(rows) for unit_id, rows in units.items()} == stored_sizes
        return units

    def encode(self, text: str) -> TokenRow:
        """The row of a text, which is noted until the next step."""
        row = self.encoder.encode(text)
        self._texts.setdefault(row, set()).add(text)
        return row

    def note_continued(self, checkpoint: str) -> None:
        """Book that the run goes on from this checkpoint; the table is then opened as a continuation."""
        self.charge = self.charge.continued(checkpoint)

    def are_drawn(self, rows: Sequence[TokenRow], unit_ids: Sequence[str], picks: Picks, steps: int) -> bool:
        """Whether each row was encoded, as texts were at first, from the one that was drawn of its unit's texts."""
        self._num_batches += 1
        if self._num_batches == 1:
            self._is_public_model = digests_of(dict(tensors_of(self.model))) == self._public_tensors
        is_one_run = self._num_batches - 1 == noise_draws() - self._draws_before == steps
        encoded, self._texts = self._texts, {}
        stored = self._texts_of(unit_ids)
        is_encoded_alike = self._encode_public_text() == self._probed
        is_as_read = is_one_run and self._is_whole and self._is_public_model and is_encoded_alike
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

    def _encode_public_text(self) -> TokenRow:
        return self.encoder.encode(self.encoder.public_text)

    def _texts_of(self, unit_ids: Sequence[str]) -> dict[str, list[str]]:
        """The texts that the table holds for some units, in the order of `unit_rows`."""
        named = pl.DataFrame({"unit_id": unit_ids}, schema={"unit_id": pl.String})
        texts: dict[str, list[str]] = {}
        for unit_id, text in self._stored.join(named, on="unit_id", how="semi").iter_rows():
            texts.setdefault(unit_id, []).append(text)
        return {unit_id: sorted(of_unit) for unit_id, of_unit in texts.items()}


def _is_drawn(encoded: Collection[str], texts: Sequence[str], index: int, size: int) -> bool:
    """Whether one of the `encoded` texts is the one of this index among `texts`, of which there are `size`."""
    return index < size == len(texts) and texts[index] in encoded


def unit_rows(rows: pl.LazyFrame, encoder: Encoder) -> dict[str, Sequence[TokenRow]]:
    """The token rows of each unit, its texts sorted. Reads the private rows; a text is encoded whenever it is drawn."""
    units: dict[str, list[str]] = {}
    for unit_id, text in rows.select("unit_id", "text").collect().iter_rows():
        units.setdefault(unit_id, []).append(text)
    return {unit_id: EncodedOnDraw(encoder, tuple(sorted(units.pop(unit_id)))) for unit_id in list(units)}


class EncodedOnDraw(Sequence[TokenRow]):
    """The texts of a unit as token rows, each encoded whenever it is asked for.

    Any unit may be drawn in any step, so all texts are held. As tokens they would take ten times the memory, and a run
    draws a row a few times at most.
    """

    __slots__ = ("_encoder", "_texts")

    def __init__(self, encoder: Encoder, texts: tuple[str, ...]) -> None:
        self._encoder, self._texts = encoder, texts

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[TokenRow]: ...

    def __getitem__(self, index: int | slice) -> TokenRow | Sequence[TokenRow]:
        if isinstance(index, slice):
            return EncodedOnDraw(self._encoder, self._texts[index])
        return self._encoder.encode(self._texts[index])

    def __len__(self) -> int:
        return len(self._texts)
