"""Packed rows give what single rows give, in many families of models, and those that mix rows are refused."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from dp_assets.dpsgd.packing import (
    IGNORED,
    PackedRows,
    RowBuffer,
    RowsInteract,
    TokenRow,
    attending_within_rows,
    decode,
    logits_of,
    padded_width,
    require_rows_apart,
)
from tests.generation.tiny_lora import ROWS

SIZES: dict[str, Any] = {
    "vocab_size": 80,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma3_text",
    "phi3",
    "olmo2",
    "granite",
    "cohere",
    "smollm3",
)
OTHER_SIZES = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 80}}


def tiny(family: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    sizes = OTHER_SIZES.get(family, SIZES) | {"pad_token_id": None} | settings
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).eval()


def packed(rows: Sequence[TokenRow], num_tokens: int = 64) -> PackedRows:
    ordered = sorted(rows, key=lambda row: padded_width(len(row)))
    return PackedRows(ordered, num_tokens, torch.device("cpu"))


def logits(model: Any, line: PackedRows) -> list[Tensor]:
    """The logits of each row, computed end to end."""
    with attending_within_rows(model), torch.no_grad():
        output = decode(model, line)
        found = logits_of(model, output, output.last_hidden_state)[0]
    return list(found[: sum(map(len, line.rows))].split([len(row) for row in line.rows]))


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_SIZES])
def test_packed_rows_give_what_each_row_gives_alone_by_the_models_own_forward(family: str) -> None:
    model, line = tiny(family), packed(ROWS)
    require_rows_apart(model, longest=5)
    for row, found in zip(line.rows, logits(model, line), strict=True):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([row.prompt_ids + row.target_ids])).logits[0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_attention_is_put_back_after_the_pass() -> None:
    model = tiny("llama")
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="a failure"), attending_within_rows(model):
        raise RuntimeError("a failure")
    assert model.config._attn_implementation == before


def test_logits_are_scaled_as_the_model_scales_them() -> None:
    model, line = tiny("granite", logits_scaling=8.0), packed(ROWS[:1])
    row = ROWS[0]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([row.prompt_ids + row.target_ids])).logits[0]
    torch.testing.assert_close(logits(model, line)[0], expected, rtol=1e-4, atol=1e-5)


# Refusals


def test_a_model_whose_attention_has_a_soft_cap_is_refused() -> None:
    with pytest.raises(RowsInteract, match="softcap"):
        require_rows_apart(tiny("gemma2"), longest=5)


def test_rows_beyond_the_models_attention_window_are_refused() -> None:
    model = tiny("mistral", sliding_window=6)
    with pytest.raises(RowsInteract, match="window"):
        logits(model, packed(ROWS))


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("mamba", {"num_hidden_layers": 2}),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
        ("bloom", {"n_layer": 2, "n_head": 4}),
        ("gpt_neo", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]}),
        ("gpt_neox_japanese", {"intermediate_multiple_size": 2}),
    ],
)
def test_a_model_that_mixes_rows_beyond_attention_is_refused(family: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(RowsInteract):
        require_rows_apart(tiny(family, **sizes), longest=5)


class ShiftedTokens(nn.Module):
    """Adds to each token what stands before it, whichever row that belongs to."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + hidden.roll(1, dims=1)


def test_a_layer_that_looks_at_the_token_before_is_refused() -> None:
    model = tiny("llama")
    require_rows_apart(model, longest=5)
    model.model.norm = nn.Sequential(model.model.norm, ShiftedTokens())
    with pytest.raises(RowsInteract, match="mixes the tokens"):
        require_rows_apart(model, longest=5)


