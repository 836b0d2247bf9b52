"""The votes are paid for once: one noisy count a bin under a settled charge, taken again by a second run."""

from dp_assets.assets.dp_histogram import dp_histogram
from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.pipeline.bin_arrays import histogram_of
from dp_assets.privacy.plan import GENERATOR, HISTOGRAM
from tests.assets.one_asset import Workbench


def test_every_bin_gets_a_noisy_count_under_one_settled_charge_which_is_taken_again_for_nothing(
    bench: Workbench,
) -> None:
    bench.put_pool()
    bench.make(real_instructions, real_embeddings, partition=None)
    bench.make(dp_histogram)
    first = bench.table("dp_histogram")
    assert first.collect()["bin_id"].to_list() == list(range(bench.profile.votes.num_bins))
    assert histogram_of(first).noise_stddev == bench.profile.votes.noise_stddev
    (charge,) = [each for each in bench.ledger.state().charges.values() if each.mechanism == HISTOGRAM]
    assert charge.settled
    assert first.charge_ids == tuple(sorted([bench.id_of(GENERATOR), charge.charge_id]))
    before = bench.ledger.state().anchor
    bench.make(dp_histogram)
    assert bench.ledger.state().anchor == before
    assert bench.table("dp_histogram").collect().equals(first.collect())
