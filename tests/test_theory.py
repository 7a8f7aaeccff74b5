"""Queueing theory: what a batch of one must do, whatever the code looks like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace
from tests.strategies import engine, profile, workload

STEP_S = 0.010  # every request is a prefill that fits one step, then output - 1 decodes of the same duration
SERVER = profile(engine(max_num_seqs=1))


def serve(arrivals: np.ndarray, outputs: np.ndarray, policy: str = "fifo", estimator: str = "static") -> Trace:
    """A single server with batch 1."""
    scenario = Scenario(profile=SERVER, policy=policy, estimator=estimator)
    return simulate(scenario, workload(arrivals.tolist(), outputs.tolist(), max_tokens=500))


def waits(trace: Trace) -> np.ndarray:
    return (trace.requests["scheduled_s"] - trace.requests["arrival_s"]).to_numpy()


def test_waiting_time_matches_m_d_1() -> None:
    load = 0.7
    arrivals = np.cumsum(np.random.default_rng(1).exponential(STEP_S / load, 150_000))
    trace = serve(arrivals, np.ones(len(arrivals), dtype=int))
    theory = load * STEP_S / (2 * (1 - load))  # Pollaczek-Khinchine, constant service
    assert waits(trace).mean() == pytest.approx(theory, rel=0.03)


def test_waiting_time_matches_m_m_1_in_steps() -> None:
    # Service is a geometric number of steps, the discrete likeness of an exponential: E[S] = 1/p, var = (1-p)/p^2.
    load, p = 0.6, 0.2
    random = np.random.default_rng(2)
    outputs = random.geometric(p, 40_000)
    rate = load / (STEP_S / p)
    arrivals = np.cumsum(random.exponential(1 / rate, len(outputs)))
    second_moment = STEP_S**2 * ((1 - p) / p**2 + 1 / p**2)
    theory = rate * second_moment / (2 * (1 - load))  # Pollaczek-Khinchine
    assert waits(serve(arrivals, outputs)).mean() == pytest.approx(theory, rel=0.06)


def test_littles_law_holds_on_every_path() -> None:
    random = np.random.default_rng(3)
    outputs = random.integers(1, 30, 500)
    requests = serve(np.cumsum(random.exponential(0.12, 500)), outputs).requests
    start, end = requests["arrival_s"].min(), requests["finish_s"].max()
    moments = np.sort(np.concatenate([requests["arrival_s"], requests["finish_s"]]))
    inside = [(requests["arrival_s"] <= t).sum() - (requests["finish_s"] <= t).sum() for t in moments[:-1]]
    mean_inside = (np.diff(moments) * inside).sum() / (end - start)
    rate = len(requests) / (end - start)
    assert mean_inside == pytest.approx(rate * (requests["finish_s"] - requests["arrival_s"]).mean())


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.05, 0.3]), st.integers(1, 60)), min_size=1, max_size=30))
def test_sjf_with_an_oracle_never_waits_longer_than_fifo_on_a_single_server(jobs: list[tuple[float, int]]) -> None:
    arrivals = np.cumsum([gap for gap, _ in jobs])
    outputs = np.array([output for _, output in jobs])
    shortest = waits(serve(arrivals, outputs, "sjf", "oracle")).mean()
    assert shortest <= waits(serve(arrivals, outputs)).mean() + 1e-9
