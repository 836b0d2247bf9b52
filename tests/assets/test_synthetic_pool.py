"""The pool: distinct numbered texts of the generator, as many drawn as the profile or the run asks for."""

from dp_assets.assets.synthetic_pool import synthetic_pool
from dp_assets.privacy.plan import GENERATOR
from tests.assets.one_asset import Workbench


def test_the_pool_is_numbered_without_copies_and_a_run_may_ask_for_another_size(bench: Workbench) -> None:
    bench.put_generator()
    sizes = []
    for drawn, config in ((bench.profile.sampling.num_samples, {}), (96, {"num_samples": 96})):
        bench.make(synthetic_pool, **config)
        pool = bench.table("synthetic_pool")
        rows = pool.collect()
        assert rows["synthetic_id"].to_list() == [f"pool-{number:07d}" for number in range(rows.height)]
        assert rows["text"].n_unique() == rows.height == bench.shown["synthetic_pool"]["dagster/row_count"] <= drawn
        assert bench.shown["synthetic_pool"]["samples_drawn"] == drawn
        assert pool.charge_ids == (bench.id_of(GENERATOR),)
        sizes.append(rows.height)
    assert sizes[0] < sizes[1]
