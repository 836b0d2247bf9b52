"""What may be exported: whole, current, protected, and covered by a statement that still says what holds."""

from pathlib import Path

import polars as pl
import pytest

from dp_assets.artifacts import Table
from dp_assets.export.parts import STATEMENT, ExportRefused
from dp_assets.export.release import asset_folder
from dp_assets.privacy.plan import HISTOGRAM
from tests.export.releases import IDS, gathered, put, release_everything
from tests.statements.statements import both, charged, state_of
from tests.tiny_pipeline import PARTITION


def test_everything_is_composed_over_the_union_of_its_charges(tmp_path: Path) -> None:
    release = gathered(tmp_path, release_everything(tmp_path))
    costs = {part.name: cost["lineage_epsilon"] for part, cost in release.costs.items()}
    assert release.together["charge_ids"] == list(IDS)
    assert release.together["lineage_epsilon"] == costs["filtered"] > costs["pool"] > 0


def test_the_statement_counts_among_what_is_exported(tmp_path: Path) -> None:
    release = gathered(tmp_path, release_everything(tmp_path), "pool")
    assert [part.name for part in release.folders] == ["pool"]
    assert release.together["charge_ids"] == list(IDS)


def test_what_ran_without_noise_is_never_exported(tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match="no guarantee"):
        asset_folder(tmp_path, STATEMENT, "all|no-dp")


def test_everything_that_is_missing_is_named_with_the_remedy(tmp_path: Path) -> None:
    state = release_everything(tmp_path)
    for asset in ("sft_model", "synthetic_pool"):
        folder = asset_folder(tmp_path, asset, PARTITION)
        folder.rename(tmp_path / asset)
    with pytest.raises(ExportRefused, match=r"synthetic_pool, sft_model; run `dp-instructions run 'all\|eps-8'`"):
        gathered(tmp_path, state)
    assert gathered(tmp_path, state, "filtered", "rlhf").out_of_date == ()


def test_what_is_out_of_date_is_refused_unless_it_is_asked_for_as_stored(tmp_path: Path) -> None:
    state = release_everything(tmp_path)
    with pytest.raises(ExportRefused, match=r"out of date: rlhf_model; .*--as-stored"):
        gathered(tmp_path, state, stale={"rlhf_model", "real_instructions"})
    stored = gathered(tmp_path, state, stale={"rlhf_model", "real_instructions"}, as_stored=True)
    assert stored.out_of_date == ("rlhf_model",)


def test_a_statement_that_does_not_verify_is_refused(tmp_path: Path) -> None:
    state = release_everything(tmp_path)

    def refused(folder: Path) -> dict[str, object]:
        raise ExportRefused(f"{folder.parts[-3]} does not verify")

    with pytest.raises(ExportRefused, match="privacy_statement does not verify"):
        gathered(tmp_path, state, verified=refused)


def test_an_artifact_of_another_release_is_refused(tmp_path: Path) -> None:
    release_everything(tmp_path)
    later = ("charged", charged(HISTOGRAM, charge_id="later", booked=False))
    put(tmp_path, "filtered_instructions", Table(pl.LazyFrame({"text": ["x"]}), (*IDS, "later")))
    with pytest.raises(ExportRefused, match="filtered_instructions descends from a charge"):
        gathered(tmp_path, state_of(*both(), later))


@pytest.mark.parametrize(
    "entry",
    [
        ("charged", charged(HISTOGRAM, charge_id="later", booked=False)),
        ("raised", {"corpus_id": "corpus", "budget_epsilon": 12.0, "reason": "-"}),
        ("closed", {"corpus_id": "corpus", "cohort": "all", "reasons": ["steps"]}),
    ],
    ids=lambda entry: str(entry[0]),
)
def test_a_statement_that_no_longer_says_what_holds_is_refused(
    tmp_path: Path, entry: tuple[str, dict[str, object]]
) -> None:
    release_everything(tmp_path)
    with pytest.raises(ExportRefused, match="the ledger has changed"):
        gathered(tmp_path, state_of(*both(), entry))


def test_a_ledger_that_does_not_know_the_charges_is_refused(tmp_path: Path) -> None:
    release_everything(tmp_path)
    with pytest.raises(ExportRefused, match="unknown, voided or of another corpus"):
        gathered(tmp_path, state_of(both()[0]))
