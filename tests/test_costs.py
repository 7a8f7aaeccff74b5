"""Energy and money, against hand-made truths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import driftsim as ds
from driftsim.costs import Costs, cost_summary, recorded_costs
from driftsim.errors import InputError
from driftsim.metric import COSTS
from driftsim.simulation.replicas import Replicas
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace, read
from tests.strategies import engine, profile, workload

WHOLE = Costs(idle_watts=100.0, busy_watts=300.0, price_per_hour=3.6)


def run(**asked: Any) -> Trace:
    """Two requests of 10 and 20 tokens at 0 and 0.5 s, with steps of 10 ms."""
    made = profile(engine(max_num_seqs=4), intercept_s=0.01)
    return simulate(Scenario(profile=made, refill_lag=False, **asked), workload([0.0, 0.5], [10, 20]))


def test_busy_time_counts_overlaps_once_and_the_rest_is_idle() -> None:
    row = cost_summary(run(), WHOLE)
    assert row["busy_s"] == pytest.approx(0.1 + 0.2)
    assert row["busy_share"] == pytest.approx(0.3 / 0.7)
    assert row["energy_j"] == pytest.approx(300 * 0.3 + 100 * 0.4)
    assert row["energy_per_kilotoken_j"] == pytest.approx(row["energy_j"] / 0.03)
    assert row["money"] == pytest.approx(0.001 * 0.7)
    assert row["money_per_kilotoken"] == pytest.approx(0.0007 / 0.03)
    assert "energy_per_good_request_j" not in row
    both = simulate(Scenario(profile=profile(engine(), intercept_s=0.01)), workload([0.0, 0.0], [10, 20]))
    assert cost_summary(both, WHOLE)["busy_s"] == pytest.approx(0.2)


def test_a_request_within_its_slo_pays_for_those_that_missed_theirs() -> None:
    row = cost_summary(run(), WHOLE, slos="e2e=150ms")
    assert row["energy_per_good_request_j"] == pytest.approx(row["energy_j"])
    assert pd.isna(cost_summary(run(), WHOLE, slos="e2e=1ms")["money_per_good_request"])


def test_replicas_are_paid_for_each() -> None:
    row = cost_summary(run(replicas=Replicas(count=3)), WHOLE)
    assert row["busy_s"] == pytest.approx(0.3)
    assert row["energy_j"] == pytest.approx(300 * 0.3 + 100 * (3 * 0.7 - 0.3))
    assert row["money"] == pytest.approx(3 * 0.0007)


def test_the_power_of_a_recorded_run_is_that_of_samples_wholly_busy_or_idle() -> None:
    trace = run()
    times = [0.0, 0.05, 0.09, 0.2, 0.3, 0.4, 0.55, 0.6, 0.65]
    watts = [0.0, 310.0, 290.0, 200.0, 90.0, 110.0, 250.0, 300.0, 300.0]  # those over a change of state do not count
    samples = pd.DataFrame({"time_s": times, "gpu_power_w": watts})
    assert recorded_costs(replace(trace, telemetry=samples)) == Costs(busy_watts=300.0, idle_watts=100.0)
    assert recorded_costs(replace(trace, telemetry=samples.drop(columns="gpu_power_w"))) == Costs()
    assert recorded_costs(trace) == Costs()


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert cost_summary(run(), Costs()) == {}
    assert cost_summary(run(), Costs(idle_watts=50.0)) == {}
    assert set(cost_summary(run(), WHOLE, slos="e2e=1s")) == {metric.name for metric in COSTS}
    with pytest.raises(InputError, match="busy_watts"):
        Costs(busy_watts=-1.0)


def test_a_power_that_cannot_be_beside_the_other_is_refused() -> None:
    assert Costs(busy_watts=200.0).over(WHOLE) == Costs(idle_watts=100.0, busy_watts=200.0, price_per_hour=3.6)
    assert Costs(idle_watts=300.0).over(WHOLE).idle_watts == 300.0
    for given, known in ((Costs(idle_watts=301.0), WHOLE), (Costs(busy_watts=99.0), WHOLE)):
        with pytest.raises(InputError, match="is above busy_watts"):
            given.over(known)
    with pytest.raises(InputError, match="says nothing alone"):
        Costs(idle_watts=5.0).over(Costs(price_per_hour=1.0))
    odd = Costs(idle_watts=300.0, busy_watts=100.0)  # as telemetry may have it
    assert Costs(price_per_hour=1.0).over(odd) == odd.changed(price_per_hour=1.0)


def test_a_comparison_takes_the_power_that_a_gpu_recorded() -> None:
    trace = read(Path("traces/qwen1.8b-h200-load-0.5"))
    power = recorded_costs(trace)
    assert power.busy_watts is not None
    assert 70 < power.busy_watts < 700  # of an H200, whose limit is 700 W
    result = ds.compare(trace, policies=["fifo"], estimators=["static"], replications=1, jobs=1)
    [row] = result.rows()
    recorded = cost_summary(trace, power)
    assert row["energy_per_kilotoken_j"] == pytest.approx(recorded["energy_per_kilotoken_j"], rel=0.05)
