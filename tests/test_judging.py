"""Repeats of a run: the noise floor, the prediction interval of a further run, effects and ranks of policies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.statistics import holm, two_sided_p
from driftsim.trace.trace import Trace
from driftsim.validation.agreement import (
    metric_agreement,
    policy_effects,
    rank_agreement,
    repeats,
)
from driftsim.validation.validation import Validation
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


def test_the_interval_is_that_of_one_further_run() -> None:
    cell = next(
        cell for cell in metric_agreement(validations("fifo", 1.03)) if (cell.metric, cell.stat) == ("e2e", "mean")
    )
    logs = np.log(SPEEDS)
    error = logs.std(ddof=1) * math.sqrt(1 + 1 / len(SPEEDS))
    assert cell.spread == pytest.approx(logs.std(ddof=1), rel=1e-6)
    assert cell.error == pytest.approx(0.03, rel=1e-6)
    assert cell.width == pytest.approx(math.exp(2 * student.ppf(0.975, 3) * error), rel=1e-6)
    assert cell.within


def test_a_simulation_that_is_far_off_is_not_taken_for_a_further_run() -> None:
    assert all(cell.within for cell in metric_agreement(validations("fifo")))
    assert not any(cell.within for cell in metric_agreement(validations("fifo", 5.0)))


def test_p_values_are_adjusted_over_all_cells() -> None:
    assert holm([0.03, 0.01, 0.5]) == pytest.approx([0.06, 0.03, 0.5])  # by hand
    found = metric_agreement(validations("fifo", 1.2))
    one = next(cell for cell in found if (cell.metric, cell.stat) == ("e2e", "mean"))
    logs = np.log(SPEEDS)
    alone = two_sided_p(math.log(1.2) / (logs.std(ddof=1) * math.sqrt(1 + 1 / len(SPEEDS))), len(SPEEDS) - 1)
    assert one.p > alone > 0


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


def test_a_difference_inside_the_noise_is_a_tie() -> None:
    rounds = {"fifo": validations("fifo"), "again": list(reversed(validations("fifo")))}
    assert all((one.concordant, one.discordant, one.ties) == (0, 0, 1) for one in rank_agreement(rounds))
    assert math.isnan(rank_agreement(rounds)[0].tau)
