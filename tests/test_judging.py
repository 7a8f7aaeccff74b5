"""Repeats of a run: error and noise floor of the level, whether changes are those measured, effects and ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.runs import Run
from driftsim.contrasts import Contrast
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.statistics import Interval
from driftsim.trace.schema import LIFE_TIMES
from driftsim.trace.trace import Trace, read
from driftsim.validation.agreement import (
    EFFECTS,
    PolicyEffect,
    change_agreement,
    metric_agreement,
    policy_effects,
    rank_agreement,
    repeats,
)
from driftsim.validation.equivalence import MARGIN, Judgement, Verdict, change_differences, judge
from driftsim.validation.result import ValidationResult
from driftsim.validation.validation import Validation, on_model_steps
from tests.conftest import ROOT
from tests.strategies import engine, profile, workload

SPEEDS = (0.95, 1.0, 1.02, 1.07)


def run(policy: str, speed: float = 1.0) -> Trace:
    """A backlog of very different lengths on one slot, every step ``speed`` times 10 ms."""
    lengths = [40, 5, 30, 3, 20, 2]
    made = workload([0.0] * 6, lengths, predicted_category=["report"] + ["short_qa"] * 5)
    return simulate(Scenario(profile=profile(engine(max_num_seqs=1), intercept_s=0.01 * speed), policy=policy), made)


def validations(policy: str, off: float = 1.0) -> list[Validation]:
    """Repeats of one run whose speed varies, each beside a simulation ``off`` times as slow as the middle."""
    middle = float(np.exp(np.mean(np.log(SPEEDS))))
    simulated = run(policy, off * middle)
    return [Validation(f"{policy}-{turn}", run(policy, speed), simulated) for turn, speed in enumerate(SPEEDS)]


def test_repeats_are_recognised_and_another_policy_is_no_repeat() -> None:
    found = repeats([*validations("fifo"), *validations("sjf")])
    assert {name: len(group) for name, group in found.items()} == {"fifo": 4, "sjf": 4}


def test_the_level_has_its_error_and_its_noise_floor_and_no_verdict() -> None:
    found = {(cell.metric, cell.stat): cell for cell in metric_agreement(validations("fifo", 1.03))}
    assert found["e2e", "mean"].spread == pytest.approx(np.log(SPEEDS).std(ddof=1), rel=1e-6)
    assert found["e2e", "mean"].error == pytest.approx(0.03, rel=1e-6)
    assert not {"p", "width", "within"} & {name for name in dir(found["e2e", "mean"]) if name[0] != "_"}


def normal(seed: int, sd: float, rounds: int, **offsets: float) -> dict[str, np.ndarray]:
    """Logs of simulated over measured, round by round: noise of standard deviation ``sd`` around each offset."""
    draw = np.random.default_rng(seed)
    return {policy: draw.normal(offset, sd, rounds) for policy, offset in offsets.items()}


def shares(sd: float, rounds: int, off: float, *, adjusted: bool, draws: int = 200) -> dict[str, float]:
    """How often a change that is simulated with an error of ``off``, a log, gets each verdict, among three policies."""
    speeds = {policy: np.linspace(-0.2, 0.2, rounds) for policy in ("fifo", "sjf", "aging")}
    counts = dict.fromkeys(get_args(Verdict), 0)
    for seed in range(draws):
        errors = normal(seed, sd, rounds, fifo=0.3, sjf=0.3 + off, aging=0.0)
        found = change_differences(errors, speeds if adjusted else None)["sjf"]
        counts[found.judgement.verdict] += 1
    return {verdict: count / draws for verdict, count in counts.items()}


@pytest.mark.parametrize("adjusted", [False, True])
def test_each_claim_is_false_in_five_in_a_hundred_at_the_margin(adjusted: bool) -> None:
    slack = 3 * math.sqrt(0.05 * 0.95 / 1500)  # three standard errors of a Monte Carlo share
    found = shares(0.02, 5, MARGIN, adjusted=adjusted, draws=1500)
    assert abs(found["equivalent"] - 0.05) < slack
    assert abs(found["different"] - 0.05) < slack


def test_no_difference_is_found_equivalent_where_the_noise_allows_and_undetermined_where_not() -> None:
    assert shares(0.02, 5, 0.0, adjusted=True)["equivalent"] > 0.99
    noisy = shares(0.13, 5, 0.0, adjusted=True)
    assert noisy["equivalent"] < 0.05
    assert noisy["undetermined"] > 0.9


def test_a_planted_factor_fails_where_there_is_little_noise() -> None:
    for factor in (1.3, 1 / 1.3):
        assert shares(0.01, 5, math.log(factor), adjusted=False)["different"] == 1
        assert shares(0.13, 5, math.log(factor), adjusted=False)["equivalent"] == 0


def test_a_factor_that_all_policies_share_is_no_matter_of_the_change_but_of_the_level() -> None:
    right, wrong = ({policy: validations(policy, off) for policy in ("fifo", "sjf")} for off in (1.0, 1.3))
    for one, other in zip(change_agreement(right)[0], change_agreement(wrong)[0], strict=True):
        assert one.difference.paired == pytest.approx(other.difference.paired, abs=1e-9)
    level = {(one.name, one.metric, one.stat): one.error for one in metric_agreement(wrong["fifo"] + wrong["sjf"])}
    assert level["sjf", "e2e", "mean"] == pytest.approx(0.3, rel=1e-6)


def test_the_rounds_that_are_asked_for_would_decide() -> None:
    found = change_differences(normal(3, 0.13, 5, fifo=0.0, sjf=0.02))["sjf"].judgement
    assert found.verdict == "undetermined"
    assert f"about {found.more} more rounds would tell" in found.reason
    sd, error = 0.1, 0.1 * math.sqrt(2 / 5)  # of a run; of the change of five rounds
    enough = 5 + judge(Contrast(0.0, error, 4), 5).more
    decided = shares(sd, enough, 0.0, adjusted=False, draws=400)["equivalent"]
    assert 0.55 < decided < 0.9  # 0.8 on one side of the margin, and both have to be passed
    assert shares(sd, 5, 0.0, adjusted=False, draws=400)["equivalent"] < decided - 0.3
    assert judge(Contrast(MARGIN, 0.05, 4), 5).more == 0
    assert "near the margin" in judge(Contrast(MARGIN, 0.05, 4), 5).reason
    assert judge(Contrast(0.0, math.nan, 0), 1) == Judgement("undetermined", "an interval needs at least 2 rounds")


def test_a_change_that_differs_by_less_than_can_be_told_from_the_margin_is_said_to_differ() -> None:
    assert (
        "the changes differ; whether by more than a factor of 1.10 cannot be told"
        in judge(Contrast(0.09, 0.03, 30), 5).reason
    )


@pytest.fixture(scope="module")
def shipped_validations() -> dict[str, list[Validation]]:
    """The shipped repeats of FIFO and SJF, simulated with a profile of them all."""
    folder = ROOT / "traces" / "smollm2-cpu-policies"
    runs = {f"{policy}-{turn}": read(folder / f"{policy}-{turn}") for turn in range(1, 6) for policy in ("fifo", "sjf")}
    fitted = calibrate([Run(name, trace) for name, trace in runs.items()])
    return repeats([on_model_steps(name, trace, fitted) for name, trace in runs.items()])


@pytest.mark.parametrize("factor", [1.3, 1 / 1.3])
def test_a_planted_factor_in_one_policy_is_never_called_equivalent_on_the_shipped_runs(
    shipped_validations: dict[str, list[Validation]], factor: float
) -> None:
    planted = shipped_validations | {"sjf": [slowed(one, factor) for one in shipped_validations["sjf"]]}
    found, why = change_agreement(planted)
    assert not why
    own = [one for one in found if one.policy == "sjf"]
    assert len(own) == len(EFFECTS)
    for one in own:
        assert one.difference.judgement.verdict != "equivalent", one
        assert one.difference.as_measured.verdict != "equivalent", one
        assert (one.difference.judgement.verdict == "different") or one.difference.judgement.reason
    assert any(one.difference.judgement.verdict == "different" for one in own)


def slowed(validation: Validation, factor: float) -> Validation:
    """The same, every simulated time ``factor`` times as long."""
    table = validation.simulated.requests.copy()
    for name in LIFE_TIMES:
        table[name] = table[name] * factor
    return replace(validation, simulated=replace(validation.simulated, requests=table))


def test_validate_prints_the_level_without_a_verdict_and_judges_the_change() -> None:
    result = ValidationResult([*validations("fifo"), *validations("sjf", 1.3)], "p", None)
    text, document = " ".join(str(result).split()), result.document()
    assert "no verdict" in text
    assert "Of 6 changes 0 are equivalent, 6 different, 0 undetermined, at a margin of a factor of 1.10" in text
    assert "not adjusted for the speed of the host: fifo-0 has no steps table" in text
    assert {"error", "spread"} <= document["repeats"][0].keys()
    assert not {"within", "p", "width"} & document["repeats"][0].keys()
    assert {row["verdict"] for row in document["changes"]} == {"different"}
    alone = ValidationResult(validations("sjf"), "p", None)  # no FIFO, no change
    assert alone.changes == []
    assert "Change against" not in str(alone)


def test_effects_and_ranks_agree_where_the_simulation_is_right_and_not_where_it_is_wrong() -> None:
    rounds = {policy: validations(policy) for policy in ("fifo", "sjf")}
    noisy = {policy: [run(policy, speed) for speed in SPEEDS] for policy in rounds}
    found = {(change.metric, change.stat): change for change in policy_effects(rounds, noisy)}
    change = found["e2e", "mean"]
    assert change.agrees is True
    assert change.measured[0] == pytest.approx(change.simulated[0], rel=1e-6)
    assert change.measured[0] < -0.2
    order = {(one.metric, one.stat): one for one in rank_agreement(rounds)}
    assert (order["e2e", "mean"].concordant, order["e2e", "mean"].tau) == (1, 1.0)
    swapped = {
        policy: [replace(one, simulated=rounds[other][0].simulated) for one in rounds[policy]]
        for policy, other in (("fifo", "sjf"), ("sjf", "fifo"))
    }
    assert next(one for one in rank_agreement(swapped) if (one.metric, one.stat) == ("e2e", "mean")).tau == -1.0


def test_signs_are_compared_only_where_both_changes_exclude_zero() -> None:
    clear, doubtful = Interval(0.1, 0.05, 0.15), Interval(0.006, -0.15, 0.19)
    for measured, simulated, agrees in (
        (clear, clear, True),
        (clear, Interval(-0.1, -0.15, -0.05), False),
        (clear, doubtful, None),
        (doubtful, clear, None),
    ):
        assert PolicyEffect("priority", "e2e", "mean", measured, simulated).agrees is agrees


def test_a_difference_inside_the_noise_is_a_tie() -> None:
    rounds = {"fifo": validations("fifo"), "again": list(reversed(validations("fifo")))}
    assert all((one.concordant, one.discordant, one.ties) == (0, 0, 1) for one in rank_agreement(rounds))
    assert math.isnan(rank_agreement(rounds)[0].tau)
