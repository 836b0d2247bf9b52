"""The messages that people can see, found in the source, and the page that lists them: `docs/troubleshooting.md`.

A message is what stands in the call that makes one of the project's own errors. The house form is "what is wrong; what
to do", so most of them carry their remedy. Those that do not take the one of their group.

python -m tests.docs.messages    writes the page anew
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.error_classes import ROOT, below, last_name, sources

PAGE = ROOT / "docs" / "troubleshooting.md"
OTHERS = frozenset(["BadParameter", "Failure", "Problem", "_refusal"])
"""What shows a message to people besides the project's own errors."""

UNSEEN = frozenset(["NoCompletion", "Stopped"])
"""Errors that other code takes up and says in its own words."""

REMEDY = re.compile(r"; |\. (?=[A-Z])|: (?=check |correct |take |use |set |install )")
"""Where a message goes over to what to do."""

INTRODUCTION = """\
# Troubleshooting

Every error message of the commands and of the assets in the Dagster UI, once each. `<...>` stands for what is filled
in, so look for the other words. A step that reads private rows says only that it failed; its reason is in the private
log, which is named in the message.

This page is written from the source by `python -m tests.docs.messages`, and a test compares the two.
"""

# Title, what to do if the message itself does not say it, and the files whose messages belong there; first match wins.
GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "Settings",
        "Correct the setting that is named in your profile, then `dp-instructions config check`.",
        (
            "dp_assets/settings",
            "dp_assets/fields",
            "dp_assets/alignment/settings",
            "dp_assets/corpus/settings",
            "dp_assets/cli/config",
            "dp_assets/pipeline/partitions",
        ),
    ),
    (
        "The corpus: files, data sets, queries",
        "Correct the source, or the `corpus` settings that describe it; `docs/guides/own-corpus.md` says what is read.",
        (
            "dp_assets/corpus",
            "resources/queries",
            "dp_assets/pipeline/corpus",
            "dp_assets/cli/corpus",
            "dp_assets/cli/preview",
            "dp_assets/stages/preview",
        ),
    ),
    (
        "Budget, ledger and charges",
        "Nothing was read under a refused charge. Look at `dp-instructions ledger show`;"
        " `docs/operations.md` has each case.",
        (
            "dp_assets/privacy",
            "resources/ledger",
            "resources/private/erasure",
            "dp_assets/cli/ledger",
            "dp_assets/planning",
        ),
    ),
    (
        "Annotators, judges, people and preferences",
        "What was answered is kept, so run again once it is put right; see `docs/guides/endpoint.md` and"
        " `docs/guides/human-annotation.md`.",
        (
            "dp_assets/alignment",
            "resources/annotator",
            "dp_assets/stages/annotation",
            "dp_assets/stages/preferences",
            "dp_assets/cli/handoff",
        ),
    ),
    (
        "Models, training and sampling",
        "Choose another model or setting; public checks run before anything is charged.",
        (
            "dp_assets/dpsgd",
            "dp_assets/generation",
            "dp_assets/selection",
            "resources/models",
            "dp_assets/evaluation",
            "dp_assets/reports",
        ),
    ),
    (
        "Statements, verification and export",
        "Do not rely on a statement that is refused; have it made again with `dp-instructions run`.",
        (
            "dp_assets/statements",
            "dp_assets/export",
            "dp_assets/cli/statements",
            "dp_assets/cli/export",
            "dp_assets/stages/statement",
        ),
    ),
    (
        "Runs, data folder and stored artifacts",
        "Run the partition again with `dp-instructions run`; nothing that was paid for is charged twice.",
        ("",),
    ),
)


@dataclass(frozen=True, order=True)
class Message:
    """A message with `<...>` for what is filled in, the file that it stands in, and the error that says it."""

    text: str
    path: str
    error: str


def messages() -> list[Message]:
    """All messages, each once, in the order of their texts."""
    errors = OTHERS | {name for name in below() if not name.startswith("_")} - UNSEEN
    found: dict[str, Message] = {}
    for path, tree in sources().items():
        shown = errors | {"ValueError"} if path.endswith("/settings.py") or path == "dp_assets/fields.py" else errors
        for error, text in _said(tree, shown):
            found.setdefault(text, Message(text, path, error))
    return sorted(found.values())


def _said(tree: ast.Module, errors: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Each error with a text that it is made with, where it is raised or in its own class."""
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        calls: list[tuple[str, ast.AST]] = []
        if isinstance(node, ast.Call) and last_name(node.func) in errors:
            calls = [(last_name(node.func), node)]
        elif isinstance(node, ast.ClassDef) and node.name in errors:
            calls = [(node.name, call) for call in ast.walk(node) if isinstance(call, ast.Call) and _is_init(call)]
        for error, call in calls:
            assert isinstance(call, ast.Call)
            for value in (*call.args, *(word.value for word in call.keywords)):
                text = _text(constants.get(value.id, value) if isinstance(value, ast.Name) else value)
                if text:
                    yield error, text


def _is_init(call: ast.Call) -> bool:
    return last_name(call.func) == "__init__"


def _text(node: ast.AST) -> str:
    """A text as people see it; empty for what is no text of at least three words."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.Constant):
        text = node.value if isinstance(node.value, str) else ""
    elif isinstance(node, ast.JoinedStr):
        text = "".join(_part(part) for part in node.values)
    else:
        return ""
    return text if len(re.sub(r"<[^>]*>", "", text).split()) >= 3 else ""


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    names = [last_name(node) for node in ast.walk(part) if isinstance(node, ast.Attribute | ast.Name)]
    words = [name for name in names if name and name not in ("self", "str", "join", "repr", "sorted", "len")]
    return f"<{words[0].lower().replace('_', ' ').strip()}>" if words else "<...>"


def page() -> str:
    """The page as it should be."""
    grouped: dict[str, list[Message]] = {title: [] for title, _, _ in GROUPS}
    for message in messages():
        title = next(title for title, _, starts in GROUPS if message.path.startswith(starts))
        grouped[title].append(message)
    sections = [_section(title, remedy, grouped[title]) for title, remedy, _ in GROUPS if grouped[title]]
    return "\n".join([INTRODUCTION, *sections])


def _section(title: str, remedy: str, found: list[Message]) -> str:
    rows = [(what, own or remedy) for what, own in map(_halves, found)]
    table = "".join(f"| {_cell(what)} | {_cell(remedy)} |\n" for what, remedy in rows)
    return f"## {title}\n\n| what you see | what to do |\n| --- | --- |\n{table}"


def _halves(message: Message) -> tuple[str, str]:
    """What is wrong, and the remedy that the message itself gives."""
    what, *rest = REMEDY.split(" ".join(message.text.split()), maxsplit=1)
    remedy = "".join(rest)
    return what, f"{remedy[:1].upper()}{remedy[1:]}"


def _cell(text: str) -> str:
    return re.sub(r"([|<>*_])", r"\\\1", text).replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
