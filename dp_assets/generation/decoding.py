"""Continuous batching: when a text of the batch ends, its slot is refilled with the next prompt.

`generate` of transformers runs a batch until its longest text ends, so it keeps computing rows that ended earlier, and
it sorts the whole vocabulary of every row at every step. This module does neither.

- Continuous batching: each slot of the batch holds one text, which may have started at any step. The slot is refilled
  after that text ended.
- KV cache: all slots write to the same column of one cache, so a step is an ordinary step of any causal model. When a
  text starts, its prompt's keys and values are copied into the columns just before the current one, and columns further
  left are masked. Columns left of the oldest active text are dropped. So memory depends on the number of slots and the
  longest text, not on the number of texts.
- Prefill and prefix sharing: texts with the same prompt share one prefill; different prompts are prefilled in groups.
- Nucleus sampling does not sort the vocabulary (`choose_tokens`).

The random numbers of each text follow from the public seed and the text's number. So the batch size and the other
texts of the batch affect nothing but rounding.

Left out: models whose layers keep a state other than keys and values (`keeps_columns`), and paged attention, so a step
costs every slot the width of the oldest active text.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

SPARE_COLUMNS = 64
REFILL_SHARE = 16  # slots are refilled when a sixteenth of them is free, so that prompts are prefilled in groups
COMPACT_BELOW = 7 / 8  # when no prompt is waiting, free slots are dropped once they are an eighth of all
ROWS_IN_CACHE = 16  # rows of probabilities per block; a block stays in the CPU's cache, which makes it twice as fast


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen and where a text ends. Temperature 0 selects the most likely token."""

    max_new_tokens: int
    temperature: float
    top_p: float
    stop_ids: frozenset[int]
    seed: int


def keeps_columns(model: PreTrainedModel) -> bool:
    """Whether the model's layers keep nothing but keys and values for each token, so that `decode` can run it."""
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer}


