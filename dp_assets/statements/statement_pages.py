"""Pages of a privacy statement for people: plain words first, then tables, as Markdown and as one HTML page.

Both pages are made from the same blocks and say nothing that is not in the JSON.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dp_assets.privacy.headline import Basis
from dp_assets.privacy.units import PrivacyUnit, WithoutUser, relation_in_words
from dp_assets.statements.figures import AT_SMALL_DELTA, SMALL_DELTA
from dp_assets.statements.pages import Block, Grid, Heading, Items, Paragraph, html_page, markdown_page, number, share

HASH_CHARACTERS = 16


def to_markdown(statement: Mapping[str, Any]) -> str:
    """Return the statement as Markdown."""
    return markdown_page(blocks(statement))


def to_html(statement: Mapping[str, Any]) -> str:
    """Return the statement as one self-contained HTML page."""
    return html_page(_title(statement), blocks(statement))


def blocks(statement: Mapping[str, Any]) -> list[Block]:
    """Return the content of the pages, from top to bottom."""
    sections: tuple[tuple[str, Sequence[Block]], ...] = (
        ("In plain words", plain_words(statement)),
        ("The figures", _figures(statement)),
        ("What is protected, and from whom", [_setting(statement)]),
        ("The mechanisms", [_mechanisms(level, plan) for level, plan in statement["plans"].items()]),
        ("The account", [_account(statement)]),
        ("What ran", [_what_ran(statement), *_evidence(statement)]),
        ("Where it comes from", [_origins(statement), _files(statement)]),
        ("Not covered", [Items(tuple(statement["not_covered"]))]),
        ("How to check this statement", [Paragraph(HOW_TO_CHECK)]),
        ("Where the lists of others are answered", [Grid(("asked for", "by", "answered under"), REPORTING_LISTS)]),
    )
    page: list[Block] = [Heading(1, _title(statement))]
    for heading, content in sections:
        page += [Heading(2, heading), *content]
    return page


def summary(statement: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the most requested figures and terms, by name."""
    guarantee, terms, delta = statement["guarantee"], statement["terms"], statement["terms"]["delta"]
    return [
        ("cohorts, levels", "; ".join(", ".join(statement["release"][name]) for name in ("cohorts", "levels"))),
        (f"headline: epsilon at delta {number(delta)}", number(guarantee["headline_epsilon"])),
        ("which rests on", guarantee["headline_basis"]),
        (f"this release alone: epsilon at delta {number(delta)}", number(guarantee["lineage_epsilon"])),
        ("budget of each cohort", f"epsilon {number(statement['budget']['epsilon'])}"),
        ("privacy unit", f"{terms['unit_in_words']}, at most {terms['max_rows_per_unit']} rows"),
        ("relation", relation_in_words(terms["relation"])),
    ]


def _title(statement: Mapping[str, Any]) -> str:
    release = statement["release"]
    cohorts, levels = (", ".join(release[name]) for name in ("cohorts", "levels"))
    return f"Privacy statement: cohort {cohorts}, level {levels}"


def plain_words(statement: Mapping[str, Any]) -> list[Block]:
    """Return the guarantee in a few sentences for non-experts."""
    guarantee, terms = statement["guarantee"], statement["terms"]
    if guarantee["headline_basis"] == Basis.WITHOUT_NOISE:
        text = "**No guarantee.** It ran without noise, on a public source, and nothing of it leaves the private zone."
        return [Paragraph(text)]
    unit, rows = terms["unit_in_words"], terms["max_rows_per_unit"]
    paragraphs = [
        f"Whether or not one {unit} (up to {rows} rows) is in the corpus, what is released comes out almost equally"
        f' likely. How much "almost" allows is measured by epsilon (smaller is better) and delta (the chance that'
        f" epsilon fails to hold): {_headline(statement)}.",
        _attacker(guarantee["true_positive_rate"]["cohort"]),
        f"This release alone, if it was fixed before anybody saw a result: epsilon"
        f" {number(guarantee['lineage_epsilon'])} at delta {number(terms['delta'])}. If one {unit} were replaced by"
        f" another instead of added or removed: {number(guarantee['replace_one_epsilon']['lineage'])}.",
        _person(statement),
    ]
    if statement["source"]["declared_public"]:
        paragraphs.append("The source was declared public by its owner.")
    return [Paragraph(text) for text in paragraphs]


