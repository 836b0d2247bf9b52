"""Preference pairs without a judge: the annotated response against an answer made worse on purpose.

    mismatched  the response to another instruction, of another bin where there is one     teaches relevance
    cut         the response itself, broken off mid-way                                    teaches completeness
    hot         an answer sampled by the policy at a high temperature                      teaches coherence

The chosen answer is always the annotated response. Such pairs can teach a reward model to distinguish relevant,
complete and coherent answers from others, and a policy to give them. They cannot teach what people value: which of two
good answers is more helpful, tone, harmlessness, or whether an answer is true. Pairs labeled by people or by a stronger
judge have the same columns and replace these.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

MISMATCHED, CUT, HOT = RULES = ("mismatched", "cut", "hot")
# The share of a response that is kept when it is cut: neither a stub nor nearly the whole.
SHORTEST_CUT, LONGEST_CUT = 0.25, 0.75


def make_preference_pairs(
    annotated: pl.DataFrame, *, sampled_hot: Callable[[list[str]], list[str]], num_pairs: int, seed: int
) -> pl.DataFrame:
    """Make at most `num_pairs` pairs from the rows of `annotated`, in an order drawn from `seed`.

    - The rules alternate. Every row is used once before any is used twice, each time under another rule, so there are
      at most `3 * annotated.height` pairs.
    - A rule that finds no answer other than the chosen one gives no pair.
    - `sampled_hot` answers all its instructions at once.

    Returns:
      Columns `synthetic_id`, `prompt`, `chosen`, `rejected`, `rejected_by`; `chosen` and `rejected` always differ. The
      result depends on the rows, not on their order.

    Raises:
      ValueError: `sampled_hot` returned another number of answers than it received instructions.
    """
    random = np.random.default_rng(seed)
    candidates = _take_turns(annotated, num_pairs=num_pairs, random=random)
    rejected = {
        MISMATCHED: lambda rows: _mismatched(rows, annotated, random),
        CUT: lambda rows: [_cut(response, random) for response in rows["response"]],
        HOT: lambda rows: _one_each(sampled_hot, rows["instruction"].to_list()),
    }
    made = []
    for rule in RULES:
        rows = candidates.filter(pl.col("rejected_by") == rule)
        made.append(rows.with_columns(rejected=pl.Series(rejected[rule](rows), dtype=pl.String).str.strip_chars()))
    return (
        pl.concat(made)
        .sort("turn")
        .filter(pl.col("rejected") != "", pl.col("rejected") != pl.col("response").str.strip_chars())
        .select(
            "synthetic_id",
            pl.col("instruction").alias("prompt"),
            pl.col("response").alias("chosen"),
            "rejected",
            "rejected_by",
        )
    )


def _take_turns(annotated: pl.DataFrame, *, num_pairs: int, random: np.random.Generator) -> pl.DataFrame:
    """Return at most `num_pairs` rows with `turn` and `rejected_by`: the shuffled rows, once per shift of the rules."""
    in_order = annotated.sort("synthetic_id")
    shuffled = in_order[random.permutation(in_order.height)]
    rounds = [
        shuffled.with_columns(
            rejected_by=pl.Series(
                [RULES[(row + shift) % len(RULES)] for row in range(shuffled.height)], dtype=pl.String
            )
        )
        for shift in range(len(RULES))
    ]
    return pl.concat(rounds).head(num_pairs).with_row_index("turn")


def _mismatched(rows: pl.DataFrame, annotated: pl.DataFrame, random: np.random.Generator) -> list[str]:
    """Return for each row a response drawn uniformly from all other bins, or from its own if there is no other."""
    pool = annotated.sort("bin_id", "synthetic_id")
    bins, responses = pool["bin_id"].to_numpy(), pool["response"].to_list()
    drawn = []
    for bin_id in rows["bin_id"]:
        first, after = np.searchsorted(bins, [bin_id, bin_id + 1])
        inside, outside = after - first, len(bins) - (after - first)
        # The pool is sorted by bin, so skipping the block of one bin draws from all others.
        place = random.integers(outside or len(bins))
        drawn.append(responses[place + inside if outside and place >= first else place])
    return drawn


def _cut(response: str, random: np.random.Generator) -> str:
    """Return the beginning of `response`, measured in characters because not every script separates words."""
    kept = int(random.uniform(SHORTEST_CUT, LONGEST_CUT) * len(response))
    return response[:kept].rstrip()


def _one_each(sampled_hot: Callable[[list[str]], list[str]], instructions: Sequence[str]) -> list[str]:
    answers = sampled_hot(list(instructions)) if instructions else []
    if len(answers) != len(instructions):
        raise ValueError(
            f"sampled_hot gave {len(answers)} answers to {len(instructions)} instructions;"
            " it must give one each, in order"
        )
    return answers
