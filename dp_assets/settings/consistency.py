"""Rules between settings of a profile. They find all contradictions at once, before anything is registered or spent.

A single field is checked by its type (`profile.py`). `contradictions` is cheap and runs whenever a file loads.
`plan_problems` calibrates the planned levels, which takes about a second each. It runs if a file is wrong already, and
in `dp-instructions config check`.
"""

import math
from collections.abc import Callable, Iterator

from dp_assets.corpus import language, recognizers
from dp_assets.corpus.cohorts import TIME_NAMES, CohortError, cohort_expr
from dp_assets.corpus.redaction import SECRET
from dp_assets.corpus.schemas import SOURCE_ROWS
from dp_assets.corpus.settings import SourceSettings
from dp_assets.planning import planner
from dp_assets.privacy.plan import largest_delta, target_of
from dp_assets.privacy.units import PrivacyUnit, WithoutUser
from dp_assets.settings import vllm
from dp_assets.settings.problems import Problem, suggestion
from dp_assets.settings.profile import Profile
from dp_assets.statements.verification import MOST_LEVELS

FEWEST_TOKENS = 2
"""The fewest tokens of a row: one of the text, and the end token."""
FEWEST_PAIRS = 2
"""The fewest preference pairs: one to train the reward model on, and one to measure it with."""
OF_A_KIND = {"user_bucket": {"num_buckets"}} | {kind: {"first", "last"} for kind in TIME_NAMES}
"""The settings that describe each kind of cohorts."""


def contradictions(profile: Profile) -> list[Problem]:
    """Return the problems of settings that are each valid but contradict each other."""
    return [problem for check in CHECKS for problem in check(profile)]


def plan_problems(profile: Profile) -> list[Problem]:
    """Return the problems of planned levels: no sensible noise meets a level, or all together exceed the budget."""
    fields = ("votes.noise_stddev", "votes.num_bins", "generator", "corpus.delta")
    plans, problems = [], []
    for level in profile.corpus.planned_levels:
        try:
            plans.append(profile.plan(level))
        except ValueError as refusal:
            problems.append(Problem("corpus.planned_levels", str(refusal), fields))
    together = planner.joint_epsilon([plan for plan in plans if plan.is_private])
    if together > profile.corpus.budget_epsilon:
        what = (
            f"need epsilon {together:g} together, more than corpus.budget_epsilon = {profile.corpus.budget_epsilon:g};"
            " plan fewer or smaller levels, or set a larger budget"
        )
        problems.append(Problem("corpus.planned_levels", what, (*fields, "corpus.budget_epsilon")))
    return problems


def _levels_are_levels(profile: Profile) -> Iterator[Problem]:
    if len(profile.corpus.planned_levels) > MOST_LEVELS:
        what = f"names more than {MOST_LEVELS} levels, whose statements take too long to verify; plan fewer levels"
        yield Problem("corpus.planned_levels", what)
    targets: dict[float, str] = {}
    for level in profile.corpus.planned_levels:
        try:
            target = target_of(level)
        except ValueError as error:
            yield Problem("corpus.planned_levels", str(error))
            continue
        if target in targets:
            yield Problem("corpus.planned_levels", f"{targets[target]} and {level} are the same level; leave one out")
        targets[target] = level


def _delta_fits_the_units(profile: Profile) -> Iterator[Problem]:
    """Require a delta far below 1 / number of units: the guarantee may fail for each unit with probability delta."""
    corpus, generator = profile.corpus, profile.generator
    drawn_from = math.ceil(generator.expected_batch_size / generator.sampling_probability)
    units = max(corpus.declared_units or 0, drawn_from)
    which = "corpus.declared_units"
    if units == drawn_from:
        which = "generator.expected_batch_size over generator.sampling_probability"
    if corpus.delta > (most := largest_delta(units)):
        what = f"({corpus.delta:g}) must be at most 1 / (10 x {units:,}) = {most:.3g}, with {units:,} units by {which}"
        yield Problem("corpus.delta", what, ("corpus.declared_units", "generator"))


