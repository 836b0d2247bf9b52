"""Sequence packing: rows of tokens concatenated into one packed sequence, and a causal language model run on it.

A batch of texts is usually padded to its longest one. Here, layers that work token by token run on one packed sequence
without padding. Only attention looks across tokens. During a pass it is replaced by one that splits the packed sequence
into rows, grouped by padded width, attends within each row, and concatenates the results again.

Why the outputs of a row do not depend on other rows: token-wise layers treat each token separately, attention sees one
row at a time, and the positions of a row start at zero. `require_rows_apart` measures this on the model itself with
public texts, and refuses a model that mixes tokens in any other way, such as by a convolution or a recurrent state.

Left out: attention that is more than scaled products within a causal window (soft caps, sinks, position biases). Such
models are refused too.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from dp_assets.privacy.errors import PublicError

IGNORED = -100  # the label that cross-entropy skips
IDLE = 0  # the token at positions that no row uses; any token would do
LABELS_A_CHUNK = 128
WIDTH_STEP, STEPS_A_DOUBLING = 8, 4  # padded widths: 8, 16, ... 64, 80, ... 128, 160, ...
ROWS_APART = "rows_apart"


class RowsInteract(PublicError, ValueError):
    """The gradient of one row would depend on the other rows of the batch."""


@dataclass(frozen=True)
class TokenRow:
    """The tokens of one text. `prompt_ids` are context only; the loss is taken over `target_ids`.

    Raises:
      ValueError: one of them is empty.
    """

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.target_ids:
            raise ValueError("prompt_ids and target_ids must each hold at least one token; drop such rows beforehand")

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.target_ids)


def padded_width(length: int) -> int:
    """Return `length` rounded up to one of a few widths, by less than 8 tokens or by less than a quarter."""
    step = max(WIDTH_STEP, (1 << (length.bit_length() - 1)) // STEPS_A_DOUBLING)
    return math.ceil(length / step) * step


@dataclass(frozen=True)
class PackedRows:
    """A packed sequence: rows concatenated into `num_tokens` positions, rows of one padded width next to each other.

    Positions behind the last row are idle: they hold a token, but belong to no row and have no label.

    Raises:
      ValueError: the rows have more than `num_tokens` tokens, or are not sorted by padded width.
    """

    rows: Sequence[TokenRow]
    num_tokens: int
    device: torch.device

    def __post_init__(self) -> None:
        if sum(map(len, self.rows)) > self.num_tokens:
            raise ValueError(f"the rows need more than num_tokens = {self.num_tokens} positions")
        if any(padded_width(len(a)) > padded_width(len(b)) for a, b in zip(self.rows, self.rows[1:], strict=False)):
            raise ValueError("rows must be sorted by padded width")

    @property
    def tokens(self) -> Tensor:
        """Return the token at each position of the packed sequence, shape [1, num_tokens]."""
        ids = [token for row in self.rows for token in row.prompt_ids + row.target_ids]
        return self._line(ids, idle=IDLE)[None]

    @property
    def positions(self) -> Tensor:
        """Return the position of each token within its own row, shape [1, num_tokens]."""
        return self._line([position for row in self.rows for position in range(len(row))], idle=0)[None]

    @property
    def label_chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the positions that have a label, and the labels, each of shape [chunk].

        The label of a position is the next token of its row. All chunks have the same size; the last one is filled up
        with positions whose label is ignored. A chunk is shorter than the packed sequence, so the two differ in shape.
        """
        size = max(1, min(LABELS_A_CHUNK, self.num_tokens - 1))
        labeled = [
            (start + len(row.prompt_ids) - 1 + index, token)
            for row, start in zip(self.rows, self._starts, strict=True)
            for index, token in enumerate(row.target_ids)
        ]
        for first in range(0, len(labeled), size):
            chunk = labeled[first : first + size]
            chunk += [(0, IGNORED)] * (size - len(chunk))
            positions, labels = torch.tensor(chunk, device=self.device).unbind(1)
            yield positions, labels

    def rows_apart(self, line: Tensor) -> list[Tensor]:
        """Split [num_tokens, ...] into rows: one tensor [rows, width, ...] for each padded width.

        A row is padded with copies of its own last token, never with values of another row. A value of another row that
        is not finite would affect this one even when multiplied by 0.
        """
        return self.by_width(line.index_select(0, self.positions_or_last))

    def by_width(self, padded: Tensor) -> list[Tensor]:
        """Return views of concatenated padded rows, [padded tokens, ...]: one [rows, width, ...] for each width."""
        parts = padded.split([number * width for number, width in self._shapes])
        return [rows.view(*shape, *padded.shape[1:]) for rows, shape in zip(parts, self._shapes, strict=True)]

    def end_to_end(self, apart: Sequence[Tensor]) -> Tensor:
        """Return [num_tokens, ...]: the inverse of `rows_apart`, with zeros at idle positions."""
        flat = torch.cat([*(rows.flatten(0, 1) for rows in apart), apart[0].new_zeros(1, *apart[0].shape[2:])])
        return flat.index_select(0, self._origins)

    def _line(self, values: list[int], *, idle: int) -> Tensor:
        return torch.tensor(values + [idle] * (self.num_tokens - len(values)), device=self.device)

    @cached_property
    def _starts(self) -> list[int]:
        starts, position = [], 0
        for row in self.rows:
            starts.append(position)
            position += len(row)
        return starts

    @cached_property
    def _shapes(self) -> list[tuple[int, int]]:
        """Return the number of rows and the width, for each padded width."""
        widths = Counter(padded_width(len(row)) for row in self.rows)
        return [(number, width) for width, number in widths.items()]

    @cached_property
    def _positions_or_none(self) -> Tensor:
        """Return the position of each token of the padded rows, [padded tokens]; `num_tokens` for padding."""
        return self._padded_positions(lambda row, start: self.num_tokens)

    @cached_property
    def positions_or_last(self) -> Tensor:
        """Return the position of each token of the padded rows, [padded tokens]; the row's last one for padding."""
        return self._padded_positions(lambda row, start: start + len(row) - 1)

    @cached_property
    def behind(self) -> Tensor:
        """Return the indices of padding in the concatenated padded rows."""
        return (self._positions_or_none == self.num_tokens).nonzero().flatten()

    def _padded_positions(self, behind: Callable[[TokenRow, int], int]) -> Tensor:
        positions: list[int] = []
        for row, start in zip(self.rows, self._starts, strict=True):
            padding = [behind(row, start)] * (padded_width(len(row)) - len(row))
            positions += [*range(start, start + len(row)), *padding]
        return torch.tensor(positions, device=self.device)

    @cached_property
    def _origins(self) -> Tensor:
        """Return the index of each position's token in the concatenated padded rows, [num_tokens].

        An idle position gets the index one behind them.
        """
        positions = self._positions_or_none
        origins = torch.full((self.num_tokens + 1,), len(positions), device=self.device)
        origins[positions] = torch.arange(len(positions), device=self.device)
        return origins[: self.num_tokens]


