"""Mean negative log-likelihood of texts under a generator, over their tokens after the fixed prompt.

Private, inside the boundary only, if the texts are real. Post-processing if they are synthetic.
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
    """Return the mean loss in nats per token over all texts, end tokens included; NaN for no texts.

    Args:
      model: the generator.
      tokenizer: its tokenizer.
      texts: in any order.
      prompt_ids: the fixed public prompt before each text.
      max_tokens: where texts are cut, the end token included.
      batch_size: texts computed together.
    """
    targets = sorted((encode_instruction(tokenizer, text, max_tokens=max_tokens) for text in texts), key=len)
    total, count = 0.0, 0
    for start in range(0, len(targets), batch_size):
        batch = targets[start : start + batch_size]
        total += _batch_loss(model, batch, prompt_ids)
        count += sum(map(len, batch))
    return total / count if count else math.nan


def _batch_loss(model: PreTrainedModel, targets: Sequence[Sequence[int]], prompt_ids: Sequence[int]) -> float:
    """Return the summed loss of a batch. The mask follows from lengths, because padding may equal the end token."""
    longest = max(map(len, targets))
    ids = torch.tensor([[*prompt_ids, *target, *[0] * (longest - len(target))] for target in targets])
    lengths = torch.tensor([len(target) for target in targets])
    mask = torch.arange(ids.shape[1]) < len(prompt_ids) + lengths[:, None]
    logits = model(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), logits_to_keep=longest + 1
    ).logits[:, :-1]
    is_target = torch.arange(longest) < lengths[:, None]
    labels = ids[:, len(prompt_ids) :]
    return float(functional.cross_entropy(logits.float().cpu()[is_target], labels[is_target], reduction="sum"))
