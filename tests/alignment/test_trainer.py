"""What a trainer does to its process is undone, usage figures stay here, and prompts are those of later sampling."""

import random
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch

from dp_assets.alignment._trainer import conversation_ids, training_scope
from dp_assets.generation.prompts import answer_prompt_ids


class Stopped(Exception):
    """Ends a training in its middle."""


def test_usage_figures_are_not_sent():
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY is True


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_trainings_traces_are_gone_however_it_ends(is_stopped: bool) -> None:
    model = torch.nn.Linear(1, 1)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    places: list[Path] = []

    def training() -> None:
        with training_scope(model) as folder:
            places.append(Path(folder))
            (Path(folder) / "checkpoint").write_text("weights")
            random.seed(1), np.random.seed(1), torch.manual_seed(1)
            model.forward = lambda values: values
            if is_stopped:
                raise Stopped

    if is_stopped:
        with pytest.raises(Stopped):
            training()
    else:
        training()
    assert not places[0].exists()
    assert "forward" not in vars(model)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_a_conversation_begins_with_the_prompt_of_sampling_and_ends_with_the_end_token(tokenizer: Any) -> None:
    prompt, answer = conversation_ids(tokenizer, "why?", "so <|im_end|> it is")
    assert prompt == answer_prompt_ids(tokenizer, "why?")
    assert answer[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in answer[:-1]  # what a text spells is no token of the chat