@torch.no_grad()  # type: ignore[untyped-decorator]
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    batch_size: int,
    first_number: int,
    advance: Callable[[int], None],
) -> list[list[int]]:
    """Return the new token ids for each prompt, in the order of the prompts.

    If a stop token ended a text, it is the last of its ids.

    Args:
      model: a causal language model for which `keeps_columns` is true.
      prompts: token ids, at least one each.
      decoding: how tokens are chosen.
      batch_size: the largest number of slots.
      first_number: the number of the first text. The random numbers of a text follow from its number.
      advance: called with the number of texts that ended.
    """
    texts = [_Text(prompt, decoding, first_number + index) for index, prompt in enumerate(prompts)]
    waiting = deque(sorted(texts, key=lambda text: len(text.prompt)))
    slots = _Slots(model, decoding, size=min(batch_size, len(texts)), longest=max(map(len, prompts), default=0))
    while waiting or slots.live():
        if waiting and len(slots.free()) >= max(1, slots.size // REFILL_SHARE):
            slots.admit([waiting.popleft() for _ in range(min(len(slots.free()), len(waiting)))])
        elif not waiting and len(slots.live()) <= COMPACT_BELOW * slots.size:
            slots.drop_free()
        num_ended = slots.step()
        if num_ended:
            advance(num_ended)
    return [text.new_ids for text in texts]


class _Text:
    """One text while it is generated, with its own random numbers."""

    def __init__(self, prompt: Sequence[int], decoding: Decoding, number: int) -> None:
        self.prompt = tuple(prompt)
        self.new_ids: list[int] = []
        self.uniform = np.random.default_rng((decoding.seed, number)).random
        self._decoding = decoding

    @property
    def last_id(self) -> int:
        return self.new_ids[-1] if self.new_ids else self.prompt[-1]

    @property
    def ended(self) -> bool:
        return len(self.new_ids) == self._decoding.max_new_tokens or self.new_ids[-1] in self._decoding.stop_ids


class _Slots:
    """The active texts, one for each slot, and their KV cache."""

    def __init__(self, model: PreTrainedModel, decoding: Decoding, *, size: int, longest: int) -> None:
        self.model, self.decoding, self.size = model, decoding, size
        self.texts: list[_Text | None] = [None] * size
        self.columns = _Columns(size, room=max(longest - 1, 0))
        self.prefixes = _Prefixes(model)

    def live(self) -> list[int]:
        return [slot for slot, text in enumerate(self.texts) if text is not None]

    def free(self) -> list[int]:
        return [slot for slot, text in enumerate(self.texts) if text is None]

    def admit(self, texts: Sequence[_Text]) -> None:
        """Put texts into free slots and prefill their prompts, except the last token, which the next step reads."""
        slots = self.free()[: len(texts)]
        prompts = [text.prompt for text in texts]
        for slot, text in zip(slots, texts, strict=True):
            self.texts[slot] = text
        self.columns.write_before_end(slots, self.prefixes.of(prompts), [len(prompt) - 1 for prompt in prompts])

    def drop_free(self) -> None:
        kept = self.live()
        self.columns.keep(kept)
        self.texts, self.size = [self.texts[slot] for slot in kept], len(kept)

    def step(self) -> int:
        """Generate one more token for every active text, and return how many texts ended."""
        live = self.live()
        logits = self._next_logits(live)
        texts = [text for text in self.texts if text is not None]
        chosen = choose_tokens(
            logits,
            temperature=self.decoding.temperature,
            top_p=self.decoding.top_p,
            uniforms=[text.uniform for text in texts],
        )
        for text, token in zip(texts, chosen, strict=True):
            text.new_ids.append(token)
        ended = [slot for slot, text in zip(live, texts, strict=True) if text.ended]
        for slot in ended:
            self.texts[slot] = None
        return len(ended)

    def _next_logits(self, live: list[int]) -> Tensor:
        """Return the next logits, float32 [active texts, vocabulary]. A free slot reads a token that is ignored."""
        columns, device = self.columns, self.model.device
        columns.begin_step(free=self.free())
        starts = torch.from_numpy(columns.starts).to(device)
        logits: Tensor = self.model(
            input_ids=torch.tensor([[0 if text is None else text.last_id] for text in self.texts], device=device),
            attention_mask=torch.arange(columns.oldest, columns.end + 1, device=device) >= starts[:, None],
            position_ids=(columns.end - starts)[:, None],
            cache=columns.cache,
            use_cache=True,
        ).logits[:, -1]
        columns.end += 1
        return (logits if len(live) == self.size else logits[live]).float()


class _Columns:
    """The KV cache of all slots. A column holds one token of each slot.

    `oldest` is the first column in use, and `end` the next to be written. `starts` holds the first column of each
    slot's text. There are always at least `room` columns before `end`, so that the longest prompt fits.
    """

    def __init__(self, num_slots: int, *, room: int) -> None:
        self.num_slots, self.room = num_slots, room
        self.oldest = self.end = room
        self.starts = np.full(num_slots, room)
        self.capacity = room + SPARE_COLUMNS
        self.cache = Cache(layer_class_to_replicate=partial(_Layer, self))

    def begin_step(self, *, free: Sequence[int]) -> None:
        """Drop the columns that no active text needs, and make sure that there is a column to write to."""
        self.starts[free] = self.end
        self.oldest = int(self.starts.min())
        if self.end == self.capacity:
            self._move(range(self.num_slots))

    def keep(self, slots: Sequence[int]) -> None:
        self.num_slots, self.starts = len(slots), self.starts[slots]
        self._move(slots)

    def write_before_end(self, slots: Sequence[int], prefixes: "_KeysAndValues", lengths: Sequence[int]) -> None:
        self.starts[slots] = self.end - np.array(lengths)
        rows = torch.tensor(slots)
        for index, (keys, values) in enumerate(prefixes):
            if index == len(self.cache.layers):
                self.cache.layers.append(_Layer(self))
            self.cache.layers[index].write(rows, keys, values)

    def _move(self, slots: Sequence[int]) -> None:
        """Copy the columns in use of the given slots to the front of new storage of twice their width.

        So a column is copied about once, and storage is proportional to the width of the oldest active text.
        """
        width = self.end - self.oldest
        first = max(0, self.room - width)
        self.capacity = first + 2 * width + SPARE_COLUMNS
        for layer in self.cache.layers:
            layer.move(torch.tensor(slots), slice(self.oldest, self.end), first)
        self.starts += first - self.oldest
        self.oldest, self.end = first, first + width


class _Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [slots, heads, capacity, dimension]. A step fills the column `end`."""

    def __init__(self, columns: _Columns) -> None:
        super().__init__()
        self.columns = columns

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = self._storage(key_states), self._storage(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        oldest, end = self.columns.oldest, self.columns.end
        self.keys[:, :, end : end + 1] = key_states
        self.values[:, :, end : end + 1] = value_states
        return self.keys[:, :, oldest : end + 1], self.values[:, :, oldest : end + 1]

    def get_seq_length(self) -> int:
        return self.columns.end - self.columns.oldest

    def write(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write the columns just before `end` of the given slots."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        end = self.columns.end
        self.keys[slots, :, end - keys.shape[2] : end] = keys
        self.values[slots, :, end - keys.shape[2] : end] = values

    def move(self, slots: Tensor, counted: slice, first: int) -> None:
        self.keys, self.values = (self._moved(old, slots, counted, first) for old in (self.keys, self.values))

    def _moved(self, old: Tensor, slots: Tensor, counted: slice, first: int) -> Tensor:
        new = self._storage(old)
        new[:, :, first : first + counted.stop - counted.start] = old[slots.to(old.device), :, counted]
        return new

    def _storage(self, like: Tensor) -> Tensor:
        """Return storage of zeros. Masked columns are multiplied by zero, which would not remove a NaN."""
        return like.new_zeros(self.columns.num_slots, like.shape[1], self.columns.capacity, like.shape[3])


_KeysAndValues = list[tuple[Tensor, Tensor]]


class _Prefixes:
    """Prefill: keys and values of prompts without their last token.

    The last group of prompts is cached, because all texts often share one prompt.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._of_last: tuple[list[tuple[int, ...]], _KeysAndValues] = ([], [])

    def of(self, prompts: Sequence[tuple[int, ...]]) -> _KeysAndValues:
        """Return keys and values of each layer, [prompts, heads, longest - 1, dimension], padded on the left."""
        distinct = list(dict.fromkeys(prompts))
        if distinct != self._of_last[0]:
            self._of_last = (distinct, self._computed(distinct))
        rows = torch.tensor([distinct.index(prompt) for prompt in prompts], device=self._model.device)
        return [(keys[rows], values[rows]) for keys, values in self._of_last[1]]

    def _computed(self, prompts: Sequence[tuple[int, ...]]) -> _KeysAndValues:
        width = max(map(len, prompts)) - 1
        if width == 0:
            return []
        ids = torch.tensor([[0] * (width + 1 - len(prompt)) + list(prompt[:-1]) for prompt in prompts])
        is_token = torch.tensor([[0] * (width + 1 - len(prompt)) + [1] * (len(prompt) - 1) for prompt in prompts])
        cache = DynamicCache()
        self._model(
            input_ids=ids.to(self._model.device),
            attention_mask=is_token.to(self._model.device),
            position_ids=(is_token.cumsum(1) - 1).clamp(min=0).to(self._model.device),
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return [(layer.keys, layer.values) for layer in cache.layers]


def choose_tokens(
    logits: Tensor, *, temperature: float, top_p: float, uniforms: Sequence[Callable[[], float]]
) -> list[int]:
    """Choose a token for each row of float32 `logits` [rows, vocabulary].

    `uniforms[i]` returns the random numbers of row i, uniform in [0, 1). Temperature 0 selects the most likely token.
    """
    if temperature == 0:
        likeliest: list[int] = logits.argmax(dim=-1).tolist()
        return likeliest
    rows_at_once = ROWS_IN_CACHE if logits.device.type == "cpu" else len(logits)
    chosen: list[int] = []
    for rows in logits.split(rows_at_once):
        own = uniforms[len(chosen) : len(chosen) + len(rows)]
        chosen += _from_nucleus(torch.softmax(rows / temperature, dim=-1), top_p, own).tolist()
    return chosen


def _from_nucleus(probabilities: Tensor, top_p: float, uniforms: Sequence[Callable[[], float]]) -> Tensor:
    """Draw a token from each row's nucleus, the smallest set of most likely tokens that holds `top_p`.

    Nucleus sampling is due to Holtzman et al. (2020). Of equally likely tokens, higher ids rank first, as in
    `generate`. Rejection sampling avoids sorting. A token is drawn from all tokens, and accepted if the tokens ranked
    above it hold less than `top_p`, which means that it is in the nucleus. Otherwise the next one is drawn from the
    tokens above it. These include the nucleus, so the accepted token has the nucleus distribution.
    """
    chosen = torch.zeros(len(probabilities), dtype=torch.long, device=probabilities.device)
    undecided = torch.arange(len(probabilities), device=probabilities.device)
    while len(undecided):
        draws = torch.tensor([uniforms[row]() for row in undecided.tolist()], device=probabilities.device)
        tokens = _drawn(probabilities, draws)
        chosen[undecided] = tokens
        if top_p >= 1:
            break
        above = _ranked_above(probabilities, tokens)
        rejected = above.sum(dim=-1) >= top_p
        undecided, probabilities = undecided[rejected], above[rejected]
    return chosen


def _drawn(weights: Tensor, draws: Tensor) -> Tensor:
    """Return for each row the token at which the cumulative weight passes the fraction `draws` of the total."""
    running = weights.cumsum(dim=-1)
    targets = draws.to(running.dtype)[:, None] * running[:, -1:]
    return torch.searchsorted(running, targets, right=True)[:, 0].clamp(max=weights.shape[-1] - 1)


def _ranked_above(probabilities: Tensor, tokens: Tensor) -> Tensor:
    """Return `probabilities`, with zeros for each row's token and all tokens ranked below it."""
    own = probabilities.gather(1, tokens[:, None])
    higher_id = torch.arange(probabilities.shape[-1], device=tokens.device) > tokens[:, None]
    return probabilities * ((probabilities > own) | ((probabilities == own) & higher_id))
