"""How well a generator predicts texts: the mean negative log-likelihood of their tokens after the fixed prompt.

For eyes inside the boundary when the texts are real, and free when they are synthetic.
"""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.generation.prompts import encode_instruction


@torch.no_grad()  # type: ignore[untyped-decorator]
def mean_token_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    prompt_ids: Sequence[int],
    max_tokens: int,
    batch_size: int,
) -> float:
    """Nats per token over all texts, the end token included; NaN for no texts."""
    targets = sorted((encode_instruction(tokenizer, text, max_tokens=max_tokens) for text in texts), key=len)
    total, count = 0.0, 0
    for start in range(0, len(targets), batch_size):
        batch = targets[start : start + batch_size]
        total += _batch_loss(model, batch, prompt_ids)
        count += sum(map(len, batch))
    return total / count if count else math.nan


def _batch_loss(model: PreTrainedModel, targets: Sequence[Sequence[int]], prompt_ids: Sequence[int]) -> float:
    """Summed loss of a batch. Positions after a text are masked by its length, since pad may equal the end token."""
    longest = max(map(len, targets))
    ids = torch.tensor([[*prompt_ids, *target, *[0] * (longest - len(target))] for target in targets])
    lengths = torch.tensor([len(target) for target in targets])
    mask = torch.arange(ids.shape[1]) < len(prompt_ids) + lengths[:, None]
    logits = model(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), logits_to_keep=longest + 1
    ).logits[:, :-1]
    wanted = torch.arange(longest) < lengths[:, None]
    labels = ids[:, len(prompt_ids) :]
    return float(functional.cross_entropy(logits.float().cpu()[wanted], labels[wanted], reduction="sum"))