def _columns_are_known(profile: Profile) -> Iterator[Problem]:
    known = SOURCE_ROWS.names()
    for name in profile.corpus.source.columns:
        if name not in known:
            meant = suggestion(name, known)
            remedy = f"did you mean {meant}?" if meant else f"there are: {', '.join(known)}"
            yield Problem("corpus.source.columns", f"{name!r} is none of our columns; {remedy} Write ours = 'yours'")


def _columns_are_given(source: SourceSettings) -> bool:
    """Return whether the settings name the columns, instead of a preset or a packaged source."""
    return source.kind != "chitchat" and source.layout is None


def _queries_are_named(profile: Profile) -> Iterator[Problem]:
    source = profile.corpus.source
    if source.kind == "sql" and source.path is None and source.url_variable is None and profile.corpus.name is None:
        what = "is needed for a query that names its own files: another query must not be another corpus; give one"
        yield Problem("corpus.name", what, ("corpus.source",))


def _users_are_named(profile: Profile) -> Iterator[Problem]:
    source = profile.corpus.source
    if profile.corpus.unit is PrivacyUnit.USER and _columns_are_given(source) and "user_id" not in source.columns:
        what = "'user' needs a source.columns entry for `user_id`; add it, or choose 'instruction'"
        yield Problem("corpus.unit", what, ("corpus.source",))


def _rows_without_a_user_are_some(profile: Profile) -> Iterator[Problem]:
    corpus = profile.corpus
    if corpus.without_user is WithoutUser.DROP and corpus.unit is not PrivacyUnit.USER:
        what = "'drop' is for corpus.unit = 'user'; with 'instruction' every row is a unit of its own. Leave it out"
        yield Problem("corpus.without_user", what, ("corpus.unit",))


def _lengths_leave_texts(profile: Profile) -> Iterator[Problem]:
    corpus, generator = profile.corpus, profile.generator
    if corpus.min_words > corpus.max_words:
        what = f"({corpus.min_words}) must not exceed corpus.max_words ({corpus.max_words}): no text would be left"
        yield Problem("corpus.min_words", what, ("corpus.max_words",))
    if generator.max_tokens < FEWEST_TOKENS:
        what = f"must be at least {FEWEST_TOKENS}: one of the tokens ends the text"
        yield Problem("generator.max_tokens", what)


def _languages_can_be_detected(profile: Profile) -> Iterator[Problem]:
    if profile.corpus.detect_language and not language.is_installed():
        yield Problem("corpus.detect_language", f"needs the package py3langid: {language.INSTALL}")


def _redaction_is_possible(profile: Profile) -> Iterator[Problem]:
    """Require the recognizers and models that the kinds of redaction need."""
    corpus = profile.corpus
    recognized = [kind for kind in corpus.redact if kind != SECRET]
    named = [kind for kind in corpus.redact if kind in recognizers.NAMED_BY_MODEL]
    if recognized and not recognizers.is_installed():
        what = f"{', '.join(recognized)} need the package presidio-analyzer: {recognizers.INSTALL}"
        yield Problem("corpus.redact", what)
        return
    if "phone" in corpus.redact and (unknown := recognizers.unknown_regions(corpus.phone_regions)):
        what = f"{', '.join(unknown)}: no numbering plan is known; write two capital letters such as US"
        yield Problem("corpus.phone_regions", what)
    if named and corpus.redaction_model is None:
        what = f"{' and '.join(named)} need corpus.redaction_model, an installed spaCy pipeline such as en_core_web_sm"
        yield Problem("corpus.redact", what, ("corpus.redaction_model",))
    elif named and not recognizers.is_model(corpus.redaction_model or ""):
        what = f"{corpus.redaction_model!r} is not installed: {recognizers.how_to_get(corpus.redaction_model or '')}"
        yield Problem("corpus.redaction_model", what, ("corpus.redact",))
    elif corpus.redaction_model is not None and not named:
        what = "is used for nothing; add person or place to corpus.redact, or leave it out"
        yield Problem("corpus.redaction_model", what, ("corpus.redact",))


