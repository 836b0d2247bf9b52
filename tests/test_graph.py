"""The graph as the design has it: edges, labels, partitions, and a code location that loads without the torch side."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from dp_assets.definitions import ALL_ASSETS, defs
from dp_assets.pipeline.asset import OWNERS
from dp_assets.pipeline.partitions import COHORTS_BY_LEVELS
from dp_assets.privacy.labels import LABEL_METADATA, TAG, Label

ROOT = Path(__file__).parents[1]
ASSET_FILES = sorted(path for path in (ROOT / "dp_assets/assets").glob("*.py") if not path.name.startswith("_"))
LONGEST_BODY = 15

PARENTS = {
    "real_instructions": set(),
    "real_embeddings": {"real_instructions"},
    "dp_generator": {"real_instructions"},
    "synthetic_pool": {"dp_generator"},
    "synthetic_embeddings": {"synthetic_pool"},
    "synthetic_bins": {"synthetic_embeddings"},
    "dp_histogram": {"real_embeddings", "synthetic_bins"},
    "filtered_instructions": {
        "synthetic_pool",
        "synthetic_embeddings",
        "synthetic_bins",
        "dp_histogram",
        "dp_generator",
    },
    "annotated_instructions": {"filtered_instructions"},
    "sft_model": {"annotated_instructions"},
    "preference_pairs": {"annotated_instructions", "sft_model"},
    "reward_model": {"preference_pairs"},
    "rlhf_model": {"sft_model", "reward_model", "preference_pairs", "filtered_instructions"},
    "quality_report": {
        "synthetic_pool",
        "synthetic_embeddings",
        "synthetic_bins",
        "filtered_instructions",
        "dp_histogram",
    },
    "restricted_report": {
        "real_instructions",
        "real_embeddings",
        "dp_generator",
        "synthetic_pool",
        "synthetic_embeddings",
        "synthetic_bins",
        "filtered_instructions",
    },
    "privacy_statement": {
        "dp_generator",
        "synthetic_pool",
        "synthetic_embeddings",
        "synthetic_bins",
        "dp_histogram",
        "filtered_instructions",
    },
    "release_report": {"quality_report", "privacy_statement", "sft_model", "reward_model", "rlhf_model"},
}
LABELS = dict.fromkeys(PARENTS, Label.RELEASED) | {
    "real_instructions": Label.PRIVATE,
    "real_embeddings": Label.PRIVATE,
    "restricted_report": Label.PRIVATE,
    "dp_generator": Label.MECHANISM,
    "dp_histogram": Label.MECHANISM,
}
UNPARTITIONED = {"real_instructions", "real_embeddings"}
SPECS = {spec.key.to_user_string(): spec for asset in ALL_ASSETS for spec in asset.specs}


def found_parents() -> dict[str, set[str]]:
    graph = defs.resolve_asset_graph()
    return {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }


def test_the_edges_are_those_of_the_design() -> None:
    assert found_parents() == PARENTS


def test_the_picture_in_the_readme_shows_the_zones_and_edges_of_the_code() -> None:
    picture = (ROOT / "README.md").read_text().split("```mermaid\n")[1].split("```")[0]
    zones = re.findall(r"^  subgraph (\w+)\[.*?\]\n(.*?)^  end$", picture, re.MULTILINE | re.DOTALL)
    shown = {name: Label(zone) for zone, names in zones for name in names.split()}
    arrows = re.findall(r"^  (\w+) --> (.+)$", picture, re.MULTILINE)
    edges = [(parent, name) for parent, names in arrows for name in names.split(" & ")]
    assert shown == {name: Label(spec.tags[TAG]) for name, spec in SPECS.items()}
    assert sorted(edges) == sorted((parent, name) for name, parents in found_parents().items() for parent in parents)
    lines = picture.count("\n")
    assert lines == 1 + sum(2 + len(names.split()) for _, names in zones) + len(arrows) + picture.count("  style ")


def forbidden_edges(labels: dict[str, Label], edges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges that lead from a private asset to a released one."""
    return [edge for edge in edges if [labels[name] for name in edge] == [Label.PRIVATE, Label.RELEASED]]


