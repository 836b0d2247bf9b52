"""A public seed repeats what runs under it and leaves no trace."""

import pytest
import torch

from dp_assets.generation.seeding import public_seed


def drawn_under(seed: int) -> torch.Tensor:
    with public_seed(seed):
        return torch.rand(4)


def test_equal_seeds_repeat_and_other_seeds_do_not() -> None:
    assert torch.equal(drawn_under(1), drawn_under(1))
    assert not torch.equal(drawn_under(1), drawn_under(2))


def test_the_global_generator_continues_as_if_nothing_had_run_even_after_an_error() -> None:
    torch.manual_seed(9)
    expected = torch.rand(4)
    torch.manual_seed(9)
    with pytest.raises(RuntimeError), public_seed(1):
        torch.rand(2) @ torch.rand(3)  # Draws, then fails for the shapes.
    assert torch.equal(torch.rand(4), expected)
