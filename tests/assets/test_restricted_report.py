"""The restricted report holds exact figures of real rows in the private zone, and shows none of a private source."""

from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.assets.restricted_report import restricted_report
from tests.assets.one_asset import Workbench


def test_exact_figures_are_stored_behind_the_boundary_and_none_is_shown(bench: Workbench) -> None:
    bench.put_pool()
    bench.put_filtered()
    bench.put_generator()
    bench.make(real_instructions, real_embeddings, partition=None)
    bench.make(restricted_report)
    figures = bench.private_rows("restricted_report")
    assert {"mauve", "recall", "held_out_token_loss", "verbatim_copy_share"} <= set(figures["metric"])
    losses = {row["subject"]: row["value"] for row in figures.to_dicts() if row["metric"] == "held_out_token_loss"}
    assert set(losses) == {"base model", "generator"}
    assert losses["base model"] != losses["generator"]
    assert not [name for name in bench.shown["restricted_report"] if name.startswith("restricted/")]
    assert not (bench.home / "released/artifacts/restricted_report").exists()
