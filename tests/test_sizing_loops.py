"""The capacity of what waits for answers: drains between phases, capped loops, sessions, and a barrier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import driftsim as ds
from driftsim.planning import capacity
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.sizing.answers import Answer
from driftsim.trace.header import Phase
from driftsim.trace.trace import Trace
from tests.commands import driftsim
from tests.strategies import engine, profile, workload
from tests.test_sizing import by_definition

SMALL = profile(engine(max_num_seqs=2))
WHOLE: dict[str, Any] = {"warm_up": 0.0, "cool_down": 0.0, "replications": 1, "jobs": 1, "tolerance": 0.1}
PHASES = {
    "drain": (Phase(name="one", requests=30), Phase(name="two", kind="after-drain", requests=30, pause_s=1.0)),
    "capped": (Phase(name="one", kind="capped", requests=60, users=3),),
    "closed": (Phase(name="one", kind="closed", requests=60, users=3, think_s=0.2),),
    "sessions": (Phase(name="one", kind="sessions", requests=60),),
    "open": (Phase(name="one", requests=60),),
}


def recorded(kind: str) -> Trace:
    """A run of 60 requests; of sessions, 20 of three turns."""
    random, phases = np.random.default_rng(0), PHASES[kind]
    gaps = np.concatenate([np.cumsum(random.exponential(0.4, phase.requests)) for phase in phases])
    more: dict[str, Any] = {}
    if kind == "sessions":
        first = np.arange(60) % 3 == 0
        more = {
            "session": [f"s{row // 3}" for row in range(60)],
            "parent": [[] if one else [row - 1] for row, one in enumerate(first)],
            "gap_s": np.where(first, 0.0, 0.3),
        }
        gaps = np.where(first, gaps, 0.0)
    if kind == "closed":
        gaps[:] = 0.0
    made = workload(gaps.tolist(), random.integers(5, 40, 60).tolist(), phases, **more)
    return simulate(Scenario(profile=SMALL), made, record_steps=True)


def by_brute_force(answer: Answer, trace: Trace, slo: str, **engine_of: Any) -> None:
    """Every load that was tried, simulated alone, holds or fails as the search says; its answer follows from these."""
    held = {}
    for one in answer.tried:
        run = ds.simulate(trace, profile=SMALL, rate_scale=one.load, **engine_of)
        share = ds.summary(run, slos=slo)["attainment"]
        assert share == pytest.approx(one.attained.value)
        held[one.load] = bool(share >= 0.9)
    assert by_definition(held) == answer.found.load


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        ("drain", "phase 'two' begins when all before it has left, at every load"),
        ("capped", "holds requests back while 3 are out"),
        ("sessions", "the load is the rate at which sessions begin"),
    ],
)
def test_the_capacity_of_what_waits_is_that_of_single_runs_and_says_what_is_kept(kind: str, kept: str) -> None:
    trace = recorded(kind)
    result = capacity(trace, SMALL, slos="e2e=500ms", target=0.9, **WHOLE)
    assert result.answers[0].state == "found"
    by_brute_force(result.answers[0], trace, "e2e=500ms")
    assert sum(kept in warning for warning in result.warnings()) == 1
    plain = capacity(recorded("open"), SMALL, slos="e2e=500ms", target=0.9, **WHOLE)
    assert not plain.sizing.axis.kept


def test_the_capacity_of_a_barrier_is_that_of_single_runs(tmp_path: Path) -> None:
    trace = recorded("open")
    trace.write(tmp_path / "t")
    SMALL.save(tmp_path / "p.json")
    file = tmp_path / "s.toml"
    file.write_text('trace = "t"\nprofile = "p.json"\nslos = ["e2e=2s"]\nbarrier = {}\n')
    result = capacity(file, target=0.9, **WHOLE)
    assert result.answers[0].state == "found"
    by_brute_force(result.answers[0], trace, "e2e=2s", engine="barrier")
    assert "a barrier has no steps of that kind" in result.answer()[0]
    run = driftsim("capacity", file, "--slo", "ttft=1s")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "the barrier's worker shows no token before the last; limit e2e alone" in run.stderr


def test_an_end_beyond_all_loads_is_open() -> None:
    """Two resamples of a kind say little: an end that no search would try is none."""
    trace = recorded("capped")
    result = capacity(trace, SMALL, slos="e2e=500ms", target=0.9, **WHOLE | {"replications": 3})
    answer = result.answers[0]
    _, low, high = answer.curve.interval()
    bounds = answer.found.bounds
    assert low < bounds.lowest or high > bounds.highest
    assert np.isnan(answer.interval.low) == (low < bounds.lowest)
    assert np.isnan(answer.interval.high) == (high > bounds.highest)


def test_a_recorded_closed_loop_has_no_rate_and_says_how_to_press_it(tmp_path: Path) -> None:
    recorded("closed").write(tmp_path / "t")
    SMALL.save(tmp_path / "p.json")
    words = ("capacity", tmp_path / "t", "--profile", tmp_path / "p.json", "--slo", "e2e=500ms", "--target", "0.9")
    refused = driftsim(*words)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "phase 'one' is closed and has no arrival rate to press" in refused.stderr
    assert "--arrivals closed" in refused.stderr
    asked = driftsim(*words, "--arrivals", "closed", "--replications", 2, "--jobs", 1)
    assert asked.returncode == 0, asked.stderr
    assert "users" in asked.stdout
