"""Runs on a GPU: whose time a row shows under async scheduling, and how well such runs are predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from driftsim import read
from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.launches import MOST_TOGETHER, together
from driftsim.calibration.runs import Run
from driftsim.latency.noise import Noise
from driftsim.latency.profile import Profile
from driftsim.simulation.run import Simulation, simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.steps import step_ends
from driftsim.trace.trace import Trace
from driftsim.validation.validation import on_measured_steps
from driftsim.workloads.replay import as_recorded
from driftsim.workloads.unfinished import caveats
from experiments import gpu
from tests.strategies import engine, workload

PREFIX = gpu.TRACES / "qwen1.8b-h200-prefixes"
INTERCEPT, STEP, TOKEN, CONTEXT = 0.002, 0.010, 2e-6, 6e-8


def as_launched(steps: pd.DataFrame) -> pd.DataFrame:
    """``steps`` with the prefill of each step in the row of the step before, where that was not over as it began."""
    ahead = np.append(steps["start_s"].to_numpy()[1:] < step_ends(steps)[:-1], False)
    moved = {}
    for name in ("prefill_tokens", "prefill_requests", "prefill_attention"):
        own = steps[name].to_numpy()
        stays = np.where(np.append(False, ahead[:-1]), 0, own)
        moved[name] = stays + np.where(ahead, np.append(own[1:], 0), 0)
    return steps.assign(**moved)


def made(trace: Trace, *, ahead: bool, asynchronous: bool = True) -> Trace:
    """``trace`` with the durations of a known model: a prefill's in the row of the step before, or in its own."""
    assert trace.steps is not None
    steps = trace.steps
    rows = as_launched(steps) if ahead else steps
    prefill = rows["prefill_tokens"].to_numpy()
    noise = np.random.default_rng(0).normal(1.0, 0.03, len(steps))
    lasted = INTERCEPT + STEP * (prefill > 0) + TOKEN * prefill + CONTEXT * rows["context_tokens"].to_numpy()
    header = trace.header.changed(engine=trace.header.engine.changed(async_scheduling=asynchronous))
    starts = steps["start_s"].to_numpy()
    if not ahead and not asynchronous:
        starts = np.append(0.0, np.cumsum(lasted * noise)[:-1])
    return Trace(header, trace.requests, steps.assign(duration_s=lasted * noise, start_s=starts))


@pytest.fixture(scope="module")
def loaded() -> Trace:
    return read(gpu.TRACES / "qwen1.8b-h200-load-0.95")


@pytest.mark.parametrize("ahead", [True, False])
def test_the_coefficients_come_back_wherever_a_prefills_time_shows(ahead: bool, loaded: Trace) -> None:
    profile = calibrate([Run("t", made(loaded, ahead=ahead))])
    assert profile.intercept_s == pytest.approx(INTERCEPT, rel=0.02)
    assert profile.prefill_step_s == pytest.approx(STEP, rel=0.05)
    assert profile.prefill_token_s == pytest.approx(TOKEN, rel=0.25)
    assert profile.context_token_s == pytest.approx(CONTEXT, rel=0.05)
    assert profile.fit is not None
    assert profile.fit.mean_absolute_percentage_error < 0.035


def test_without_async_scheduling_every_step_stands_for_itself(loaded: Trace) -> None:
    trace = made(loaded, ahead=False, asynchronous=False)
    assert trace.steps is not None
    starts = trace.steps["start_s"].to_numpy()
    assert (starts[1:] >= step_ends(trace.steps)[:-1] - 1e-12).all()
    profile = calibrate([Run("t", trace)])
    assert profile.prefill_step_s == pytest.approx(STEP, rel=0.05)


def test_prefills_stand_with_the_steps_that_they_were_launched_in(loaded: Trace) -> None:
    assert loaded.steps is not None
    steps, group = loaded.steps, together(loaded.steps)
    first = np.diff(group, prepend=-1) > 0
    prefills = steps["prefill_tokens"].to_numpy() > 0
    assert prefills[~first].all()
    begun = np.append(False, steps["start_s"].to_numpy()[1:] < step_ends(steps)[:-1])
    assert begun[~first].all()
    sizes = np.bincount(group)
    assert sizes.max() <= MOST_TOGETHER
    assert 1 <= (prefills & first).sum() < 20  # of some 200: the others were launched ahead


LAUNCH = 0.020


def launched(trace: Trace, launch: float) -> Trace:
    """``trace`` simulated, steps and all, by a profile whose prefills keep the host launching."""
    profile = Profile.plain(intercept_s=0.005, prefill_token_s=2e-5, context_token_s=4e-8).changed(
        engine=trace.header.engine, launch_s=launch, graph_tokens=128, noise=Noise(spread=0.02, autocorrelation=0.3)
    )
    scenario = Scenario(profile=profile, policy="stock", seed=1)
    return Simulation(scenario, as_recorded(trace), True).run()


def test_a_long_chain_of_prefills_is_cut() -> None:
    count = 2 * MOST_TOGETHER + 3
    steps = pd.DataFrame({"start_s": np.arange(count) * 1.0, "duration_s": 1.5, "prefill_tokens": 9})
    assert np.bincount(together(steps)).tolist() == [MOST_TOGETHER, MOST_TOGETHER, 3]


