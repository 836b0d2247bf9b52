"""Figures of a policy at fixed prompts, measured in the same way for every training method.

    reward          mean score by the reward model
    kl              KL divergence from the reference in nats per answer, mean over the answers
    answer_tokens   mean length, including the end token
    distinct_1, _2  distinct words and word pairs divided by their total number, over all answers together

One answer to each prompt is sampled at the temperature of the training. Every measurement uses the same seed, so that
two points differ by the policy and not by sampling noise.

The divergence is estimated by sampling prefixes only (Rao-Blackwellized): at each token of a sampled answer, the KL
divergence between the next-token distributions of the two models is computed exactly over the vocabulary, and summed
over the answer. The mean is unbiased like that of log(policy / reference), has a lower variance, and is never negative
(Amini et al., arXiv 2504.10637). Both distributions are those at the sampling temperature.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from dp_assets.alignment.reward import score_answers
from dp_assets.generation.diversity import distinct_n
from dp_assets.generation.prompts import answer_prompt_ids
from dp_assets.generation.sampling import answer_texts, generate_answer_ids
from dp_assets.generation.settings import SamplingParameters
from dp_assets.progress import silent

SAMPLING_BATCH_SIZE = 16
# Smaller, because each batch holds the logits of two models over the whole vocabulary.
DIVERGENCE_BATCH_SIZE = 4


def evaluate_policy(
    policy: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    reward_model: nn.Module,
    prompts: Sequence[str],
    sampling: SamplingParameters,
    *,
    reference_adapter: str,
) -> dict[str, float]:
    """Return the figures of this module for the active adapter of `policy`.

    The training or evaluation mode of `policy` is restored afterwards.

    Args:
      policy: the base model with the adapters of policy and reference.
      tokenizer: the tokenizer of the base model.
      reward_model: a sequence classifier with one output, in evaluation mode.
      prompts: at least one instruction; an answer to each is sampled.
      sampling: how an answer is sampled.
      reference_adapter: the name of the reference adapter on the same base model.
    """
    with _evaluation_mode(policy):
        answers = generate_answer_ids(
            policy,
            tokenizer,
            instructions=prompts,
            sampling=sampling,
            batch_size=SAMPLING_BATCH_SIZE,
            advance=silent,
        )
        prompt_ids = [answer_prompt_ids(tokenizer, prompt) for prompt in prompts]
        divergences = _divergences(policy, prompt_ids, answers, reference_adapter, sampling.temperature)
    texts = answer_texts(tokenizer, answers)
    return {
        "reward": float(np.mean(score_answers(reward_model, tokenizer, prompts=prompts, answers=texts))),
        "kl": float(np.mean(divergences)),
        "answer_tokens": float(np.mean([len(answer) for answer in answers])),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
    }


@contextmanager
def _evaluation_mode(policy: PeftModel) -> Iterator[None]:
    was_training = policy.training
    policy.eval()
    try:
        yield
    finally:
        policy.train(was_training)


@contextmanager
def _adapter(policy: PeftModel, name: str) -> Iterator[None]:
    """Activate another adapter of `policy` until the block ends."""
    active = policy.active_adapter
    policy.set_adapter(name)
    try:
        yield
    finally:
        policy.set_adapter(active)


@torch.no_grad()  # type: ignore[untyped-decorator]
def _divergences(
    policy: PeftModel,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    reference_adapter: str,
    temperature: float,
) -> list[float]:
    """Return for each answer the sum over its tokens of KL(policy || reference) of the next token, in nats."""
    divergences: list[float] = []
    for start in range(0, len(answers), DIVERGENCE_BATCH_SIZE):
        batch = slice(start, start + DIVERGENCE_BATCH_SIZE)
        ours = _next_token_logs(policy, prompts[batch], answers[batch], temperature)
        with _adapter(policy, reference_adapter):
            theirs = _next_token_logs(policy, prompts[batch], answers[batch], temperature)
        by_token = (ours.exp() * (ours - theirs)).sum(dim=-1)
        divergences += [float(part.sum()) for part in by_token.split([len(answer) for answer in answers[batch]])]
    return divergences


def _next_token_logs(
    model: PeftModel, prompts: Sequence[list[int]], answers: Sequence[list[int]], temperature: float
) -> Tensor:
    """Return next-token log probabilities at the positions of the answers' tokens.

    The result is float32, (tokens of all answers, vocabulary). Rows are padded on the right, which a causal model does
    not see.
    """
    rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
    # The logits at a position predict the token at the next position.
    at_answers = [
        logits[row, len(prompt) - 1 : len(prompt) - 1 + len(answer)]
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]
    return torch.log_softmax(torch.cat(at_answers).float() / temperature, dim=-1)
