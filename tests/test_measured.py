"""Measured policy effects: paired by round, with their spread, and only between runs that can be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from driftsim.comparison.captured import compare_captured
from driftsim.errors import TraceError
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.schema import LIFE_TIMES
from driftsim.trace.trace import Trace
from tests.commands import driftsim
from tests.strategies import engine, profile, workload

FACTORS = {"fifo": (1.0, 1.3, 0.9), "sjf": (0.8, 1.04, 0.72)}  # sjf takes 20 % off, whatever the machine does


def captured(policy: str, turn: int, factor: float, outputs: tuple[int, ...] = (5, 9, 2, 7)) -> Trace:
    """A run of ``policy``, on a machine that is slower by ``factor``."""
    made = workload([0.0] * len(outputs), list(outputs))
    trace = simulate(Scenario(profile=profile(engine(max_num_seqs=1))), made)
    table = trace.requests.copy()
    for name in LIFE_TIMES:
        table[name] = table[name] * factor
    header = trace.header.changed(
        kind="captured",
        captured_at=f"2026-01-01T00:0{turn}:00Z",
        admission=trace.header.admission | {"policy": policy},
    )
    return Trace(header, table)


@pytest.fixture
def runs() -> list[tuple[str, Trace]]:
    return [
        (f"{policy}-{turn}", captured(policy, turn, factor))
        for policy, factors in FACTORS.items()
        for turn, factor in enumerate(factors)
    ]


def test_a_change_is_seen_round_by_round_though_the_machine_drifts(runs: list[tuple[str, Trace]]) -> None:
    found = {(effect.policy, effect.metric): effect for effect in compare_captured(runs).effects()}
    effect = found["sjf", "e2e_mean_s"]
    assert effect.rounds == 3
    assert effect.change == pytest.approx(-0.2)
    assert effect.low == pytest.approx(-0.2)
    assert effect.high == pytest.approx(-0.2)
    assert found["fifo", "e2e_mean_s"].change == 0
    assert found["fifo", "e2e_mean_s"].spread > 0


def test_the_interval_is_students_over_the_rounds() -> None:
    ratios = (0.8, 0.9, 0.85)
    runs = [(f"fifo-{turn}", captured("fifo", turn, 1.0)) for turn in range(3)]
    runs += [(f"sjf-{turn}", captured("sjf", turn, ratio)) for turn, ratio in enumerate(ratios)]
    effect = next(e for e in compare_captured(runs).effects() if (e.policy, e.metric) == ("sjf", "makespan_s"))
    logs = np.log(ratios)
    half = 4.302652729749464 * logs.std(ddof=1) / 3**0.5  # Student's t, 2 degrees of freedom
    assert effect.low == pytest.approx(np.expm1(logs.mean() - half))
    assert effect.high == pytest.approx(np.expm1(logs.mean() + half))


def test_runs_of_different_workloads_are_refused(runs: list[tuple[str, Trace]]) -> None:
    runs.append(("sjf-9", captured("sjf", 9, 1.0, (5, 9, 2))))
    with pytest.raises(TraceError, match="sjf-9: another workload than fifo-0"):
        compare_captured(runs)


def test_something_to_compare_with_is_needed(runs: list[tuple[str, Trace]]) -> None:
    with pytest.raises(TraceError, match="no trace ran under fifo"):
        compare_captured(runs[3:])


def test_a_simulated_run_was_not_measured(runs: list[tuple[str, Trace]]) -> None:
    name, trace = runs[0]
    with pytest.raises(TraceError, match="is simulated, not captured"):
        compare_captured([(name, Trace(trace.header.changed(kind="simulated"), trace.requests)), *runs[1:]])


def test_lengths_that_differ_are_said(runs: list[tuple[str, Trace]]) -> None:
    assert not any("lengths differ" in warning for warning in compare_captured(runs).warnings)
    name, trace = runs[-1]
    other = Trace(trace.header, trace.requests.assign(output_tokens=trace.requests["output_tokens"] + 1))
    assert any("lengths differ" in warning for warning in compare_captured([*runs[:-1], (name, other)]).warnings)


def test_the_command_prints_a_table_and_one_json_document(runs: list[tuple[str, Trace]], tmp_path: Path) -> None:
    folders = [str(trace.write(tmp_path / name)) for name, trace in runs]
    table = driftsim("compare", "--measured", *folders).stdout
    assert "-20.0 [-20.0, -20.0]" in table
    printed = driftsim("compare", "--measured", *folders, "--json").stdout
    assert {row["policy"] for row in json.loads(printed)["rows"]} == {"fifo", "sjf"}