def _headline(statement: Mapping[str, Any]) -> str:
    guarantee, delta, budget = statement["guarantee"], statement["terms"]["delta"], statement["budget"]["epsilon"]
    bold = f"**epsilon {number(guarantee['headline_epsilon'])} at delta {number(delta)}**"
    later = f"Whatever may still run for the cohort stays within epsilon {number(budget)}"
    if guarantee["headline_basis"] == Basis.FIXED_BEFOREHAND:
        return f"{bold} over everything that was fixed for this cohort before any output existed. {later}"
    if guarantee["headline_basis"] == Basis.BUDGET:
        spent = number(guarantee["cohort_epsilon"])
        return (
            f"{bold}, the budget of this cohort, since some runs were chosen after results (spent so far, as"
            f" accounting: {spent}). {later}"
        )
    return f"**no guarantee for the cohort as a whole**: {guarantee['headline_basis']}"


def _attacker(rates: Mapping[str, float]) -> str:
    if min(rates.values()) >= 1:
        return "Nothing bounds how well somebody could tell from all releases of the cohort that a unit took part."
    return (
        "Somebody who sees everything released for the cohort, wants to tell whether a unit took part, and accepts"
        f" being wrong about 1 in 100 absent units finds at most {share(rates['0.01'])} of those present; at 1 in"
        f" 1,000, at most {share(rates['0.001'])}. Guessing blindly finds 1% and 0.1%."
    )


def _person(statement: Mapping[str, Any]) -> str:
    if statement["terms"]["unit"] == PrivacyUnit.USER:
        return (
            "The unit is the user, so every figure here is one person's, with all of their rows, as far as the rows"
            " name who wrote them."
        )
    return (
        "The unit is one instruction, so **a person who wrote several is protected less**: the table below says how"
        " much less for 1 to 8 of them."
    )


def _figures(statement: Mapping[str, Any]) -> list[Block]:
    guarantee, delta = statement["guarantee"], number(statement["terms"]["delta"])
    at_small, rates = guarantee[AT_SMALL_DELTA], guarantee["true_positive_rate"]
    replaced, header = guarantee["replace_one_epsilon"], ("figure", "everything for the cohort", "this release alone")
    rows = [
        (f"epsilon at delta {delta}", number(guarantee["headline_epsilon"]), number(guarantee["lineage_epsilon"])),
        (f"epsilon at delta {SMALL_DELTA:g}", *(number(at_small[scope]) for scope in SCOPES)),
        (f"epsilon for one unit replaced, at delta {delta}", *(number(replaced[scope]) for scope in SCOPES)),
    ]
    for rate in rates["cohort"]:
        cells = (share(rates[scope][rate]) for scope in SCOPES)
        rows.append((f"largest true-positive rate at {float(rate):g} false positives", *cells))
    return [Grid(header, tuple(rows)), *_of_a_person(statement)]


def _of_a_person(statement: Mapping[str, Any]) -> Iterator[Block]:
    by_size = statement["guarantee"]["epsilon_of_a_person"]
    if by_size is None:
        yield Paragraph("These rows are the person's: the unit is the user, so there is no further row for several.")
    else:
        delta = number(statement["terms"]["delta"])
        header = ("instructions by one person", f"epsilon at delta {delta}, this release alone")
        yield Grid(header, tuple((size, number(epsilon)) for size, epsilon in by_size.items()))


