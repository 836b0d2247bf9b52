"""Rows of text laid end to end in one line of tokens, and a causal language model run on them with each row apart.

A batch of texts is mostly padded to its longest one. Here nothing is padded where the arithmetic is: layers that work
token by token see one line of all tokens. Only attention looks across tokens. For the time of a pass it is swapped for
one that takes the rows apart again, in groups of one padded width, and lays the results end to end as before.

What makes a row's outputs its own: token-wise layers see its tokens as some of their rows, attention sees it alone,
and its positions start at zero. `require_rows_apart` measures that on the very model with two texts, and refuses one
that mixes tokens in any other way, such as by a convolution or a recurrent state.

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
IDLE = 0  # the token at places that no row needs; any will do
LABELS_A_CHUNK = 128
WIDTH_STEP, STEPS_A_DOUBLING = 8, 4  # padded widths: 8, 16, ... 64, 80, ... 128, 160, ...
ROWS_APART = "rows_apart"


class RowsInteract(PublicError, ValueError):
    """A layer makes one row's gradient depend on the other rows of the batch."""


@dataclass(frozen=True)
class TokenRow:
    """One text: `prompt_ids` are read, `target_ids` are learned. Both hold at least one token.

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
    """`length` rounded up to one of few widths, by less than 8 or by less than a quarter."""
    step = max(WIDTH_STEP, (1 << (length.bit_length() - 1)) // STEPS_A_DOUBLING)
    return math.ceil(length / step) * step


@dataclass(frozen=True)
class PackedRows:
    """Rows laid end to end, those of one padded width side by side, in a line of `num_tokens` places.

    Places beyond the rows are idle: they hold a token, but no row and no label.

    Raises:
      ValueError: the rows need more places than there are.
    """

    rows: Sequence[TokenRow]
    num_tokens: int
    device: torch.device

    def __post_init__(self) -> None:
        if sum(map(len, self.rows)) > self.num_tokens:
            raise ValueError(f"the rows need more than num_tokens = {self.num_tokens} places")
        if any(padded_width(len(a)) > padded_width(len(b)) for a, b in zip(self.rows, self.rows[1:], strict=False)):
            raise ValueError("rows must be sorted by padded width")

    @property
    def tokens(self) -> Tensor:
        """The token at each place, shape [1, num_tokens]."""
        ids = [token for row in self.rows for token in row.prompt_ids + row.target_ids]
        return self._line(ids, idle=IDLE)[None]

    @property
    def positions(self) -> Tensor:
        """The position of each token in its own row, shape [1, num_tokens]."""
        return self._line([position for row in self.rows for position in range(len(row))], idle=0)[None]

    @property
    def label_chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Places that have a label and the labels, each of shape [chunk]: the token that follows in the row.

        All chunks are of one size. The last one is filled up with places whose label is ignored. A chunk is shorter
        than the line, where each row begins without a label, so a line can be told from a chunk by its shape.
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
            places, labels = torch.tensor(chunk, device=self.device).unbind(1)
            yield places, labels

    def rows_apart(self, line: Tensor) -> list[Tensor]:
        """Cut [num_tokens, ...] into its rows: one tensor [rows, width, ...] a padded width.

        Behind a row stands its own last token again. Never anything of another row: what is not finite in one would
        reach the other even through a factor of 0.
        """
        return self.by_width(line.index_select(0, self.places_or_last))

    def by_width(self, padded: Tensor) -> list[Tensor]:
        """Views of padded rows that lie end to end, [padded tokens, ...]: one [rows, width, ...] a padded width."""
        parts = padded.split([number * width for number, width in self._shapes])
        return [rows.view(*shape, *padded.shape[1:]) for rows, shape in zip(parts, self._shapes, strict=True)]

    def end_to_end(self, apart: Sequence[Tensor]) -> Tensor:
        """The inverse of `rows_apart`; zeros at idle places."""
        flat = torch.cat([*(rows.flatten(0, 1) for rows in apart), apart[0].new_zeros(1, *apart[0].shape[2:])])
        return flat.index_select(0, self._origins)

    def _line(self, values: list[int], *, idle: int) -> Tensor:
        return torch.tensor(values + [idle] * (self.num_tokens - len(values)), device=self.device)

    @cached_property
    def _starts(self) -> list[int]:
        starts, place = [], 0
        for row in self.rows:
            starts.append(place)
            place += len(row)
        return starts

    @cached_property
    def _shapes(self) -> list[tuple[int, int]]:
        """Rows and width of each padded width."""
        widths = Counter(padded_width(len(row)) for row in self.rows)
        return [(number, width) for width, number in widths.items()]

    @cached_property
    def _places_or_nowhere(self) -> Tensor:
        """The places of all padded rows' tokens, [padded tokens]; `num_tokens` stands for no place."""
        return self._padded_places(lambda row, start: self.num_tokens)

    @cached_property
    def places_or_last(self) -> Tensor:
        """The places of all padded rows' tokens, [padded tokens]; behind a row that of its last token again."""
        return self._padded_places(lambda row, start: start + len(row) - 1)

    @cached_property
    def behind(self) -> Tensor:
        """Where padded rows that lie end to end have no token of a row."""
        return (self._places_or_nowhere == self.num_tokens).nonzero().flatten()

    def _padded_places(self, behind: Callable[[TokenRow, int], int]) -> Tensor:
        places: list[int] = []
        for row, start in zip(self.rows, self._starts, strict=True):
            padding = [behind(row, start)] * (padded_width(len(row)) - len(row))
            places += [*range(start, start + len(row)), *padding]
        return torch.tensor(places, device=self.device)

    @cached_property
    def _origins(self) -> Tensor:
        """For each place where its token lies once the padded rows are laid end to end, padding included."""
        places = self._places_or_nowhere
        origins = torch.full((self.num_tokens + 1,), len(places), device=self.device)
        origins[places] = torch.arange(len(places), device=self.device)
        return origins[: self.num_tokens]


