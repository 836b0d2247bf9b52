"""Settings that cannot be meant together are named, and a name cannot break a path, a partition key or the ledger."""

import sys
from pathlib import Path

import pytest

from dp_assets.privacy.ledger_state import LedgerState
from dp_assets.settings.consistency import contradictions, plan_problems
from dp_assets.settings.named import NAMED, ProfileError, load, load_profile

FILE = 'source = { kind = "file", path = "a.csv", columns = { text = "t", user_id = "u" } }'
ROWS = 'source = { kind = "file", path = "a.csv", columns = { text = "t" } }\nunit = "instruction"'
LEVELS = [f"eps-0.{thousandths}" for thousandths in range(101, 114)]


def problems(folder: Path, text: str) -> list[str]:
    """What is said of a profile, one line a problem."""
    path = folder / "mine.toml"
    path.write_text(text)
    with pytest.raises(ProfileError) as refusal:
        load_profile(str(path))
    return [str(problem) for problem in refusal.value.problems]


@pytest.mark.parametrize("name", NAMED)
def test_the_named_profiles_hold_together(name: str) -> None:
    assert contradictions(load_profile(name)) == plan_problems(load_profile(name)) == []


@pytest.mark.parametrize(
    ("text", "setting", "remedy"),
    [
        ("[corpus]\nmin_words = 90", "corpus.min_words", "corpus.max_words"),
        ('[corpus]\nunit = "instruction"\nwithout_user = "drop"', "corpus.without_user", "corpus.unit"),
        ("[generator]\nmax_tokens = 1", "generator.max_tokens", "at least 2"),
        ("[preferences]\nnum_pairs = 1", "preferences.num_pairs", "at least 2"),
        ("[votes]\nnum_bins = 385", "votes.num_bins", "sampling.num_samples"),
        ("[corpus]\ndelta = 0.5", "corpus.delta", "at most 1 / (10 x 1,024)"),
        ("[corpus]\ndelta = 1e-4", "corpus.delta", "generator.expected_batch_size over"),
        ("[corpus]\ndeclared_units = 20000", "corpus.delta", "20,000 units by corpus.declared_units"),
        (f"[corpus]\n{FILE}\ncohorts = {{ kind = 'year', first = '2025', last = '2026' }}", "corpus.cohorts", "unit"),
        (f"[corpus]\n{ROWS}\ncohorts = {{ kind = 'year', first = '2026', last = '2025' }}", "corpus.cohorts", "first"),
        (f"[corpus]\n{ROWS}\ncohorts = {{ kind = 'year', first = '25', last = '26' }}", "corpus.cohorts", "'2026'"),
        (
            f"[corpus]\n{ROWS}\ncohorts = {{ kind = 'year', first = '2025', last = '2026' }}",
            "corpus.cohorts.kind",
            "`created_at`",
        ),
        ("[corpus]\ncohorts = { num_buckets = 4 }", "corpus.cohorts.num_buckets", "kind"),
        ("[corpus]\ncohorts = { kind = 'user_bucket' }", "corpus.cohorts", "cohorts.num_buckets"),
        (f"[corpus]\n{FILE.replace('user_id', 'userid')}", "corpus.source.columns", "did you mean user_id?"),
        (f"[corpus]\n{FILE}\nplanned_levels = ['eps-2', 'eps-2.0']", "corpus.planned_levels", "the same level"),
        (f"[corpus]\nplanned_levels = {LEVELS}", "corpus.planned_levels", "more than 12 levels"),
        ("[corpus]\nredact = ['phone']\nphone_regions = ['US', 'UK']", "corpus.phone_regions", "UK"),
        ("[corpus]\nredact = ['email', 'person']", "corpus.redact", "corpus.redaction_model"),
        ("[generator]\nrank = 600\n[sampling]\nengine = 'vllm'", "generator.rank", "at most 512"),
        ("[corpus]\nredact = ['place']\nredaction_model = 'en_no'", "corpus.redaction_model", "spacy download en_no"),
        ("[corpus]\nredact = ['email']\nredaction_model = 'en_no'", "corpus.redaction_model", "leave it out"),
    ],
)
def test_a_contradiction_names_a_setting_and_the_remedy(tmp_path: Path, text: str, setting: str, remedy: str) -> None:
    found = [problem for problem in problems(tmp_path, text) if problem.startswith(f"{setting}: ")]
    assert any(remedy in problem for problem in found), found