class NothingOfOthers(nn.Module):
    """Adds 0 times the tokens of all rows, which is nothing as long as all are finite."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + 0.0 * hidden.sum(dim=1, keepdim=True)


def test_a_layer_that_carries_what_is_not_finite_from_row_to_row_is_refused() -> None:
    model = tiny("llama")
    model.model.norm = nn.Sequential(model.model.norm, NothingOfOthers())
    with pytest.raises(RowsInteract, match="mixes the tokens"):
        require_rows_apart(model, longest=5)
    assert not model.get_input_embeddings()._forward_hooks


# Layout


def test_rows_taken_apart_and_laid_end_to_end_are_as_before() -> None:
    line = packed(ROWS)
    used = sum(map(len, ROWS))
    values = torch.arange(64.0 * 3).view(64, 3)
    again = line.end_to_end(line.rows_apart(values))
    assert torch.equal(again[:used], values[:used])
    assert not again[used:].any()


@pytest.mark.parametrize("zeros_behind", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_buffer_holds_the_rows_of_the_last_line_and_behind_them_nothing_of_another(
    dtype: torch.dtype, zeros_behind: bool
) -> None:
    line = packed(ROWS)
    buffer = RowBuffer(line, 3, dtype, zeros_behind=zeros_behind)
    for seed in range(2):
        values = torch.randn(1, 64, 3, generator=torch.Generator().manual_seed(seed)).to(dtype)
        rows = [row for part in buffer.fill(values, saved=False) for row in part]
        values = values.float()
        starts = [sum(map(len, line.rows[:index])) for index in range(len(line.rows))]
        for row, start, found in zip(line.rows, starts, rows, strict=True):
            expected = values[0, start : start + len(row)]
            behind = torch.zeros(3) if zeros_behind else expected[-1]
            assert torch.equal(found[: len(row)], expected)
            assert torch.equal(found[len(row) :], behind.expand(len(found) - len(row), 3))


def test_a_buffer_copies_anew_a_line_that_may_have_changed() -> None:
    line = packed(ROWS)
    buffer = RowBuffer(line, 3, torch.float32, zeros_behind=False)
    values = torch.zeros(1, 64, 3)
    buffer.fill(values, saved=True)
    other = torch.ones(1, 64, 3)
    assert all(part.eq(1).all() for part in buffer.fill(other, saved=False))
    other += 1
    assert all(part.eq(2).all() for part in buffer.fill(other, saved=False))
    assert all(part.eq(0).all() for part in buffer.fill(values, saved=True))


def test_labels_are_the_tokens_that_follow_in_the_row() -> None:
    line = packed(ROWS)
    tokens = line.tokens[0].tolist()
    found = [(int(p), int(t)) for places, labels in line.label_chunks for p, t in zip(places, labels, strict=True)]
    kept = [(place, label) for place, label in found if label != IGNORED]
    assert [label for _, label in kept] == [token for row in line.rows for token in row.target_ids]
    assert all(tokens[place + 1] == label for place, label in kept)


@pytest.mark.parametrize("num_rows", [1, 7, 40])
def test_chunks_of_labels_are_all_of_one_size(num_rows: int) -> None:
    line = packed([TokenRow((1,), (2,) * 9)] * num_rows, num_tokens=512)
    assert {len(labels) for _, labels in line.label_chunks} == {128}


@pytest.mark.parametrize("num_tokens", [10, 127, 128, 129, 512])
def test_a_chunk_of_labels_is_shorter_than_the_line_and_holds_them_all_if_it_can(num_tokens: int) -> None:
    chunks = list(packed([TokenRow((1,), (2,) * 9)], num_tokens=num_tokens).label_chunks)
    assert [len(labels) for _, labels in chunks] == [min(num_tokens - 1, 128)]


def test_padding_adds_less_than_eight_tokens_or_a_quarter() -> None:
    for length in range(2, 5000):
        assert length <= padded_width(length) < max(length + 8, length * 1.25)


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="num_tokens"):
        packed(ROWS, num_tokens=4)


def test_rows_hold_a_prompt_and_a_target() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        TokenRow((), (1,))
    with pytest.raises(ValueError, match="at least one token"):
        TokenRow((1,), ())