class RowBuffer:
    """Splits each packed sequence into rows, reusing one buffer so that it stays in the processor's cache.

    The sequences have type `dtype`; the rows are float32. Padding is zero if `zeros_behind`, else as in
    `PackedRows.rows_apart`.
    """

    def __init__(self, packed: PackedRows, features: int, dtype: torch.dtype, *, zeros_behind: bool) -> None:
        self._packed, self._zeros_behind = packed, zeros_behind
        self._taken = torch.empty(len(packed.positions_or_last), features, dtype=dtype, device=packed.device)
        self._padded = self._taken.float()  # the same tensor if `dtype` is float32
        self._rows = packed.by_width(self._padded)
        self._saved: Tensor | None = None

    def fill(self, line: Tensor, *, saved: bool) -> list[Tensor]:
        """Return the rows of a packed sequence [1, num_tokens, features] by padded width. The next call replaces them.

        Autograd detects changes of a tensor that it `saved`. So such a tensor is not copied again if the last call was
        with the same one.
        """
        if line is not self._saved:
            torch.index_select(line[0], 0, self._packed.positions_or_last, out=self._taken)
            if self._zeros_behind:
                self._taken.index_fill_(0, self._packed.behind, 0)
            if self._padded is not self._taken:
                self._padded.copy_(self._taken)
            self._saved = line if saved else None
        return self._rows


# A language model on packed rows


def causal_lm(model: nn.Module) -> Any:
    """Return the language model without PEFT's wrapper."""
    unwrap: Any = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


@contextmanager
def attending_within_rows(model: nn.Module) -> Iterator[None]:
    """Within the context, the model's attention looks at one row of a `PackedRows` at a time.

    Raises:
      RowsInteract: the model's attention cannot be replaced. Transformers itself only warns.
    """
    base = causal_lm(model)
    before = base.config._attn_implementation
    AttentionInterface.register(ROWS_APART, attend_within_rows)
    base.set_attn_implementation(ROWS_APART)
    try:
        if base.config._attn_implementation != ROWS_APART:
            raise RowsInteract("the model computes attention in its own way, over all rows; choose another model")
        yield
    finally:
        base.set_attn_implementation(before)


