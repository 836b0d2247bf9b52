"""Preference pairs from one offline model: the annotated response against an answer made worse on purpose.

    mismatched  the response to another instruction, of another bin where there is one     teaches relevance
    cut         the response itself, broken off mid-way                                    teaches completeness
    hot         an answer sampled by the policy at a high temperature                      teaches coherence

The chosen answer is always the annotated response. Such pairs can teach a reward model to tell an answer that is on the
subject, finished and coherent from one that is not, and a policy to give the former. They cannot teach what people
value: not which of two good answers is more helpful, not tone, not harmlessness, not whether an answer is true. Pairs
labeled by people or by a stronger judge have the same columns and take this table's place.
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
    """At most `num_pairs` pairs, the rules taking turns over the rows of `annotated` in an order drawn from `seed`.

    A row comes up once before any comes up twice, each time under another rule, so `3 * annotated.height` is the most
    there can be. A rule that finds no answer other than the chosen one gives no pair. `sampled_hot` answers all its
    instructions at once.

    Returns:
      Columns `synthetic_id`, `prompt`, `chosen`, `rejected`, `rejected_by`; `chosen` and `rejected` always differ. The
      result depends on the rows, not on their order.

    Raises:
      ValueError: `sampled_hot` gave another number of answers than it got instructions.
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
    """`num_pairs` rows with `turn` and `rejected_by`: the shuffled rows, once for each shift of the rules."""
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
    """For each row a response drawn evenly from all other bins; from its own where that is the only one."""
    pool = annotated.sort("bin_id", "synthetic_id")
    bins, responses = pool["bin_id"].to_numpy(), pool["response"].to_list()
    drawn = []
    for bin_id in rows["bin_id"]:
        first, after = np.searchsorted(bins, [bin_id, bin_id + 1])
        inside, outside = after - first, len(bins) - (after - first)
        # The pool is sorted by bin, so skipping one block of it draws from all the others.
        place = random.integers(outside or len(bins))
        drawn.append(responses[place + inside if outside and place >= first else place])
    return drawn


def _cut(response: str, random: np.random.Generator) -> str:
    """The beginning of `response`, measured in characters because not every script has words."""
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
