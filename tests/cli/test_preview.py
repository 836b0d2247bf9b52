"""`corpus preview` shows private rows on a terminal and nowhere else; `register` offers it once."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from dp_assets.cli import app
from dp_assets.cli._console import out
from tests.cli_pipeline import ROOT, CliPipeline

SECRET = "zq4711kumquat"
OFFER = "Look at what is read of the source"
UNSEEN = "registered without a preview here"


def invoke(*arguments: str, answers: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=answers)


@pytest.fixture
def corpus(pipeline: CliPipeline) -> CliPipeline:
    """Rows with a mark, terminal codes and markup, and one that is too short."""
    texts = [f"what is a {SECRET}", "\x1b[2Jwhy [bold]is[/bold] it\x9b1m so", "short", "how do i bake bread"]
    users = ["anna", "anna", "bert", None]
    pl.DataFrame({"prompt": texts, "user": users}).write_parquet(pipeline.corpus_file)
    return pipeline


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed goes to a person, who can answer."""
    monkeypatch.setattr("dp_assets.cli.preview.on_terminal", lambda: True)
    monkeypatch.setattr("dp_assets.cli.corpus.somebody_answers", lambda: True)


def files_with(pipeline: CliPipeline, text: str) -> Iterator[Path]:
    wanted = text.encode()
    files = (path for path in pipeline.folder.rglob("*") if path.is_file() and path != pipeline.corpus_file)
    return (path for path in files if wanted in path.read_bytes())


@pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}], ids=["plain", "colors forced"])
def test_without_a_terminal_nothing_is_shown_and_the_way_out_is_named(
    corpus: CliPipeline, forced: dict[str, str]
) -> None:
    result = CliRunner(env=forced).invoke(app, ["corpus", "preview"])
    assert result.exit_code == 2
    assert "standard output is no terminal" in result.output
    assert SECRET not in result.output


@pytest.mark.usefixtures("terminal")
def test_a_preview_is_shown_and_nothing_is_kept_or_spent(corpus: CliPipeline) -> None:
    result = invoke("corpus", "preview")
    assert result.exit_code == 0
    for words in (
        SECRET,
        "rows: 4; users: 2",
        "each a unit of its own: 1",
        "'short'",
    ):
        assert words in result.stdout.replace("\n", " ")
    assert list(files_with(corpus, SECRET)) == []
    assert list((corpus.home / "private/tmp").iterdir()) == []
    assert corpus.ledger.state().anchor.length == 0


@pytest.mark.usefixtures("terminal")
def test_what_somebody_wrote_moves_no_cursor_and_is_no_markup(corpus: CliPipeline) -> None:
    printed = invoke("corpus", "preview").stdout
    assert not any(code in printed for code in ("\x1b[2J", "\x9b"))
    assert "[bold]is[/bold]" in printed.replace("\n", "")


@pytest.mark.usefixtures("terminal")
def test_tables_keep_their_headings_at_eighty_columns(corpus: CliPipeline) -> None:
    lines = invoke("corpus", "preview").stdout.splitlines()
    assert max(len(line) for line in lines if not line.startswith("look:")) <= 80
    headings = (
        ("file", "rows", "no user"),
        ("reached", "dropped", "such as"),
        ("units to train on",),
        ("user", "time"),
    )
    for words in headings:
        assert any(all(word in line for word in words) for line in lines), words


@pytest.mark.usefixtures("terminal")
def test_a_time_that_is_not_understood_is_shown_as_it_is_written(corpus: CliPipeline) -> None:
    rows = {
        "prompt": ["how do i bake bread", "why is it so"],
        "user": ["anna", "anna"],
        "time": ["3 May", "2026-05-03"],
    }
    pl.DataFrame(rows).write_parquet(corpus.corpus_file)
    mapped = corpus.profile_file.read_text().replace('user_id = "user"', 'user_id = "user", created_at = "time"')
    corpus.profile_file.write_text(mapped)
    printed = invoke("corpus", "preview").stdout
    assert printed.count("3 May (not understood)") == 1  # among the first rows
    assert "created_at 3 May" in " ".join(printed.split())
    assert "look: 1 of 2 rows hold a time of a form that is not read" in printed


def test_json_is_written_wherever_standard_output_leads(corpus: CliPipeline) -> None:
    shown = json.loads(invoke("corpus", "preview", "--json").stdout)
    assert shown["rows"] == 4
    assert shown["files"][0]["name"] == str(corpus.corpus_file)
    assert shown["first_rows"][0]["text"] == f"what is a {SECRET}"


def test_what_cannot_be_read_is_refused_as_a_run_refuses_it(corpus: CliPipeline) -> None:
    pl.DataFrame({"other": [SECRET]}).write_parquet(corpus.corpus_file)
    result = invoke("corpus", "preview", "--json")
    assert result.exit_code == 1
    assert "source.columns names prompt, user" in result.stderr
    assert SECRET not in result.output


