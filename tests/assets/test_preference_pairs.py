"""Preference pairs of a public file carry the charges of what was read beside it."""

import json
from pathlib import Path

from dp_assets.assets.preference_pairs import preference_pairs
from tests.assets.one_asset import Workbench


def test_pairs_of_a_file_are_its_own_and_carry_the_charges_of_what_lay_beside_it(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    wanted = [{"prompt": f"why {number}?", "chosen": "because", "rejected": "no"} for number in range(3)]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in wanted))
    bench = Workbench(tmp_path, tiny_model_folder, preferences={"source": "file", "path": str(file)})
    bench.put_annotated()
    bench.put("sft_model", bench.adapter(bench.both))
    bench.make(preference_pairs)
    pairs = bench.table("preference_pairs")
    assert pairs.collect().select("prompt", "chosen", "rejected").rows(named=True) == wanted
    assert bench.shown["preference_pairs"]["dagster/row_count"] == 3
    assert pairs.charge_ids == bench.both