def attend_within_rows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_rows: PackedRows | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the causal attention of each row to itself, [1, tokens, heads, features]; called by transformers.

    `query`, `key` and `value` are [1, heads, tokens, features]. No mask is passed to the kernel. Causal attention never
    looks at padding on the right, and a mask would change the kernel of all rows if one of them is shorter.

    Raises:
      RowsInteract: the model asks for another kind of attention.
    """
    if packed_rows is None or attention_mask is not None:
        raise RowsInteract("the model's attention is not told where rows begin and end; choose another model")
    unknown = sorted(name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None)
    if unknown:
        raise RowsInteract(f"the model's attention uses {', '.join(unknown)}, which is not supported; choose another")
    if sliding_window is not None and max(map(len, packed_rows.rows), default=0) > sliding_window:
        raise RowsInteract(f"a row is longer than the model's attention window, {sliding_window}; allow fewer tokens")
    apart = [packed_rows.rows_apart(states[0].transpose(0, 1)) for states in (query, key, value)]
    attended = [
        sdpa_attention_forward(
            module, *(states.transpose(1, 2) for states in rows), attention_mask=None, scaling=scaling, is_causal=True
        )[0]
        for rows in zip(*apart, strict=True)
    ]
    return packed_rows.end_to_end(attended)[None], None


def require_rows_apart(model: nn.Module, *, longest: int) -> None:
    """Check on public texts that the rows before and behind a row do not change its outputs by a single bit.

    - This must also hold if the embeddings of the other row are NaN. A mask that multiplies other rows by 0 would pass
      with finite values only.
    - A public row of `longest` tokens, the most that any row may have, is run too, so that no private row exceeds a
      limit of the model later.

    Raises:
      RowsInteract: the outputs change, or the model cannot be run on packed rows at all.
    """
    base, device = causal_lm(model), next(model.parameters()).device
    row = TokenRow((5,), (6, 7, 8, 9))
    neighbors = TokenRow((3,), (11, 4, 10, 12)), TokenRow((13,), (5, 3, 14, 6))

    def own(rows: Sequence[TokenRow]) -> slice:
        start = sum(len(other) for other in rows[: rows.index(row)])
        return slice(start, start + len(row))

    def outputs(rows: Sequence[TokenRow]) -> Tensor:
        hidden: Tensor = decode(base, PackedRows(rows, num_tokens=16, device=device)).last_hidden_state
        return hidden[0, own(rows)]

    with attending_within_rows(model), torch.no_grad():
        for lines in ([(row, other) for other in neighbors], [(other, row) for other in neighbors]):
            first, second = map(outputs, lines)
            with _embedding_as_nan_but(base, own(lines[0])):
                beside_nan = outputs(lines[0])
            if not torch.equal(first, second) or not torch.equal(first, beside_nan):
                raise RowsInteract(
                    "the language model mixes the tokens of texts beyond attention; choose another model"
                )
        if longest > len(row):
            decode(base, PackedRows([TokenRow((5,), (6,) * (longest - 1))], num_tokens=longest, device=device))


@contextmanager
def _embedding_as_nan_but(base: Any, own: slice) -> Iterator[None]:
    """Within the context, all positions of a packed sequence except `own` are embedded as NaN."""

    def void(module: nn.Module, args: Any, embedded: Tensor) -> Tensor:
        voided = torch.full_like(embedded, math.nan)
        voided[:, own] = embedded[:, own]
        return voided

    hook = base.get_input_embeddings().register_forward_hook(void)
    try:
        yield
    finally:
        hook.remove()


def decode(base: Any, packed: PackedRows) -> Any:
    """Return the output of the model's body; `last_hidden_state` is [1, tokens, features]."""
    return base.base_model(input_ids=packed.tokens, position_ids=packed.positions, use_cache=False, packed_rows=packed)


def logits_of(base: Any, output: Any, hidden: Tensor) -> Tensor:
    """Return the logits [1, positions, vocabulary] of hidden states [1, positions, features].

    The model's own forward runs with its body bypassed. So whatever a model does with its logits, such as scaling, is
    done here too.
    """
    body = base.base_model
    output.last_hidden_state = hidden
    with forwarding(body, lambda *_, **__: output):
        logits: Tensor = base(input_ids=hidden.new_zeros(hidden.shape[:2], dtype=torch.long), use_cache=False).logits
    return logits


@contextmanager
def forwarding(module: nn.Module, forward: Any) -> Iterator[None]:
    """Within the context, `module` computes `forward`. Afterwards its earlier forward is restored."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward  # the instance attribute, so that the class's forward is used again
        else:
            module.forward = before