@pytest.mark.usefixtures("terminal")
def test_a_broken_line_is_shown_by_its_file_and_row(corpus: CliPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "width", 400)  # the file's path stays on one line
    lines = corpus.corpus_file.with_name("chats.jsonl")
    lines.write_text(f'{{"prompt": "what is a {SECRET}", "user": "anna"}}\n{{cut\n')
    corpus.profile_file.write_text(corpus.profile_file.read_text().replace(corpus.corpus_file.name, lines.name))
    printed = CliRunner().invoke(app, ["corpus", "preview"]).stdout
    assert f"a broken line: row 2 of {lines}" in printed


def damage(corpus: CliPipeline) -> Path:
    """Make the profile read a JSON document that is damaged within its only line."""
    document = corpus.corpus_file.with_name("chats.json")
    document.write_text(f'[{{"prompt": "{SECRET}", "user": "anna"}}, {{"prompt": why?}}, {{"prompt": "how?"}}]')
    corpus.profile_file.write_text(corpus.profile_file.read_text().replace(corpus.corpus_file.name, document.name))
    return document


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("arguments", "answers"), [(("corpus", "preview"), ""), (("register",), "y\n")])
def test_why_a_document_cannot_be_read_is_shown_on_the_terminal_only(
    corpus: CliPipeline, arguments: tuple[str, ...], answers: str
) -> None:
    document = damage(corpus)
    result = invoke(*arguments, answers=answers)
    assert result.exit_code == 1
    assert f"{document}: a JSON document is damaged within its only line" in result.stdout
    assert "damaged" not in result.stderr
    assert corpus.ledger.state().registrations == {}


def test_why_a_document_cannot_be_read_is_not_said_where_output_may_be_kept(corpus: CliPipeline) -> None:
    damage(corpus)
    result = invoke("corpus", "preview", "--json")
    assert result.exit_code == 1
    assert "A step that reads private rows failed" in result.stderr
    assert "damaged" not in result.output


@pytest.mark.parametrize("options", [(), ("--without-preview",), ("--json",)])
def test_a_source_without_a_mapped_column_is_refused_before_its_terms_are_fixed(
    corpus: CliPipeline, options: tuple[str, ...]
) -> None:
    pl.DataFrame({"prompt": [SECRET], "usr": ["anna"]}).write_parquet(corpus.corpus_file)
    result = invoke("register", *options)
    assert result.exit_code == 1
    assert "source.columns names user" in result.stderr
    assert corpus.ledger.state().registrations == {}


def test_register_says_that_nobody_looked_where_nobody_can_be_asked_and_stops_nobody(corpus: CliPipeline) -> None:
    result = invoke("register", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["unit"] == "user"
    assert UNSEEN in result.stderr
    assert UNSEEN not in invoke("register").stderr  # it is registered by now


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("answers", "registered", "seen"),
    [("y\ny\n", True, True), ("y\nn\n", False, True), ("n\n", True, False)],
    ids=["looked and went on", "looked and stopped", "did not look"],
)
def test_register_offers_the_preview_once_and_leaves_the_decision(
    corpus: CliPipeline, answers: str, registered: bool, seen: bool
) -> None:
    result = invoke("register", answers=answers)
    assert result.exit_code == int(not registered)
    assert (SECRET in result.stdout, len(corpus.ledger.state().registrations)) == (seen, int(registered))
    if registered:
        assert OFFER not in invoke("register").output


@pytest.mark.usefixtures("terminal")
def test_register_asks_nothing_where_it_is_told_so(corpus: CliPipeline) -> None:
    result = invoke("register", "--without-preview")
    assert result.exit_code == 0
    assert OFFER not in result.output
    assert UNSEEN not in result.output


@pytest.mark.usefixtures("terminal")
def test_register_does_not_ask_about_a_public_corpus_of_a_package(
    pipeline: CliPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = pipeline.profile_file.read_text()
    source = next(line for line in text.splitlines() if line.startswith("source = "))
    pipeline.profile_file.write_text(text.replace(source, 'source = { kind = "chitchat" }'))
    result = invoke("register")
    assert result.exit_code == 0
    assert OFFER not in result.output


@pytest.mark.slow
def test_a_real_terminal_is_taken_for_one(corpus: CliPipeline) -> None:
    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "dp_assets.cli", "corpus", "preview"]
    environment = os.environ | corpus.environment
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=terminal, stderr=subprocess.PIPE) as process:
        os.close(terminal)
        printed = b""
        while True:
            try:
                read = os.read(reader, 65536)
            except OSError:  # the other end is closed
                break
            if not read:
                break
            printed += read
    os.close(reader)
    assert process.returncode == 0
    assert SECRET.encode() in printed
