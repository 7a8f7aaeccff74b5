"""The rules of a run of a sweep: what is checked before it, and what of the trace, the SLOs and the engine is in it."""

from __future__ import annotations

from typing import Any

import pytest

from driftsim.errors import InputError
from driftsim.simulation.limits import limit_shares
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec
from driftsim.slo import slo_rules
from driftsim.sweeps.tasks import Inputs, _recorded_rate, plan, run_task, workload_name
from driftsim.trace.header import Phase
from driftsim.trace.subset import middle
from driftsim.trace.trace import Trace
from driftsim.workloads.generated import WorkloadSpec
from driftsim.workloads.processes import Process
from tests.strategies import engine, profile, workload

PROFILE = profile(engine(max_num_seqs=1))
OUTPUTS = [30, 3, 9, 4, 8, 2, 7, 5, 6, 12]


def recorded(phases: tuple[Phase, ...] = (), **header: Any) -> Trace:
    """Ten requests a tenth of a second apart, of which all but the first wait."""
    made = workload([0.1 * place for place in range(10)], OUTPUTS, phases)
    trace = simulate(Scenario(profile=PROFILE), made)
    return Trace(trace.header.changed(**header), trace.requests)


def spec(**more: Any) -> ScenarioSpec:
    return ScenarioSpec(**{"trace": "t", "profile": "p", "policy": "fifo", **more})


def row(trace: Trace, **more: Any) -> dict[str, Any]:
    [task], inputs = plan([spec(**more)], inputs=Inputs(given={"t": trace}, given_profile=PROFILE))
    found = run_task(task, inputs)
    assert not found["failed"], found["error"]
    return found


def test_the_slos_of_a_trace_serve_a_policy_that_goes_by_them() -> None:
    with pytest.raises(InputError, match="SLO"):
        row(recorded(), policy="edf")
    assert row(recorded(slos=slo_rules("e2e=1s")), policy="edf")["slos"] == "e2e=1s"
    with pytest.raises(InputError, match="limit e2e alone"):
        row(recorded(slos=slo_rules("ttft=1s")), barrier={})


def test_a_limit_of_nobody_is_refused() -> None:
    for name, rules in (("shed", ["gold:requests=5"]), ("clients", {"timeouts": ["gold:total=5s"]})):
        with pytest.raises(InputError, match="gold"):
            row(recorded(), **{name: rules})
    work = WorkloadSpec(kind="poisson", rate=1.0, requests=9, prompt_tokens=8, output_tokens=8)
    drawn = ScenarioSpec(workload=work, profile="p", slos=slo_rules("default:e2e=1s"))
    assert len(plan([drawn], inputs=Inputs(given_profile=PROFILE))[0]) == 1


def test_a_row_has_the_recorded_rate_unless_requests_arrive_otherwise() -> None:
    assert row(recorded())["recorded_rate"] == pytest.approx(10.0)
    arrivals = Process(kind="poisson", rate=1.0)
    assert "recorded_rate" not in row(recorded(), arrivals=arrivals)
    assert workload_name("d", spec()) != workload_name("d", spec(arrivals=arrivals))
    both = (Phase(name="one", requests=2), Phase(name="two", requests=8, kind="backlog"))
    assert _recorded_rate(recorded(both)) is None


def test_limits_are_of_all_that_wait_while_the_measured_ones_are_there() -> None:
    assert row(recorded(), cool_down=0.5)["offered"] == 5
    scenario, asked = Scenario(profile=PROFILE, policy="sjf", estimator="oracle"), {"warm_up": 0.5, "limits": True}
    long = workload([0.1 * place for place in range(10)], [30] * 5 + [2] * 5)  # those that are measured go before them
    run = simulate(scenario, long, record_steps=True)
    found, some = row(run, policy="sjf", estimator="oracle", **asked), middle(run, 0.5, 0.0)
    shares = limit_shares(run, scenario, some)
    assert {name: found[name] for name in shares} == pytest.approx(shares)
    assert shares["waiting_share"] > limit_shares(some, scenario, some)["waiting_share"]


def test_a_limit_of_the_gaps_between_tokens_is_judged() -> None:
    assert row(recorded(), slos=["itl=1s"])["attainment"] == 1.0


def test_errors_are_of_those_that_taught_no_base() -> None:
    taught, scored = [1, 60, 1, 60, 9], [9] * 5
    made = workload([float(place) for place in range(10)], taught + scored, predicted_category="poetry")
    found = row(simulate(Scenario(profile=PROFILE), made), admission={"base_fit_n": 5}, estimation=True)
    assert found["scored"] == 5
    assert found["log_error"] == pytest.approx(abs(found["log_bias"]))  # all five are as long


def test_a_warning_of_a_profile_is_told_with_the_profile() -> None:
    inputs = Inputs(given={"t": recorded()}, given_profile=PROFILE.changed(warnings=("a rough fit",)))
    [task], _ = plan([spec()], inputs=inputs)
    assert "a rough fit" in inputs.cautions_of(task)
    assert not any("a rough fit" in text for text in inputs.warnings)