def _setting(statement: Mapping[str, Any]) -> Grid:
    terms, source = statement["terms"], statement["source"]
    rows = [
        ("setting", statement["setting"]["model"]),
        ("released", statement["setting"]["released"]),
        ("trusted", statement["setting"]["trusted"]),
        ("outside the claim", statement["setting"]["outside the claim"]),
        ("privacy unit", f"{terms['unit_in_words']}, at most {terms['max_rows_per_unit']} rows"),
        *_rows_without_a_user(terms),
        (
            "neighbouring relation",
            f"{relation_in_words(terms['relation'])}: one unit more or less, so the number of units is hidden too",
        ),
        ("source", f"{source['kind']}, {'declared public' if source['declared_public'] else 'private'}"),
    ]
    if source["redacted"]:
        rows.append(("replaced by placeholders beforehand", f"{', '.join(source['redacted'])}: {DEFENSE_IN_DEPTH}"))
        libraries = [f"{name} {version}" for name, version in sorted(source["redacted_with"].items())]
        rows.append(("recognised by", ", ".join(libraries) or "patterns of this program"))
    return Grid(("what", "value"), tuple(rows))


def _rows_without_a_user(terms: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return how rows without a user were treated, where users are the units."""
    if terms["unit"] != PrivacyUnit.USER:
        return []
    without_user = WithoutUser(terms["without_user"])
    return [("rows that name no user", f"{without_user}: {without_user.in_words}")]


def _mechanisms(level: str, plan: Mapping[str, Any]) -> Grid:
    dpsgd, votes = plan["dpsgd"], plan["votes"]
    rows = (
        ("generator", f"DP-SGD with LoRA, {dpsgd['steps']} steps and {dpsgd['spare_steps']} spare ones, all accounted"),
        ("sampling probability", number(dpsgd["sampling_probability"])),
        ("clip norm (L2) of one unit's gradient", number(dpsgd["l2_clip_norm"])),
        ("noise multiplier (noise over clip norm)", number(dpsgd["noise_multiplier"])),
        ("normaliser of a step (expected batch)", number(dpsgd["expected_batch_size"])),
        ("histogram", f"one vote a unit for {votes['num_bins']} bins; one unit changes one bin by one"),
        ("noise of a bin", f"discrete Gaussian, standard deviation {number(votes['noise_stddev'])} votes"),
    )
    return Grid((f"level {level}", "value"), rows)


def _account(statement: Mapping[str, Any]) -> Grid:
    guarantee, accountant, budget = statement["guarantee"], statement["accountant"], statement["budget"]
    rows = [
        ("headline rests on", guarantee["headline_basis"]),
        ("spent on or booked for the cohort", f"epsilon {number(guarantee['cohort_epsilon'])}"),
        ("budget", f"epsilon {number(budget['epsilon'])} at delta {number(statement['terms']['delta'])}"),
        *(
            (f"budget raised, {step['at']}", f"from {number(step['from'])} to {number(step['to'])}")
            for step in budget["raised"]
        ),
        ("accountant", f"{accountant['library']}: {accountant['method']}"),
        (
            "discretisation",
            f"{accountant['discretisation']:g}, finer or coarser with the size of the losses;"
            f" of rates {accountant['discretisation_of_rates']:g}; of several units of"
            f" a person {accountant['discretisation_of_groups']:g}",
        ),
        ("adaptive gate", f"Renyi DP at order {statement['terms']['gate_order']}, fixed at registration"),
    ]
    return Grid(("what", "value"), tuple(rows))


def _what_ran(statement: Mapping[str, Any]) -> Grid:
    slack = [public["rounding_slack"] for public in statement["evidence"].values() if "rounding_slack" in public]
    rows = [
        ("sampler", statement["sampler"]),
        ("randomness of noise and sampling", statement["randomness"]["noise_and_sampling"]),
        ("randomness of public steps", statement["randomness"]["public_steps"]),
        ("resumes after an interruption", "within the spare steps of the plan, which are all accounted"),
        ("base model", statement["base_model"]),
    ]
    if slack:
        rows.append(("measured rounding slack of a clipped sum, over one unit's share", f"{max(slack):.3g}"))
    return Grid(("what", "value"), tuple(rows))


def _evidence(statement: Mapping[str, Any]) -> Iterator[Block]:
    """Yield everything that the mechanisms returned, under their own names."""
    for charge_id, public in statement["evidence"].items():
        rows = tuple((name.replace("_", " "), _shown(value)) for name, value in public.items())
        yield Grid((f"observed under charge {charge_id[:HASH_CHARACTERS]}", "value"), rows)


def _origins(statement: Mapping[str, Any]) -> Grid:
    ledger, code, configuration = statement["ledger"], statement["code"], statement["configuration"]
    rows = (
        ("corpus", ledger["corpus_id"]),
        ("charges", ", ".join(ledger["charge_ids"])),
        ("ledger", f"head {ledger['head']}"),
        ("code", f"{code['package']} {code['version']}, sha256 {code['sha256']}"),
        ("configuration", f"profile {configuration['profile_digest']}, sha256 {configuration['sha256']}"),
        ("this statement", f"format {statement['format']}, of its pages too; sha256 {statement['digest']}"),
    )
    return Grid(("what", "value"), rows)


def _files(statement: Mapping[str, Any]) -> Block:
    if not statement["files"]:
        return Paragraph("The artifacts behind this statement were not stored as files, so it holds no hashes of them.")
    return Grid(("file", "sha256"), tuple(statement["files"].items()))


def _shown(value: Any) -> str:
    """Format a value of evidence; a mapping as its items, one after the other."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


SCOPES = ("cohort", "lineage")
DEFENSE_IN_DEPTH = (
    "what has a recognisable form, as defence in depth; detectors miss much, and no figure here counts on it"
)
HOW_TO_CHECK = (
    "The command dp-instructions verify document.json, with the file beside this page, recomputes every figure"
    " from the events in it, offline, and compares this page and the released files beside it with what they must be."
    " Trust the figures that the command prints: a page may have been edited. That proves arithmetic and integrity. It"
    " does not prove that these events are the ones which ran: that rests on the code named above, on the evidence that"
    " the mechanisms returned, and on the ledger, whose owner can show the entries."
)
NIST, PONOMAREVA = "NIST SP 800-226", "Ponomareva et al., arXiv 2303.00654, 5.3.3"
REPORTING_LISTS = (
    ("privacy parameters epsilon and delta", NIST, "The figures"),
    ("unit of privacy and contribution bound", NIST, "What is protected, and from whom"),
    ("neighbouring relation", NIST, "What is protected, and from whom"),
    ("mechanisms and their parameters", NIST, "The mechanisms"),
    ("accounting method, composition of releases", NIST, "The account"),
    ("trust model", NIST, "What is protected, and from whom"),
    ("correct implementation, randomness, side channels", NIST, "What ran; Not covered"),
    ("utility and bias", NIST, "Not covered"),
    ("data collection, security and access outside the claim", NIST, "What is protected, and from whom; Not covered"),
    ("setting: central, local or other", PONOMAREVA, "What is protected, and from whom"),
    ("data accesses that are covered, and those that are not", PONOMAREVA, "The mechanisms; Not covered"),
    ("what the mechanism puts out", PONOMAREVA, "What is protected, and from whom"),
    ("unit of privacy and adjacency", PONOMAREVA, "What is protected, and from whom"),
    ("type of accounting, and whether its assumptions hold", PONOMAREVA, "The account; What ran"),
    ("formal statement for the final release and for tuning", PONOMAREVA, "In plain words; The figures; Not covered"),
    ("transparency: what others can check", PONOMAREVA, "Where it comes from; How to check this statement"),
)
