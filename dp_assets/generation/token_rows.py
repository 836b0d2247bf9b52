"""The real instructions as private training reads them: opened under a charge, encoded when they are sampled.

Preparation here is row by row: a text is cut to a public number of tokens, and never depends on another text. The rows
that are clipped in each step are compared with the stored table, which separate code reads again.
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
from dp_assets.privacy.evidence import OTHERWISE, Evidence, digest_of_names
from dp_assets.privacy.sampling_and_noise import noise_draws

PUBLIC_TEXT = "The quick brown fox jumps over the lazy dog; 0123456789 times, or Zwölf Boxkämpfer do."


class Encoder(Protocol):
    """Encodes a text as a token row."""

    def encode(self, text: str) -> TokenRow:
        """Return the token row of a text."""


@dataclass(frozen=True)
class RowEncoder:
    """Encodes a text as a token row, from that text and public values alone."""

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
        """Return the largest number of tokens that a row may have."""
        return len(self.prompt_ids) + self.max_tokens

    @property
    def public_text(self) -> str:
        """Return a public text that is as long as rows may be."""
        return text_of_at_least(self.max_tokens)

    def encode(self, text: str) -> TokenRow:
        """Return the row of a text: the prompt, then the text cut to `max_tokens`."""
        return TokenRow(self.prompt_ids, tuple(encode_instruction(self.tokenizer, text, max_tokens=self.max_tokens)))


def text_of_at_least(num_tokens: int) -> str:
    """Return a public text of at least `num_tokens` words, and so normally of at least as many tokens."""
    return " ".join([PUBLIC_TEXT] * (1 + num_tokens // len(PUBLIC_TEXT.split())))


@dataclass
class PrivateTokenRows:
    """The token rows of a private table under one charge.

    Compares the units that the training samples and the rows that it clips with the stored table. Before the rows are
    opened, the model follows from public facts, so the digests of its tensors are taken then.
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
        """Mark the charge as opened, and return the rows of each unit."""
        self._probed = self._encode_public_text()
        self._draws_before = noise_draws()
        self._public_tensors = digests_of(dict(tensors_of(self.model)))
        units = unit_rows(self.table.open(self.charge), encoder=self)
        self._stored = self.table.as_stored(self.charge).select("unit_id", "text").collect()
        stored_sizes = dict(self._stored["unit_id"].value_counts().iter_rows())
        self._is_whole = {unit_id: len(rows) for unit_id, rows in units.items()} == stored_sizes
        return units

    def encode(self, text: str) -> TokenRow:
        """Return the row of a text, and remember the text until the next step."""
        row = self.encoder.encode(text)
        self._texts.setdefault(row, set()).add(text)
        return row

    def note_continued(self, checkpoint: str) -> None:
        """Record that the run continues from this checkpoint. The table is then opened as a continuation."""
        self.charge = self.charge.continued(checkpoint)

    def match_stored_rows(self, rows: Sequence[TokenRow], unit_ids: Sequence[str], picks: Picks, steps: int) -> bool:
        """Whether each row was encoded from the picked text of its unit in the stored table.

        False too if the run is not the only one since the rows were opened, if the opened rows are not the whole table,
        if the model was not in its public state before the first batch, or if the encoder has changed.
        """
        self._num_batches += 1
        if self._num_batches == 1:
            self._is_public_model = digests_of(dict(tensors_of(self.model))) == self._public_tensors
        is_one_run = self._num_batches - 1 == noise_draws() - self._draws_before == steps
        encoded, self._texts = self._texts, {}
        stored = self._texts_of(unit_ids)
        is_encoded_alike = self._encode_public_text() == self._probed
        is_as_read = is_one_run and self._is_whole and self._is_public_model and is_encoded_alike
        return is_as_read and all(
            _matches_stored_row(encoded.get(row, ()), stored.get(unit_id, ()), *picks.get(unit_id, (0, 0)))
            for row, unit_id in zip(rows, unit_ids, strict=True)
        )

    def observed(self, evidence: Evidence, *, steps: int) -> dict[str, Any]:
        """Return the evidence that follows from the table, and from the model before the table was opened.

        The batches and the draws of noise since then must number exactly `steps`. A run that was thrown away would add
        to them.
        """
        public, watched = evidence.public, evidence.restricted[WATCHED_FROM]
        is_one_run = self._num_batches == noise_draws() - self._draws_before == steps
        changed = {name for name, digest in self._public_tensors.items() if watched.get(name) != digest}
        return {
            "population": "units" if self._is_whole else OTHERWISE,
            "batches": public["batches"] if is_one_run else OTHERWISE,
            "changed_elsewhere": digest_of_names(changed) if changed else public["changed_elsewhere"],
        }

    def _encode_public_text(self) -> TokenRow:
        return self.encoder.encode(self.encoder.public_text)

    def _texts_of(self, unit_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return the texts of these units in the stored table, in the order of `unit_rows`."""
        named = pl.DataFrame({"unit_id": unit_ids}, schema={"unit_id": pl.String})
        texts: dict[str, list[str]] = {}
        for unit_id, text in self._stored.join(named, on="unit_id", how="semi").iter_rows():
            texts.setdefault(unit_id, []).append(text)
        return {unit_id: sorted(of_unit) for unit_id, of_unit in texts.items()}


def _matches_stored_row(encoded: Collection[str], texts: Sequence[str], index: int, size: int) -> bool:
    """Whether `encoded` contains the text at `index` of `texts`, and `texts` has length `size`."""
    return index < size == len(texts) and texts[index] in encoded


def unit_rows(rows: pl.LazyFrame, encoder: Encoder) -> dict[str, Sequence[TokenRow]]:
    """Read the private rows, and return the token rows of each unit in the order of its sorted texts.

    A text is encoded whenever it is sampled.
    """
    units: dict[str, list[str]] = {}
    for unit_id, text in rows.select("unit_id", "text").collect().iter_rows():
        units.setdefault(unit_id, []).append(text)
    return {unit_id: EncodedOnDraw(encoder, tuple(sorted(units.pop(unit_id)))) for unit_id in list(units)}


class EncodedOnDraw(Sequence[TokenRow]):
    """The texts of a unit as token rows, each encoded on every access.

    Any unit may be sampled in any step, so all texts are held in memory. Tokens would take ten times as much, and a run
    samples a row a few times at most.
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