class RowBuffer:
    """Takes one line of tokens after another apart into the same memory, which so stays in the processor's cache.

    The lines are of one `dtype`, the rows float32. Behind rows stand zeros if `zeros_behind`, else what
    `PackedRows.rows_apart` puts there.
    """

    def __init__(self, packed: PackedRows, features: int, dtype: torch.dtype, *, zeros_behind: bool) -> None:
        self._packed, self._zeros_behind = packed, zeros_behind
        self._taken = torch.empty(len(packed.places_or_last), features, dtype=dtype, device=packed.device)
        self._padded = self._taken.float()  # the same tensor where the lines are float32
        self._rows = packed.by_width(self._padded)
        self._saved: Tensor | None = None

    def fill(self, line: Tensor, *, saved: bool) -> list[Tensor]:
        """The rows of a line of shape [1, num_tokens, features] by padded width; the next line replaces them.

        A line that autograd `saved` cannot change unnoticed, so it is not copied again where it is the last one.
        """
        if line is not self._saved:
            torch.index_select(line[0], 0, self._packed.places_or_last, out=self._taken)
            if self._zeros_behind:
                self._taken.index_fill_(0, self._packed.behind, 0)
            if self._padded is not self._taken:
                self._padded.copy_(self._taken)
            self._saved = line if saved else None
        return self._rows


# A language model on packed rows


def causal_lm(model: nn.Module) -> Any:
    """The language model itself, without the wrapper that PEFT puts around it."""
    unwrap: Any = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


@contextmanager
def attending_within_rows(model: nn.Module) -> Iterator[None]:
    """Within the context the model's attention looks at one row of a `PackedRows` at a time.

    Raises:
      RowsInteract: the model's attention cannot be swapped; transformers itself only warns.
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
    """Causal attention of each row to itself: [1, heads, tokens, features] each, to [1, tokens, heads, features].

    There is no mask, since causal attention never looks at padding on the right, and one would change the kernel of
    all rows as soon as one of them is shorter than the rest.

    Raises:
      RowsInteract: the model asks for attention that this is not.
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
    """Measure on two public texts that what stands before or behind a row does not change its outputs in one bit.

    Nor may it where the other text is not finite: a mask that weighs it with 0 would hold until one is, and then void
    whatever stands beside it. A public row of `longest` tokens, as long as any row may be, is run too, so that no row
    meets a limit later.

    Raises:
      RowsInteract: it does, or the model cannot be run on packed rows at all.
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
    """Within the context all places of a line but `own` are embedded as NaN."""

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
    """The output of the model's body; `last_hidden_state` is [1, tokens, features]."""
    return base.base_model(input_ids=packed.tokens, position_ids=packed.positions, use_cache=False, packed_rows=packed)


def logits_of(base: Any, output: Any, hidden: Tensor) -> Tensor:
    """The logits [1, places, vocabulary] of hidden states [1, places, features], by the model's own forward.

    The body is bypassed, so that whatever a model does with its logits, such as scaling them, is done here too.
    """
    body = base.base_model
    output.last_hidden_state = hidden
    with forwarding(body, lambda *_, **__: output):
        logits: Tensor = base(input_ids=hidden.new_zeros(hidden.shape[:2], dtype=torch.long), use_cache=False).logits
    return logits


@contextmanager
def forwarding(module: nn.Module, forward: Any) -> Iterator[None]:
    """Within the context `module` computes `forward`; what hid its class's forward before hides it again after."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward  # the instance attribute; the class's own forward shows again
        else:
            module.forward = before