def _the_engine_is_installed(profile: Profile) -> Iterator[Problem]:
    if profile.sampling.engine != "vllm":
        return
    if not vllm.is_installed():
        yield Problem("sampling.engine", f"needs the package vllm: {vllm.INSTALL}")
    if profile.generator.rank > (most := vllm.RANKS[-1]):
        yield Problem("generator.rank", f"must be at most {most}, which vLLM serves", ("sampling.engine",))


def _cohorts_fit_the_unit(profile: Profile) -> Iterator[Problem]:
    cohorts, source = profile.corpus.cohorts, profile.corpus.source
    others = ("corpus.unit", "corpus.source")
    try:
        cohort_expr(cohorts, unit=profile.corpus.unit)
    except CohortError as error:
        yield Problem("corpus.cohorts", str(error), others)
    if cohorts.kind in TIME_NAMES and _columns_are_given(source) and "created_at" not in source.columns:
        what = f"{cohorts.kind!r} needs a source.columns entry for `created_at`; without times, every row is dropped"
        yield Problem("corpus.cohorts.kind", what, others)
    of_this_kind = OF_A_KIND.get(cohorts.kind, set())
    for name, value in cohorts:
        if name != "kind" and value is not None and name not in of_this_kind:
            what = f"means nothing for cohorts.kind = {cohorts.kind!r}; leave it out, or choose the kind you meant"
            yield Problem(f"corpus.cohorts.{name}", what, ("corpus.cohorts.kind",))


def _the_pool_is_large_enough(profile: Profile) -> Iterator[Problem]:
    samples, target = profile.sampling.num_samples, profile.selection.target_size
    if profile.votes.num_bins > samples:
        what = (
            f"({profile.votes.num_bins}) must not exceed sampling.num_samples ({samples}): bins are fitted on the pool"
        )
        yield Problem("votes.num_bins", what, ("sampling.num_samples",))
    if target > samples:
        what = f"({target}) must not exceed sampling.num_samples ({samples}): resampling only removes"
        yield Problem("selection.target_size", what, ("sampling.num_samples",))
    if profile.preferences.num_pairs < FEWEST_PAIRS:
        what = f"must be at least {FEWEST_PAIRS}: some pairs train the reward model, others measure it"
        yield Problem("preferences.num_pairs", what)


def _the_policy_has_rows(profile: Profile) -> Iterator[Problem]:
    rlhf, pairs, target = profile.rlhf, profile.preferences.num_pairs, profile.selection.target_size
    trained_on_pairs = rlhf.method == "dpo"
    if trained_on_pairs and rlhf.prompts_per_step > pairs:
        what = f"({rlhf.prompts_per_step}) must not exceed preferences.num_pairs ({pairs}): dpo takes that many a step"
        yield Problem("rlhf.prompts_per_step", what, ("preferences.num_pairs", "rlhf.method"))
    prompts = rlhf.evaluation_prompts + (0 if trained_on_pairs else rlhf.prompts_per_step)
    if prompts > target:
        what = (
            f"and rlhf.prompts_per_step together ({prompts}) must not exceed selection.target_size ({target}): the"
            " policy is measured at other prompts than it is trained on"
        )
        yield Problem("rlhf.evaluation_prompts", what, ("selection.target_size", "rlhf.prompts_per_step"))


CHECKS: tuple[Callable[[Profile], Iterator[Problem]], ...] = (
    _levels_are_levels,
    _delta_fits_the_units,
    _columns_are_known,
    _queries_are_named,
    _users_are_named,
    _rows_without_a_user_are_some,
    _lengths_leave_texts,
    _languages_can_be_detected,
    _redaction_is_possible,
    _the_engine_is_installed,
    _cohorts_fit_the_unit,
    _the_pool_is_large_enough,
    _the_policy_has_rows,
)