@pytest.mark.parametrize(
    ("text", "package", "setting", "remedy"),
    [
        (
            "[corpus]\nredact = ['secret', 'email']",
            "presidio_analyzer",
            "corpus.redact",
            "pip install 'dp-instructions[redaction]'",
        ),
        ("[sampling]\nengine = 'vllm'", "vllm", "sampling.engine", "pip install 'dp-instructions[vllm]'"),
        (
            "[corpus]\ndetect_language = true",
            "py3langid",
            "corpus.detect_language",
            "pip install 'dp-instructions[language]'",
        ),
    ],
)
def test_a_library_that_is_not_installed_is_named_when_the_profile_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, package: str, setting: str, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (found,) = problems(tmp_path, text)
    assert found.startswith(f"{setting}: ")
    assert remedy in found
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    (tmp_path / "secrets.toml").write_text("[corpus]\nredact = ['secret']")
    assert load_profile(str(tmp_path / "secrets.toml")).corpus.redact == ("secret",)


@pytest.mark.parametrize("name", ["eps-1_0", "eps-\uff18", "eps- 8", "eps-8 ", "eps-08", "eps-+8", "eps-8.", "eps-1e1"])
def test_a_level_is_written_in_plain_digits(tmp_path: Path, name: str) -> None:
    found = problems(tmp_path, f"[corpus]\nplanned_levels = ['{name}']")
    assert any(problem.startswith("corpus.planned_levels") for problem in found), found


def test_a_delta_that_fits_the_declared_units_is_accepted_and_a_declaration_makes_nothing_out_of_date(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.toml").write_text("[corpus]\ndeclared_units = 10_000\ndelta = 1e-5")
    profile = load_profile(str(tmp_path / "mine.toml"))
    undeclared = profile.corpus.model_copy(update={"declared_units": None})
    assert profile.digest == profile.model_copy(update={"corpus": undeclared}).digest


@pytest.mark.parametrize("extends", ["demos", "huge"])
def test_a_misspelled_base_is_refused_with_a_suggestion_if_there_is_one(tmp_path: Path, extends: str) -> None:
    (problem,) = problems(tmp_path, f'extends = "{extends}"')
    assert "demo, paper" in problem
    assert ("did you mean demo?" in problem) == (extends == "demos")


@pytest.mark.parametrize(
    "name", ["a|b", "a/b", "..", "", " a", "a\\\\b", "a\\nb", "a\\u0000b", "1+erased-2", "a" * 101]
)
@pytest.mark.parametrize("setting", ["name", "snapshot"])
def test_a_name_that_could_break_a_path_a_key_or_the_ledger_is_refused(tmp_path: Path, setting: str, name: str) -> None:
    table = "" if setting == "name" else "[corpus]\n"
    (problem,) = problems(tmp_path, f'{table}{setting} = "{name}"')
    assert problem.startswith("name: must" if setting == "name" else "corpus.snapshot: must")


def test_a_level_that_could_break_a_path_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, '[corpus]\nplanned_levels = ["eps-8", "eps-8 "]')
    assert problem.startswith("corpus.planned_levels.1: must")


def test_the_suffix_that_is_refused_is_the_one_that_the_ledger_adds() -> None:
    state = LedgerState(erasures={"corpus": ["unit"]})  # type: ignore[arg-type]
    assert state.snapshot("corpus", "1") == "1+erased-1"


def test_a_date_without_quotes_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[corpus]\nsnapshot = 2026-11-24\n")
    assert load_profile(str(path)).corpus.snapshot == "2026-11-24"


def test_a_setting_comes_from_the_file_only_if_it_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "paper"\n[annotation.endpoint]\nbase_url = "http://h/v1"\nmodel = "m"\n')
    loaded = load(str(path))
    assert loaded.origin("annotation.endpoint.model") == str(path)
    assert loaded.origin("annotation.temperature") == loaded.origin("annotation.endpoint.concurrency") == "paper"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="UTF-8"):
        load_profile(str(path))
