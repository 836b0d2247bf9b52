"""The statement verifies, and names the files of everything that it was made from."""

import pytest

from dp_assets.assets.privacy_statement import privacy_statement
from dp_assets.statements.verification import verify
from tests.assets.one_asset import Workbench


@pytest.fixture
def stated(bench: Workbench) -> Workbench:
    bench.put_pool()
    bench.put_filtered()
    bench.put_votes([60, 60, 60, 60])
    bench.put_generator()
    bench.make(privacy_statement)
    return bench


def test_the_statement_of_stored_artifacts_verifies_and_names_their_charges(stated: Workbench) -> None:
    statement = stated.document("privacy_statement")
    verify(statement.data)
    assert tuple(statement.data["ledger"]["charge_ids"]) == statement.charge_ids == stated.both


def test_every_file_of_what_the_statement_was_made_from_is_named(stated: Workbench) -> None:
    artifacts = stated.home / "released/artifacts"
    there = {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*") if path.is_file()}
    named = set(stated.document("privacy_statement").data["files"])
    assert named == {place for place in there if not place.startswith("privacy_statement/")}
    assert len({place.split("/")[0] for place in named}) == 6
