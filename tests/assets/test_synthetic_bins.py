"""The bins: as many as the profile says, fitted on vectors of the pool, and named after their embedder."""

from dp_assets.artifacts import EMBEDDER
from dp_assets.assets.synthetic_bins import synthetic_bins
from dp_assets.pipeline.bin_arrays import centroids_of
from dp_assets.privacy.plan import GENERATOR
from dp_assets.selection.bins import digest_of
from tests.assets.one_asset import Workbench


def test_as_many_bins_as_the_profile_says_are_fitted_the_same_each_time(bench: Workbench) -> None:
    bench.put_pool()
    found = []
    for _ in range(2):
        bench.make(synthetic_bins)
        made = bench.table("synthetic_bins")
        assert made.collect()["bin_id"].to_list() == list(range(bench.profile.votes.num_bins))
        found.append(digest_of(centroids_of(made)))
    assert found[0] == found[1]
    assert made.charge_ids == (bench.id_of(GENERATOR),)
    assert made.record[EMBEDDER] == bench.table("synthetic_embeddings").record[EMBEDDER]