def test_an_edge_from_private_to_released_is_found() -> None:
    labels = {"real": Label.PRIVATE, "noise": Label.MECHANISM, "pool": Label.RELEASED}
    edges = [("real", "noise"), ("noise", "pool"), ("real", "pool")]
    assert forbidden_edges(labels, edges) == [("real", "pool")]


def test_no_edge_leads_from_a_private_asset_to_a_released_one() -> None:
    labels = {name: Label(spec.tags[TAG]) for name, spec in SPECS.items()}
    edges = [(parent, name) for name, parents in found_parents().items() for parent in parents]
    assert labels == LABELS
    assert forbidden_edges(labels, edges) == []


@pytest.mark.parametrize("asset", ALL_ASSETS, ids=list(SPECS))
def test_tag_metadata_and_op_tag_carry_the_same_label(asset: dg.AssetsDefinition) -> None:
    (spec,) = asset.specs
    assert spec.tags[TAG] == spec.metadata[LABEL_METADATA] == asset.op.tags[TAG]


@pytest.mark.parametrize("name", list(PARENTS))
def test_every_asset_is_described_grouped_owned_and_versioned(name: str) -> None:
    spec = SPECS[name]
    assert spec.description
    assert spec.group_name
    assert spec.group_name != "default"
    assert spec.kinds
    assert spec.owners == [OWNERS[LABELS[name]]]
    assert spec.code_version


def test_everything_but_the_real_tables_is_partitioned_by_cohort_and_level() -> None:
    partitioned = {name: spec.partitions_def for name, spec in SPECS.items() if name not in UNPARTITIONED}
    assert [dimension.name for dimension in COHORTS_BY_LEVELS.partitions_defs] == ["cohort", "level"]
    assert all(definition == COHORTS_BY_LEVELS for definition in partitioned.values())
    assert all(SPECS[name].partitions_def is None for name in UNPARTITIONED)


def test_the_code_location_loads_without_the_torch_side() -> None:
    heavy = "('torch', 'transformers', 'sentence_transformers', 'trl', 'peft', 'opacus', 'mauve', 'matplotlib')"
    code = f"import sys, dp_assets.definitions; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def asset_function(path: Path) -> ast.FunctionDef:
    """The function of an asset module that bears the asset's name."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    (asset,) = (function for function in functions if function.name == path.stem)
    return asset


def num_statements(function: ast.FunctionDef) -> int:
    """The number of statements of a body, those in blocks included, without its docstring."""
    statements = function.body[1:] if ast.get_docstring(function) else function.body
    return sum(isinstance(node, ast.stmt) for statement in statements for node in ast.walk(statement))


def test_there_is_one_asset_module_for_each_asset() -> None:
    assert {path.stem for path in ASSET_FILES} == set(PARENTS)


@pytest.mark.parametrize("path", ASSET_FILES, ids=lambda path: path.stem)
def test_an_asset_function_is_documented_and_short(path: Path) -> None:
    function = asset_function(path)
    assert ast.get_docstring(function)
    assert num_statements(function) <= LONGEST_BODY


@pytest.mark.parametrize("name", [name for name, label in LABELS.items() if label is not Label.RELEASED])
def test_what_reads_private_rows_keeps_its_errors_in_the_private_zone(name: str) -> None:
    function = asset_function(ROOT / "dp_assets/assets" / f"{name}.py")
    guards = [ast.unparse(item) for node in ast.walk(function) if isinstance(node, ast.With) for item in node.items]
    assert [guard for guard in guards if guard.startswith("private_step(ledger.private_root")]


@pytest.mark.slow
def test_the_workspace_file_loads_in_dagsters_own_command(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("dagster"), "definitions", "validate", "-w", "workspace.yaml"]
    environment = {"DAGSTER_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    validated = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert validated.returncode == 0, validated.stdout + validated.stderr


@pytest.mark.parametrize("field", [("ledger", "private_root"), ("io_manager", "home"), ("releases", "home")])
def test_no_launch_can_point_a_resource_to_another_folder(field: tuple[str, str]) -> None:
    resource, name = field
    config = {"resources": {resource: {"config": {name: "/elsewhere"}}}}
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(defs.resolve_job_def("full_pipeline"), config)
