"""What the assets of private rows show is the same whatever rows there are: events, their metadata, logs and prints.

The rows of one registered corpus are exchanged, and what everybody can see of the run is compared with the run before.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._serdes import serialize_value

from dp_assets.assets.real_embeddings import real_embeddings
from dp_assets.assets.real_instructions import real_instructions
from dp_assets.privacy.labels import Zone
from dp_assets.settings.profile import Profile
from tests.tiny_pipeline import register, tiny_profile, tiny_resources, write_corpus
from tests.toy_graph import SILENT

USERS = 20
IDS = r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}"
TIMES = r"\d+(\.\d+)? ?m?s\b|\b\d+\.\d{3,}"
KEYS_OF_OUTPUT = r"(?<=compute_logs/)[a-z]{8}|(?<=\"log_key\": \")[a-z]{8}"
NAMES_OF_A_RUN = re.compile(f"{IDS}|{TIMES}|{KEYS_OF_OUTPUT}")


def files_outside(data: Path) -> list[Path]:
    """What a data folder holds outside its private zone."""
    return sorted(path for path in data.rglob("*") if Zone.PRIVATE not in path.relative_to(data).parts)


class Site:
    """A registered corpus whose source file is written anew for each run."""

    def __init__(self, home: Path) -> None:
        self.home, self.source = home, home / "corpus.parquet"
        write_corpus(self.source, num_users=USERS)
        self.profile: Profile = tiny_profile(self.source, Path("no model"), min_words=3)
        register(tiny_resources(self.profile, home / "registered")["ledger"], self.profile)

    def seen(self, name: str, capfd: pytest.CaptureFixture[str]) -> list[str]:
        """All that a run over the present rows leaves for others, in a data folder of its own."""
        data = shutil.copytree(self.home / "registered", self.home / name)
        files = files_outside(data)
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize(
                [real_instructions, real_embeddings],
                resources=tiny_resources(self.profile, data),
                instance=instance,
                run_config=SILENT,
            )
            assert result.success
            logs = [f"{entry.level} {entry.user_message}" for entry in instance.all_logs(result.run_id)]
            events = [serialize_value(entry.dagster_event) for entry in instance.all_logs(result.run_id)]
            run = instance.get_run_by_id(result.run_id)
        assert files_outside(data) == files
        everything = [*logs, *events, str(run and run.tags), *capfd.readouterr()]
        return [NAMES_OF_A_RUN.sub("*", said.replace(str(data), "HOME")) for said in everything]


def one_more_user(source: Path) -> None:
    newcomer = pl.DataFrame({"prompt": ["who am i to ask this?", "and why do i?"], "user": ["newcomer"] * 2})
    pl.concat([pl.read_parquet(source), newcomer]).write_parquet(source)


def one_user_only(source: Path) -> None:
    write_corpus(source, num_users=1)


def nobody_who_is_kept(source: Path) -> None:
    pl.DataFrame({"prompt": ["hm"], "user": ["user-1"]}).write_parquet(source)


@pytest.mark.parametrize("exchange", [one_more_user, one_user_only, nobody_who_is_kept])
def test_nobody_sees_which_rows_the_private_assets_were_made_of(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], exchange: Any
) -> None:
    site = Site(tmp_path)
    before = site.seen("before", capfd)
    exchange(site.source)
    after = site.seen("after", capfd)
    assert [(now, then) for now, then in zip(after, before, strict=True) if now != then] == []
