"""Decoding many texts at once: a slot whose text has ended takes up the next one.

`generate` runs a batch until its longest text ends, so most of its rows are long finished while it still computes them,
and it sorts the whole vocabulary of every row at every step. Here

- each slot of a batch holds one text of its own age, and is refilled once that text has ended;
- all slots write to the same column of one key-value cache, so a step is an ordinary step of any causal model. A text
  that starts late has its prompt's keys and values copied into the columns just before; what lies further left is
  masked. Columns left of the oldest living text are dropped, so memory follows the slots and the longest text, not how
  many texts are drawn;
- texts that share a prompt share one computation of it; other prompts are computed in groups;
- a token is drawn from the nucleus without sorting (`choose_tokens`).

Each text has random numbers of its own, which follow from the public seed and its number. So the batch size and the
company of a text decide nothing but rounding.

Left out: models whose layers keep a state other than keys and values (`keeps_columns`), and paged attention: a step
costs every slot the width of the oldest text.
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
REFILL_SHARE = 16  # slots are refilled once a sixteenth of them is free, so that prompts are computed in groups
COMPACT_BELOW = 7 / 8  # with nothing left to start, free slots are dropped once they are an eighth
ROWS_IN_CACHE = 16  # of a vocabulary's probabilities: passing over few rows several times is twice as fast on a CPU


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen, and where a text ends. Temperature 0 takes the likeliest token."""

    max_new_tokens: int
    temperature: float
    top_p: float
    stop_ids: frozenset[int]
    seed: int


def keeps_columns(model: PreTrainedModel) -> bool:
    """Whether all that a layer of the model keeps of a text are keys and values, token by token."""
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
    """New token ids for each prompt, in their order; the token that ended a text is its last one, if any did.

    `first_number` is the number of the first text; random numbers follow from it. `advance` is called with the number
    of texts that ended.
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
    """One text while it is written, with random numbers of its own."""

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
    """The texts being written, one a slot, and where in the shared columns each of them starts."""

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
        """Put texts into free slots, with what their prompts leave in the cache up to the last token, read next."""
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
        """One more token for every text; how many of them ended."""
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
        """Logits [live texts, vocabulary] in float32. A free slot reads one token that nothing attends to."""
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
    """Keys and values of all slots, column by column: `oldest` is the first that counts, `end` the next to be written.

    The text in a slot begins at the slot's column in `starts`. `room` columns are always there before `end`, so that
    the longest prompt fits.
    """

    def __init__(self, num_slots: int, *, room: int) -> None:
        self.num_slots, self.room = num_slots, room
        self.oldest = self.end = room
        self.starts = np.full(num_slots, room)
        self.capacity = room + SPARE_COLUMNS
        self.cache = Cache(layer_class_to_replicate=partial(_Layer, self))

    def begin_step(self, *, free: Sequence[int]) -> None:
        """Forget what no living text needs, and see to it that there is a column to write to."""
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
        """Copy what counts of some slots to the front of new storage of twice that width.

        So columns are copied about once in their life, and storage follows the width of the oldest text.
        """
        width = self.end - self.oldest
        first = max(0, self.room - width)
        self.capacity = first + 2 * width + SPARE_COLUMNS
        for layer in self.cache.layers:
            layer.move(torch.tensor(slots), slice(self.oldest, self.end), first)
        self.starts += first - self.oldest
        self.oldest, self.end = first, first + width


class _Layer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, [slots, heads, capacity, dimension], in which a step fills the column `end`."""

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
        """Fill the columns just before `end` of some slots."""
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
        """Zeros, since masked columns are multiplied by zero, which does not silence what is undefined."""
        return like.new_zeros(self.columns.num_slots, like.shape[1], self.columns.capacity, like.shape[3])


_KeysAndValues = list[tuple[Tensor, Tensor]]


class _Prefixes:
    """What prompts leave in the cache up to their last token. The last group is kept: often all share a prompt."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._of_last: tuple[list[tuple[int, ...]], _KeysAndValues] = ([], [])

    def of(self, prompts: Sequence[tuple[int, ...]]) -> _KeysAndValues:
        """For each layer keys and values [prompts, heads, longest - 1, dimension], flush right."""
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
    """A token for each row of float32 `logits` [rows, vocabulary]; `uniforms[i]` gives row i its numbers from [0, 1).

    Temperature 0 takes the likeliest.
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
    """A token of each row's nucleus, the smallest set of likeliest tokens that holds `top_p` (Holtzman et al. 2020).

    Of equally likely tokens it takes the higher ids first, as `generate` does. Nothing is sorted: a token is drawn from
    all and kept if those ranked above it hold less than `top_p`, which is what being in the nucleus means. If not, the
    next is drawn from those above it. They include the nucleus, so the kept one is distributed as in the nucleus.
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
    """For each row the token at which the running sum of its weights passes the share `draws` of their total."""
    running = weights.cumsum(dim=-1)
    targets = draws.to(running.dtype)[:, None] * running[:, -1:]
    return torch.searchsorted(running, targets, right=True)[:, 0].clamp(max=weights.shape[-1] - 1)


def _ranked_above(probabilities: Tensor, tokens: Tensor) -> Tensor:
    """`probabilities`, zero from the rank of each row's token on."""
    own = probabilities.gather(1, tokens[:, None])
    higher_id = torch.arange(probabilities.shape[-1], device=tokens.device) > tokens[:, None]
    return probabilities * ((probabilities > own) | ((probabilities == own) & higher_id))
