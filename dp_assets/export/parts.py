"""The parts of an export, and the names under which people select them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dp_assets.privacy.errors import PublicError
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM

STATEMENT = "privacy_statement"
BEFORE_VOTES = (GENERATOR,)


class ExportRefused(PublicError, ValueError):
    """An export cannot be made as requested. Nothing was written."""


class Kind(StrEnum):
    """The form of a part in the folder: a config of the data set, an adapter, or a document."""

    TABLE = "data"
    MODEL = "models"
    DOCUMENT = "documents"


@dataclass(frozen=True)
class Part:
    """One released asset of an export.

    meaning      a description for cards
    by_default   whether the part is exported if no parts are named
    is_scorer    whether a model scores answers, and does not write them
    mechanisms   those upstream of the asset in the asset graph, whatever an artifact says of itself
    """

    name: str
    asset: str
    kind: Kind
    meaning: str
    by_default: bool = True
    is_scorer: bool = False
    mechanisms: tuple[str, ...] = (GENERATOR, HISTOGRAM)


# The first table of an export is its default config.
PARTS = (
    Part("filtered", "filtered_instructions", Kind.TABLE, "the pool resampled to the noisy votes of real units"),
    Part("annotated", "annotated_instructions", Kind.TABLE, "filtered instructions with an annotator's responses"),
    Part("preferences", "preference_pairs", Kind.TABLE, "prompts with a chosen and a rejected answer"),
    Part("pool", "synthetic_pool", Kind.TABLE, "all distinct samples of the generator", mechanisms=BEFORE_VOTES),
    Part("histogram", "dp_histogram", Kind.TABLE, "noisy votes of real units, one row a bin"),
    Part("bins", "synthetic_bins", Kind.TABLE, "centroids of the bins, fitted on the pool", mechanisms=BEFORE_VOTES),
    Part(
        "embeddings",
        "synthetic_embeddings",
        Kind.TABLE,
        "vectors of the pool",
        by_default=False,
        mechanisms=BEFORE_VOTES,
    ),
    Part(
        "generator",
        "dp_generator",
        Kind.MODEL,
        "the generator, trained on real instructions with DP-SGD",
        mechanisms=BEFORE_VOTES,
    ),
    Part("sft", "sft_model", Kind.MODEL, "the policy fine-tuned on the annotated pairs"),
    Part("reward", "reward_model", Kind.MODEL, "a scorer of answers, trained on the preference pairs", is_scorer=True),
    Part("rlhf", "rlhf_model", Kind.MODEL, "the policy optimised against the reward model"),
    Part("quality", "quality_report", Kind.DOCUMENT, "how well the set agrees with the noisy votes"),
)
NAMES = tuple(part.name for part in PARTS)


def lacking(asset: str, made_by: Collection[str]) -> list[str]:
    """Return the mechanisms that an artifact of this asset must descend from and that are missing in `made_by`."""
    expected = next((part.mechanisms for part in PARTS if part.asset == asset), ())
    return [mechanism for mechanism in expected if mechanism not in made_by]


def chosen_parts(only: Sequence[str]) -> tuple[Part, ...]:
    """Return the named parts, or all that are exported by default.

    Raises:
      ExportRefused: a name is unknown.
    """
    if unknown := sorted(set(only) - set(NAMES)):
        raise ExportRefused(f"--only {', '.join(unknown)}: unknown; choose from {', '.join(NAMES)}")
    return tuple(part for part in PARTS if (part.name in only if only else part.by_default))
