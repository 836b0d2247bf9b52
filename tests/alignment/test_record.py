"""The records of all trainings have one form, which JSON holds as it is."""

import json

from dp_assets.alignment.record import Curve, policy_record, training_record

CURVE: Curve = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
POINTS = ({"step": 0, "reward": 0.0}, {"step": 2, "reward": 1.0})


def test_a_policys_record_is_that_of_any_training_and_its_method_and_evaluations() -> None:
    training = training_record(CURVE, {"rows_trained_on": 3.0})
    policy = policy_record(CURVE, {"rows_trained_on": 3.0}, method="dpo", evaluations=POINTS)
    assert policy == training | {"method": "dpo", "evaluations": list(POINTS)}
    assert training_record(CURVE) == {"curve": CURVE, "figures": {}}


def test_a_record_comes_back_from_json_as_it_was() -> None:
    policy = policy_record(CURVE, {}, method="rloo", evaluations=POINTS)
    assert json.loads(json.dumps(policy)) == policy