def test_the_launch_comes_back_from_runs_that_have_it() -> None:
    trace = read(gpu.TRACES / "llama8b-h200-sessions-10")
    run = launched(trace, LAUNCH)
    profile = calibrate([Run("t", run)])
    assert profile.graph_tokens == 128
    assert profile.launch_s == pytest.approx(LAUNCH, rel=0.05)
    assert profile.intercept_s == pytest.approx(0.005, rel=0.02)
    assert profile.prefill_token_s == pytest.approx(2e-5, rel=0.10)
    without = calibrate([Run("t", launched(trace, 0.0))])
    assert without.launch_s == 0.0


def test_an_engine_without_graphs_is_not_asked_for_launches() -> None:
    with_graphs, without = (read(gpu.TRACES / f"{name}-backlog") for name in ("qwen1.8b-h200", "smollm2-cpu"))
    tried = []
    for trace in (with_graphs, without):
        fit = calibrate([Run("t", trace)]).fit
        assert fit is not None
        tried.append("linear + launch by the host" in fit.considered)
    assert tried == [True, False]


def test_a_launch_keeps_the_host_from_handing_out_the_tokens_before() -> None:
    """The first of two decodes; the second's prefill is launched from 0.010 to 0.040, while a step of 0.010 runs."""
    made = workload([0.0, 0.001], [9, 2], prompt_tokens=[4, 20], max_tokens=[9, 2])
    profile = Profile.plain(intercept_s=0.010).changed(
        engine=engine(async_scheduling=True), launch_s=0.030, graph_tokens=8
    )
    rows = simulate(Scenario(profile=profile, policy="stock"), made).requests
    # Steps: 0-10 the prefill of the first, a graph; 10-20 a decode, scheduled at 0 already; then the launch.
    assert rows["scheduled_s"].tolist() == pytest.approx([0.0, 0.010])
    assert rows["first_token_s"].tolist() == pytest.approx([0.010, 0.040])
    assert rows["finish_s"][1] == pytest.approx(0.050)
    quick = simulate(Scenario(profile=profile.changed(launch_s=0.0), policy="stock"), made).requests
    assert quick["first_token_s"].tolist() == pytest.approx([0.010, 0.030])
    assert rows["finish_s"][0] - quick["finish_s"][0] == pytest.approx(0.010)


def test_what_a_server_with_sessions_and_a_cache_decided_is_decided_again() -> None:
    for load in gpu.SESSIONS:
        run = on_measured_steps("t", read(gpu.TRACES / load))
        assert run.steps_alike == 1.0
        assert run.exceptions is not None
        assert run.exceptions.empty


def test_a_step_lasts_from_the_end_of_the_one_before() -> None:
    steps = pd.DataFrame({"start_s": [0.0, 0.5, 1.0, 9.0], "duration_s": [2.0, 1.0, 1.0, 0.5]})
    assert step_ends(steps).tolist() == [2.0, 3.0, 4.0, 9.5]
    assert step_ends(steps.head(0)).tolist() == []


def test_a_load_that_was_not_fitted_is_predicted() -> None:
    profile = gpu.fitted()
    assert profile.fit is not None
    assert profile.fit.mean_absolute_percentage_error < 0.06
    assert profile.prefill_step_s > profile.intercept_s
    found = {(row["run"], row["metric"], row["stat"]): row for row in gpu.held_out(profile).to_dict("records")}
    assert abs(found["80 % load", "e2e", "mean"]["error"]) < 0.05
    assert abs(found["80 % load", "makespan", "mean"]["error"]) < 0.02
    stored = pd.read_csv(gpu.STORED / "held_out.csv")
    assert stored["error"].tolist() == pytest.approx([row["error"] for row in found.values()], abs=1e-9)


def test_lengths_that_were_forced_were_limits_to_the_engine(loaded: Trace) -> None:
    """Told as ends of its own, each costs the engine a step in vain, which the recorded one did not make."""
    free = loaded.header.changed(engine_arguments={**loaded.header.engine_arguments, "force_lengths": False})
    alike = on_measured_steps("t", Trace(free, loaded.requests, loaded.steps)).steps_alike
    assert alike is not None
    assert alike < 0.99
    assert on_measured_steps("t", loaded).steps_alike == 1.0


def test_preemptions_that_the_engine_told_of_nobody_are_said() -> None:
    gpu_run, cpu_run = (read(gpu.TRACES / f"{name}-small-kv") for name in ("qwen1.8b-h200", "smollm2-cpu"))
    assert gpu_run.steps is not None
    said = f"its steps tell of {gpu_run.steps['preempted'].sum()} preemptions and its requests of none"
    assert any(one.startswith(said) for one in caveats(gpu_run))
    assert cpu_run.requests["preemptions"].sum() > 0
    assert not any("preemptions" in one for one in caveats(cpu_run))


def test_what_a_real_cache_found_is_found_again_token_by_token() -> None:
    trace = read(PREFIX)
    rows = trace.requests
    assert rows["cached_tokens"].sum() > 90_000
    assert (rows["cached_tokens"] <= rows["prefix_tokens"].fillna(0)).all()
    run = on_measured_steps("t", trace)
    assert run.steps_alike == 1.0
    assert run.exceptions is not None
    assert run.exceptions.empty
    assert run.simulated.requests["cached_tokens"].tolist() == rows["cached_tokens"].tolist()

    apart = Trace(trace.header, rows.drop(columns=["prefix_row", "prefix_tokens", "cached_tokens"]), trace.steps)
    alike = on_measured_steps("t", apart).steps_alike
    assert alike is not None
    assert alike < 0.1  # the power of what is above
