"""Planning: figures that agree with the accountant, suggestions that hold when followed, and plain refusals."""

import json
import math
from dataclasses import replace

import pytest

from dp_assets.planning import planner
from dp_assets.planning.planner import LevelReport, advice, joint_epsilon, report_level, suggest
from dp_assets.privacy import accounting
from dp_assets.privacy.plan import PrivacyPlan
from dp_assets.privacy.units import PrivacyUnit
from tests.privacy.plans import small_plan

PARAMETERS = 30_000


def of_instructions(plan: PrivacyPlan) -> PrivacyPlan:
    return replace(plan, unit=PrivacyUnit.INSTRUCTION, max_rows_per_unit=1)


@pytest.fixture(scope="module")
def eight() -> LevelReport:
    return report_level(small_plan(), num_parameters=PARAMETERS, num_units=1000)


@pytest.fixture(scope="module")
def one() -> LevelReport:
    return report_level(small_plan("eps-1.2"), num_parameters=PARAMETERS, num_units=1000)


@pytest.fixture(scope="module")
def eight_of_instructions() -> LevelReport:
    return report_level(of_instructions(small_plan()), num_parameters=None, num_units=None)


def test_a_report_states_what_the_accountant_says(eight: LevelReport) -> None:
    event, delta = small_plan().event, small_plan().delta
    assert eight.epsilon == accounting.epsilon(event, delta)
    assert eight.replace_one_epsilon == accounting.replace_one_epsilon(event, delta) > eight.epsilon
    assert eight.true_positive_rates == accounting.trade_off(event, (0.001, 0.01))


def test_a_smaller_target_has_a_weaker_signal_and_less_to_find(eight: LevelReport, one: LevelReport) -> None:
    assert one.signal_to_noise < eight.signal_to_noise
    assert all(one.true_positive_rates[rate] < found for rate, found in eight.true_positive_rates.items())


def test_the_batch_follows_the_stated_number_of_units_and_not_the_divisor(eight: LevelReport) -> None:
    assert eight.expected_batch == 250
    noise = eight.plan.dpsgd.noise_multiplier
    assert eight.signal_to_noise == pytest.approx(250 / (noise * math.sqrt(PARAMETERS)))


def test_the_error_per_bin_is_that_of_discrete_gaussian_noise(eight: LevelReport) -> None:
    noise = eight.plan.votes.noise_stddev
    masses = {vote: math.exp(-0.5 * (vote / noise) ** 2) for vote in range(-60, 61)}
    expected = sum(abs(vote) * mass for vote, mass in masses.items()) / sum(masses.values())
    assert eight.error_per_bin == pytest.approx(expected, rel=0.02)
    assert eight.relative_error_per_bin == pytest.approx(eight.error_per_bin / (1000 / eight.plan.votes.num_bins))


@pytest.mark.slow
def test_only_instructions_get_a_row_for_people_who_own_several(
    eight: LevelReport, eight_of_instructions: LevelReport
) -> None:
    assert eight.group_epsilons == {}
    costs = list(eight_of_instructions.group_epsilons.items())
    assert [size for size, _ in costs] == list(accounting.GROUP_SIZES)
    assert costs[0][1] == eight.epsilon
    assert [cost for _, cost in costs] == sorted({cost for _, cost in costs})


def test_what_is_not_stated_is_unknown() -> None:
    report = report_level(small_plan(), num_parameters=None, num_units=None)
    assert report.signal_to_noise is None
    assert report.relative_error_per_bin is None
    assert report.expected_batch == report.plan.dpsgd.expected_batch_size


@pytest.mark.slow
def test_a_person_with_many_instructions_is_warned_of(eight_of_instructions: LevelReport) -> None:
    (line,) = advice([eight_of_instructions], budget_epsilon=8.0, num_units=None, num_parameters=None)
    assert "corpus.unit 'user'" in line
    assert f"{eight_of_instructions.group_epsilons[8]:g}" in line


def test_levels_together_cost_more_than_the_largest_and_less_than_the_sum() -> None:
    plans = [small_plan(), small_plan("eps-1.2")]
    assert 8 < joint_epsilon(plans) < 9.2
    assert joint_epsilon(plans[:1]) == plans[0].epsilon
    assert joint_epsilon([]) == 0


def test_levels_that_exceed_the_budget_together_are_advised_against(eight: LevelReport, one: LevelReport) -> None:
    def lines(budget: float) -> tuple[str, ...]:
        return advice([eight, one], budget_epsilon=budget, num_units=None, num_parameters=None)

    assert any("corpus.budget_epsilon" in line for line in lines(8.0))
    assert not any("corpus.budget_epsilon" in line for line in lines(9.2))


