"""Of errors in a private step only one constant message is seen outside; steps run beside others, an erasure alone."""

import traceback
import warnings
from pathlib import Path

import dagster as dg
import pytest

from dp_assets.privacy.errors import PublicError
from resources.ledger.ledger_resource import ChargeRefused
from resources.private.private_step import (
    CONSTANT_MESSAGE,
    PrivateStepFailed,
    StepsRunning,
    log_file,
    no_private_step,
    private_errors,
    private_step,
)
from resources.public_failure import PublicFailure

SECRET = "my card is 4929 1111"


class Refused(PublicError, ValueError):
    """An error that says configuration only."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "private"


def quote_a_row() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as cause:
        raise ValueError(f"row {SECRET!r} is malformed") from cause


def raise_while_handling_a_row(error: BaseException) -> None:
    try:
        quote_a_row()
    except ValueError as cause:
        error.add_note(SECRET)
        raise error from cause


def fail_with_a_secret(root: Path) -> PrivateStepFailed:
    with pytest.raises(PrivateStepFailed) as caught, private_errors(str(root)):
        quote_a_row()
    return caught.value


def test_the_message_is_constant_and_is_not_retried(root: Path) -> None:
    failure = fail_with_a_secret(root)
    assert failure.description == CONSTANT_MESSAGE
    assert failure.allow_retries is False
    assert SECRET not in str(failure)


def test_neither_cause_nor_context_leads_to_the_private_error(root: Path) -> None:
    failure = fail_with_a_secret(root)
    assert failure.__cause__ is None
    assert failure.__context__ is None
    assert SECRET not in "".join(traceback.format_exception(failure))


def test_the_details_are_in_a_log_that_only_its_owner_reads(root: Path) -> None:
    fail_with_a_secret(root)
    log = root / "log" / "errors.log"
    assert log.read_text().count(SECRET) >= 2
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700


def test_the_log_is_appended_to(root: Path) -> None:
    fail_with_a_secret(root)
    once = (root / "log" / "errors.log").read_text()
    fail_with_a_secret(root)
    assert (root / "log" / "errors.log").read_text().startswith(once)
    assert (root / "log" / "errors.log").read_text() != once


@pytest.mark.parametrize(
    "error",
    [Refused("column `text` is missing"), ChargeRefused("over the budget"), PublicFailure("no plan")],
    ids=lambda error: type(error).__name__,
)
def test_public_errors_pass_unchanged_and_are_not_logged(root: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, private_errors(str(root)):
        raise error
    assert caught.value is error
    assert log_file(root).read_text() == ""


@pytest.mark.parametrize(
    "error", [ValueError("column `text` is missing"), dg.Failure("no plan")], ids=["error", "failure"]
)
def test_an_error_that_was_not_declared_public_is_private(root: Path, error: Exception) -> None:
    with pytest.raises(PrivateStepFailed), private_errors(str(root)):
        raise error


class Panic(BaseException):
    """What some compiled libraries raise: no `Exception`."""


def test_a_panic_is_private(root: Path) -> None:
    with pytest.raises(PrivateStepFailed), private_errors(str(root)):
        raise Panic(SECRET)
    assert SECRET in (root / "log" / "errors.log").read_text()


def test_warnings_go_to_the_private_log(root: Path, recwarn: pytest.WarningsRecorder) -> None:
    with private_errors(str(root)):
        warnings.warn(f"a strange row: {SECRET}", stacklevel=1)
    assert list(recwarn) == []
    assert SECRET in (root / "log" / "errors.log").read_text()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, dg.DagsterExecutionInterruptedError])
def test_an_interrupt_passes_and_says_nothing(root: Path, interrupt: type[BaseException]) -> None:
    with pytest.raises(interrupt) as caught, private_errors(str(root)):
        raise_while_handling_a_row(interrupt(SECRET))
    assert type(caught.value) is interrupt
    assert caught.value.args == ()
    assert SECRET not in everything_said_by(caught.value)


def test_an_exit_is_a_failure(root: Path) -> None:
    with pytest.raises(PrivateStepFailed), private_errors(str(root)):
        raise SystemExit(SECRET)
    assert SECRET in log_file(root).read_text()


def everything_said_by(error: BaseException | None) -> str:
    """Text, notes and arguments of an error and of every error that can be reached from it."""
    if error is None:
        return ""
    linked = everything_said_by(error.__cause__) + everything_said_by(error.__context__)
    return f"{error!r} {error} {getattr(error, '__notes__', '')} {linked}"


@pytest.mark.parametrize("error", [Refused("a column is missing"), PublicFailure("no plan")], ids=["error", "failure"])
def test_what_led_to_a_public_error_is_private(root: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, private_errors(str(root)):
        raise_while_handling_a_row(error)
    assert caught.value is error
    assert SECRET not in everything_said_by(error)
    assert log_file(root).read_text().count(SECRET) >= 3


@pytest.mark.parametrize("explicit", [True, False])
def test_neither_a_note_nor_an_unraised_cause_of_a_public_error_passes(root: Path, explicit: bool) -> None:
    error = Refused("a column is missing")
    if explicit:
        error.__cause__ = ValueError(SECRET)
    else:
        error.add_note(SECRET)
    with pytest.raises(Refused), private_errors(str(root)):
        raise error
    assert SECRET not in everything_said_by(error)
    assert SECRET in log_file(root).read_text()


def test_an_error_whose_text_cannot_be_written_is_private_all_the_same(root: Path) -> None:
    with pytest.raises(PrivateStepFailed) as caught, private_errors(str(root)):
        raise ValueError(f"{SECRET} \udcff")
    assert SECRET not in everything_said_by(caught.value)
    assert SECRET in log_file(root).read_text()


def test_an_error_that_cannot_be_printed_is_private_all_the_same(root: Path) -> None:
    class Unprintable(ValueError):
        @property
        def __notes__(self) -> list[str]:
            raise RuntimeError(SECRET)

    with pytest.raises(PrivateStepFailed) as caught, private_errors(str(root)):
        raise Unprintable
    assert SECRET not in everything_said_by(caught.value)


def test_a_log_that_cannot_be_opened_stops_the_step_before_it_begins(root: Path) -> None:
    log_file(root).mkdir(parents=True)
    begun = []
    with pytest.raises(IsADirectoryError), private_errors(str(root)):
        begun.append(True)
    assert not begun


def test_steps_run_side_by_side_and_nothing_else_runs_beside_one(root: Path) -> None:
    with (
        private_step(str(root)),
        private_step(str(root)),
        pytest.raises(StepsRunning, match="wait for it"),
        no_private_step(str(root)),
    ):
        pass
    with no_private_step(str(root)), pytest.raises(StepsRunning), no_private_step(str(root)):
        pass


def test_a_step_that_fails_gives_the_lock_back_and_says_nothing_outside(root: Path) -> None:
    with pytest.raises(PrivateStepFailed) as failure, private_step(str(root)):
        raise ValueError("a row of somebody")
    assert "somebody" not in str(failure.value)
    with no_private_step(str(root)):
        pass


def test_a_public_error_passes(root: Path) -> None:
    with pytest.raises(PublicError, match="the column is missing"), private_step(str(root)):
        raise PublicError("the column is missing")
