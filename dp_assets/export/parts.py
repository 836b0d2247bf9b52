"""What an export may hold, and under which names people ask for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

STATEMENT = "privacy_statement"


class ExportRefused(ValueError):
    """An export that cannot be made as asked; nothing was written."""


class Kind(StrEnum):
    """How a part lies in the folder: a config of the data set, an adapter, or a document."""

    TABLE = "data"
    MODEL = "models"
    DOCUMENT = "documents"


@dataclass(frozen=True)
class Part:
    """One released asset of an export. `meaning` is for cards; what is not `by_default` has to be asked for.

    `is_scorer` tells a model that scores answers from one that writes them.
    """

    name: str
    asset: str
    kind: Kind
    meaning: str
    by_default: bool = True
    is_scorer: bool = False


# The first table of an export is its default config.
PARTS = (
    Part("filtered", "filtered_instructions", Kind.TABLE, "the pool resampled to the noisy votes of real units"),
    Part("annotated", "annotated_instructions", Kind.TABLE, "filtered instructions with an annotator's responses"),
    Part("preferences", "preference_pairs", Kind.TABLE, "prompts with a chosen and a rejected answer"),
    Part("pool", "synthetic_pool", Kind.TABLE, "all distinct samples of the generator"),
    Part("histogram", "dp_histogram", Kind.TABLE, "noisy votes of real units, one row a bin"),
    Part("bins", "synthetic_bins", Kind.TABLE, "centroids of the bins, fitted on the pool"),
    Part("embeddings", "synthetic_embeddings", Kind.TABLE, "vectors of the pool", by_default=False),
    Part("generator", "dp_generator", Kind.MODEL, "the generator, trained on real instructions with DP-SGD"),
    Part("sft", "sft_model", Kind.MODEL, "the policy fine-tuned on the annotated pairs"),
    Part("reward", "reward_model", Kind.MODEL, "a scorer of answers, trained on the preference pairs", is_scorer=True),
    Part("rlhf", "rlhf_model", Kind.MODEL, "the policy optimised against the reward model"),
    Part("quality", "quality_report", Kind.DOCUMENT, "how well the set agrees with the noisy votes"),
)
NAMES = tuple(part.name for part in PARTS)


def chosen_parts(only: Sequence[str]) -> tuple[Part, ...]:
    """The named parts, or all that are exported by default.

    Raises:
      ExportRefused: a name is unknown.
    """
    if unknown := sorted(set(only) - set(NAMES)):
        raise ExportRefused(f"--only {', '.join(unknown)}: unknown; choose from {', '.join(NAMES)}")
    return tuple(part for part in PARTS if (part.name in only if only else part.by_default))