@pytest.mark.parametrize(("level", "num_units"), [("eps-8", 20_000), ("eps-1.2", 400)])
def test_a_suggestion_that_is_followed_meets_the_target_with_a_signal(level: str, num_units: int) -> None:
    plan = small_plan(level)
    made = suggest(plan, num_units=num_units, num_parameters=None)
    dpsgd = replace(
        plan.dpsgd,
        sampling_probability=made.sampling_probability,
        expected_batch_size=made.expected_batch_size,
        steps=made.steps,
        noise_multiplier=made.noise_multiplier,
    )
    followed = replace(plan, dpsgd=dpsgd, votes=replace(plan.votes, num_bins=made.num_bins))
    assert followed.epsilon <= plan.target_epsilon
    report = report_level(followed, num_parameters=made.most_parameters, num_units=num_units)
    assert report.signal_to_noise == pytest.approx(planner.LEAST_SIGNAL_TO_NOISE, rel=0.01)
    assert report.expected_variation == made.expected_variation <= planner.SUGGESTED_VARIATION
    assert made.too_small == ()
    text = " ".join(advice([report], budget_epsilon=8.0, num_units=num_units, num_parameters=None))
    assert "num_bins" not in text
    assert "expected_batch_size" not in text


def test_the_published_batch_is_suggested_for_the_published_size() -> None:
    made = suggest(small_plan(), num_units=180_000, num_parameters=None)
    assert (made.expected_batch_size, made.steps) == (4096, 439)


def test_a_larger_adapter_gets_fewer_passes() -> None:
    few = suggest(small_plan("eps-1.2"), num_units=1000, num_parameters=30_000)
    many = suggest(small_plan("eps-1.2"), num_units=1000, num_parameters=4_000)
    assert few.steps < many.steps
    assert few.most_parameters > many.most_parameters


def test_a_corpus_that_is_too_small_is_told_so_and_why() -> None:
    made = suggest(small_plan("eps-1.2"), num_units=30, num_parameters=None)
    training, votes = made.too_small
    assert "30 units are too few to train at eps-1.2" in training
    assert "votes.noise_stddev" in votes


def test_advice_names_the_setting_that_does_not_suit_the_size(eight: LevelReport) -> None:
    lines = advice([eight], budget_epsilon=8.0, num_units=15, num_parameters=PARAMETERS)
    assert any("votes.num_bins" in line for line in lines)
    lines = advice([eight], budget_epsilon=8.0, num_units=200_000, num_parameters=PARAMETERS)
    assert any("corpus.delta" in line for line in lines)
    assert any("generator.expected_batch_size" in line for line in lines)


def test_a_step_of_mostly_noise_is_advised_to_train_fewer_parameters(one: LevelReport) -> None:
    assert one.signal_to_noise is not None
    large = report_level(one.plan, num_parameters=10**8, num_units=1000)
    (line,) = (
        line for line in advice([large], budget_epsilon=8, num_units=None, num_parameters=10**8) if "1.2" in line
    )
    room = int(line.split("adapter to ")[1].split()[0])
    followed = report_level(one.plan, num_parameters=room, num_units=1000)
    assert followed.signal_to_noise == pytest.approx(planner.LEAST_SIGNAL_TO_NOISE, rel=0.01)


def test_a_level_without_noise_is_reported_as_unbounded_and_gets_no_suggestion() -> None:
    plan = small_plan("no-dp")
    report = report_level(plan, num_parameters=PARAMETERS, num_units=1000)
    form = json.loads(json.dumps(report.to_json()))
    assert (form["epsilon"], form["replace_one_epsilon"], form["signal_to_noise"]) == (None, None, None)
    assert set(form["true_positive_rates"].values()) == {1.0}
    assert advice([report], budget_epsilon=8.0, num_units=1000, num_parameters=PARAMETERS) == ()
    with pytest.raises(ValueError, match="noise"):
        suggest(plan, num_units=1000, num_parameters=None)


def test_no_units_are_refused() -> None:
    with pytest.raises(ValueError, match="num_units"):
        suggest(small_plan(), num_units=0, num_parameters=None)


@pytest.mark.parametrize("num_units", [15, 120, 1000])
def test_advice_on_the_signal_names_one_step_with_the_numbers_of_the_suggestion(num_units: int) -> None:
    report = report_level(small_plan("eps-1"), num_parameters=PARAMETERS, num_units=num_units)
    suggestion = suggest(report.plan, num_units=num_units, num_parameters=PARAMETERS)
    stated = {"budget_epsilon": 8.0, "num_units": num_units, "num_parameters": PARAMETERS}
    lines = [line for line in advice([report], suggestions=[suggestion], **stated) if "signal" in line]
    assert report.signal_to_noise is not None
    assert report.signal_to_noise < 0.3
    if suggestion.too_small:
        assert lines == []  # the suggestion says what to do
    else:
        (line,) = lines
        assert line.count("parameters") == int(suggestion.most_parameters < PARAMETERS)
        assert "take the suggested" in line
        assert "shrink" not in line


def test_advice_on_the_bins_names_the_number_that_is_suggested() -> None:
    report = report_level(small_plan(num_bins=200), num_parameters=None, num_units=60)
    suggestion = suggest(report.plan, num_units=60, num_parameters=None)
    lines = advice([report], budget_epsilon=8.0, num_units=60, num_parameters=None, suggestions=[suggestion])
    assert any(line.endswith(f"lower votes.num_bins to {suggestion.num_bins}") for line in lines)
