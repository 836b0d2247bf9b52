"""Which errors may leave a step that reads private rows as they are; all others become one constant message.

A further class is a decision about privacy, so each one stands here once more, under what its messages depend on.
"""

import ast
from collections.abc import Iterator

from dp_assets.privacy.errors import PublicError
from tests.error_classes import BUILT_IN, below, classes, last_name, sources

PUBLIC = {
    "settings, command lines and this machine": {
        "CohortError",
        "HandoffRefused",
        "MissingKey",
        "ModelUnavailable",
        "NoRoom",
        "NotReady",
        "OtherDataFolder",
        "ProfileError",
        "UnknownPartition",
        "UnreachableTarget",
        "UnusableKey",
    },
    "settings, and the form of the source: paths, names and types of columns": {"SourceError"},
    "the model, its settings and fixed public texts": {
        "EmbeddersDiffer",
        "RoundingTooCoarse",
        "RowsInteract",
        "UnclippableParameter",
        "UnfitModel",
        "UnstablePreparation",
    },
    "how earlier runs ended, and which runs there are now": {
        "AnswersBusy",
        "ErasureRefused",
        "NoSpareStep",
        "RowsErased",
        "StaleCheckpoint",
        "TrainingInProgress",
    },
    "the terms, plans, charges and erasures in the ledger": {
        "BudgetExceeded",
        "ChargeRefused",
        "CohortClosed",
        "ContinuationRefused",
        "ForeignLineage",
        "LedgerTampered",
        "RegistrationError",
        "VoidRefused",
    },
    "which files there are in the data folder, and which asset may hold what": {
        "BoundaryViolation",
        "LineageLost",
        "OpenRows",
        "OtherContent",
        "NotReleased",
        "UnexpectedContent",
        "UnexpectedFile",
        "UnprotectedInput",
        "UnreadableArtifact",
    },
    "released rows, and what people, endpoints and public files gave to them": {
        "EndpointError",
        "ExportError",
        "ExportRefused",
        "NothingMade",
        "NothingUsable",
        "PreferenceFileError",
        "StatementError",
    },
    "nothing: the message is constant": {"PrivateStepFailed"},
    "what it is made with, which is what one of the others says": {"PublicFailure"},
}


def test_each_public_error_was_reviewed() -> None:
    reviewed = [name for names in PUBLIC.values() for name in names]
    assert below([PublicError.__name__]) == set(reviewed)
    assert len(reviewed) == len(set(reviewed))
    names = [name for name, _ in classes()]
    assert [name for name in reviewed if names.count(name) != 1] == [], "names that two classes have"


def test_no_error_carries_another_one_as_its_text() -> None:
    errors = below() | BUILT_IN
    carried = [
        f"{path}:{call.lineno}"
        for path, tree in sources().items()
        for call in calls(tree)
        if last_name(call.func) in errors
        for argument in call.args
        if isinstance(argument, ast.Call) and last_name(argument.func) in errors
    ]
    assert carried == []


def calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))
