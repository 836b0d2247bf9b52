"""Nothing that reads private rows runs by itself: no schedule, sensor or automation condition targets it."""

from collections.abc import Iterable, Sequence

import dagster as dg
import pytest

from dp_assets.artifacts import Table
from dp_assets.definitions import defs
from dp_assets.pipeline.asset import labeled_asset
from dp_assets.privacy.labels import TAG, Label
from tests.toy_graph import noise, pool, secrets

PRIVATE_SIDE = {Label.PRIVATE, Label.MECHANISM}


def automated(found: dg.Definitions) -> dict[str, set[dg.AssetKey]]:
    """The assets that each schedule, sensor and automation condition of a code location can run."""
    repository, graph = found.get_repository_def(), found.resolve_asset_graph()
    conditioned = {key for key in graph.get_all_asset_keys() if graph.get(key).automation_condition is not None}
    targets: dict[str, set[dg.AssetKey]] = {"automation conditions": conditioned}
    for tick in (*repository.schedule_defs, *repository.sensor_defs):
        targets[tick.name] = {key for job in jobs_of(tick) for key in keys_of(repository, job)}
    for sensor in repository.sensor_defs:
        if isinstance(sensor, dg.AutomationConditionSensorDefinition):
            targets[sensor.name] |= set(sensor.asset_selection.resolve(graph)) & conditioned
        elif sensor.asset_selection is not None:
            targets[sensor.name] |= set(sensor.asset_selection.resolve(graph))
    return targets


def jobs_of(tick: dg.ScheduleDefinition | dg.SensorDefinition) -> Iterable[str]:
    """The names of the jobs that a schedule or a sensor launches."""
    return [tick.job_name] if isinstance(tick, dg.ScheduleDefinition) else [one.job_name for one in tick.targets]


def keys_of(repository: dg.RepositoryDefinition, job: str) -> Iterable[dg.AssetKey]:
    return repository.get_job(job).asset_layer.executable_asset_keys


def offences(found: dg.Definitions) -> dict[str, list[str]]:
    """What runs private assets or mechanisms by itself, and which."""
    graph = found.resolve_asset_graph()
    private = {key for key in graph.get_all_asset_keys() if Label(graph.get(key).tags[TAG]) in PRIVATE_SIDE}
    touched = {name: sorted(key.to_user_string() for key in keys & private) for name, keys in automated(found).items()}
    return {name: keys for name, keys in touched.items() if keys}


def test_nothing_in_the_code_location_runs_a_private_step_by_itself() -> None:
    assert offences(defs) == {}


def conditioned(label: Label) -> dg.AssetsDefinition:
    """The last toy with an automation condition, under a label."""

    @labeled_asset(label=label, group="toys", kinds={"polars"})
    def reported(noise: Table) -> Table:
        """Made by itself when its upstream is."""
        return noise

    return reported.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=EAGER))


EAGER = dg.AutomationCondition.eager()
OF_RELEASED = dg.define_asset_job("of_released", selection=["pool"])
OF_MECHANISM = dg.define_asset_job("of_mechanism", selection=["noise"])
WITH_UPSTREAM = dg.define_asset_job("with_upstream", selection=dg.AssetSelection.assets("pool").upstream())


def sensor_of(**target: object) -> dg.SensorDefinition:
    return dg.SensorDefinition(name="watching", evaluation_fn=lambda _: dg.SkipReason("no news"), **target)


def location(
    *assets: dg.AssetsDefinition, schedules: Sequence[dg.ScheduleDefinition] = (), sensors: Sequence[object] = ()
) -> dg.Definitions:
    """The toys with further assets, schedules and sensors."""
    return dg.Definitions(
        assets=[secrets, noise, pool, *assets], schedules=schedules, sensors=sensors, jobs=[OF_RELEASED, OF_MECHANISM]
    )


NIGHTLY = "0 3 * * *"
PLANTED = {
    "a schedule of a mechanism": location(
        schedules=[dg.ScheduleDefinition("nightly", cron_schedule=NIGHTLY, job=OF_MECHANISM)]
    ),
    "a schedule that pulls upstream in": location(
        schedules=[dg.ScheduleDefinition("nightly", cron_schedule=NIGHTLY, job=WITH_UPSTREAM)]
    ),
    "a sensor of a mechanism": location(sensors=[sensor_of(job=OF_MECHANISM)]),
    "a sensor of two jobs": location(sensors=[sensor_of(jobs=[OF_RELEASED, OF_MECHANISM])]),
    "a sensor of assets": location(sensors=[sensor_of(asset_selection=["secrets", "pool"])]),
    "a condition on a mechanism": location(conditioned(Label.MECHANISM)),
    "a condition on a private asset": location(conditioned(Label.PRIVATE)),
}
HARMLESS = {
    "a schedule of a released asset": location(
        schedules=[dg.ScheduleDefinition("nightly", cron_schedule=NIGHTLY, job=OF_RELEASED)]
    ),
    "a sensor of a released asset": location(sensors=[sensor_of(asset_selection=["pool"])]),
    "a condition on a released asset": location(conditioned(Label.RELEASED)),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_what_runs_a_private_step_by_itself_is_noticed(planted: dg.Definitions) -> None:
    assert offences(planted)


@pytest.mark.parametrize("harmless", HARMLESS.values(), ids=HARMLESS)
def test_what_runs_released_assets_by_itself_may_be(harmless: dg.Definitions) -> None:
    assert offences(harmless) == {}
