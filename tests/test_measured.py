"""Measured policy effects: round by round and at one speed of the host, and only between runs that can be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from driftsim.calibration.host_speed import host_speeds
from driftsim.calibration.runs import Run
from driftsim.comparison.captured import METRICS, CapturedComparison, Effect, compare_captured
from driftsim.contrasts import Contrast, adjusted, paired
from driftsim.errors import InputError, TraceError
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.schema import LIFE_TIMES
from driftsim.trace.trace import Trace, read
from tests.commands import driftsim
from tests.conftest import ROOT
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


POLICIES = ("fifo", "priority", "weighted", "sjf", "aging")
TRUE = {"fifo": 0.0, "priority": 0.08, "weighted": 0.0, "sjf": -0.1, "aging": 0.05}  # changes, logs


def wandering(draw: np.random.Generator, rounds: int = 5) -> dict[str, np.ndarray]:
    """The host's log scale during each run: AR(1) of 0.61 and a standard deviation of 0.13, as the traces have."""
    count = len(POLICIES) * rounds
    steps = draw.normal(0, 0.13 * (1 - 0.61**2) ** 0.5, count)
    scales = [draw.normal(0, 0.13)]
    for step in steps[1:]:
        scales.append(0.61 * scales[-1] + step)
    return {policy: np.array(scales[place :: len(POLICIES)]) for place, policy in enumerate(POLICIES)}


def drawn(draw: np.random.Generator, slope: float, noise: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Logs of a metric that grows with the host's scale to the power ``slope``, and those scales."""
    scales = wandering(draw)
    logs = {policy: TRUE[policy] + slope * at + draw.normal(0, noise, len(at)) for policy, at in scales.items()}
    return logs, scales


def coverage(slope: float, noise: float) -> tuple[float, float, float]:
    """Share of the 95 % intervals of all changes that hold the true one, adjusted; mean widths, adjusted and paired."""
    draw = np.random.default_rng(1)
    inside: list[bool] = []
    widths: list[tuple[float, float]] = []
    for _ in range(250):
        logs, scales = drawn(draw, slope, noise)
        found = adjusted(logs, scales, "fifo")
        assert found is not None
        for policy in POLICIES[1:]:
            freely, rounds = found.contrasts[policy].interval(), paired(logs[policy], logs["fifo"]).interval()
            inside.append(freely.low <= TRUE[policy] <= freely.high)
            widths.append((freely.high - freely.low, rounds.high - rounds.low))
    freely_wide, rounds_wide = np.mean(widths, axis=0)
    return float(np.mean(inside)), float(freely_wide), float(rounds_wide)


@pytest.mark.parametrize("slope", [0.8, 1.0])
def test_at_one_speed_a_known_change_is_covered_and_the_interval_is_narrower(slope: float) -> None:
    held, freely, rounds = coverage(slope, 0.05)
    assert 0.92 <= held <= 0.98
    assert freely < 0.5 * rounds


def test_a_speed_without_an_effect_does_no_harm() -> None:
    held, freely, rounds = coverage(0.0, 0.05)
    assert 0.92 <= held <= 0.98
    assert freely < rounds  # the degrees of freedom are pooled, which more than pays for the slope


def test_the_slope_is_fitted_within_policies_and_left_alone_where_it_cannot_be() -> None:
    scales = {"fifo": np.array([0.0, 0.1, 0.2]), "sjf": np.array([0.3, 0.5, 0.4])}
    logs = {"fifo": 0.7 * scales["fifo"], "sjf": 0.7 * scales["sjf"] - 0.2}
    found = adjusted(logs, scales, "fifo")
    assert found is not None
    assert (found.slope.value, found.contrasts["sjf"].value) == pytest.approx((0.7, -0.2))
    assert found.explained == pytest.approx(1)
    assert adjusted(logs, {policy: np.zeros(3) for policy in scales}, "fifo") is None
    first_logs, first_scales = ({policy: each[:1] for policy, each in one.items()} for one in (logs, scales))
    assert adjusted(first_logs, first_scales, "fifo") is None


def test_the_adjustment_is_that_of_least_squares() -> None:
    logs, scales = drawn(np.random.default_rng(4), 0.9, 0.05)
    found = adjusted(logs, scales, "fifo")
    assert found is not None
    count = len(logs["fifo"])
    columns = np.column_stack(
        [np.repeat([one == policy for one in POLICIES], count) for policy in POLICIES]
        + [np.concatenate([*scales.values()])]
    ).astype(float)
    values = np.concatenate([*logs.values()])
    solution, (squares,), *_ = np.linalg.lstsq(columns, values)
    variance = squares / (len(values) - columns.shape[1])
    contrast = np.array([-1, 0, 0, 1, 0, 0])
    error = (variance * contrast @ np.linalg.inv(columns.T @ columns) @ contrast) ** 0.5
    assert found.slope.value == pytest.approx(solution[-1])
    assert found.contrasts["sjf"].value == pytest.approx(contrast @ solution)
    assert found.contrasts["sjf"].error == pytest.approx(error)
    assert found.contrasts["sjf"].freedom == len(values) - columns.shape[1]


def compared(draw: np.random.Generator, slope: float = 1.0, **changes: float) -> CapturedComparison:
    """Runs of five policies whose metrics vary together and apart; ``changes``: true ones, logs."""
    scales = wandering(draw)
    summaries = {}
    for policy, at in scales.items():
        shared = draw.normal(0, 0.03, len(at))
        summaries[policy, "ema"] = [
            {
                metric: float(np.exp(changes.get(policy, 0.0) + slope * x + s + draw.normal(0, 0.03)))
                for metric in METRICS
            }
            for x, s in zip(at, shared, strict=True)
        ]
    speeds = {(policy, "ema"): at.tolist() for policy, at in scales.items()}
    return CapturedComparison(summaries, ("fifo", "ema"), (), 60, speeds)


def stars(result: CapturedComparison) -> list[Effect]:
    return [effect for effect in result.effects() if effect.star]


def test_where_nothing_changes_a_table_has_a_star_in_at_most_five_in_a_hundred() -> None:
    draw = np.random.default_rng(2)
    tables = 250
    false = sum(bool(stars(compared(draw, slope))) for slope in (0.0, 1.0) for _ in range(tables // 2))
    assert false / tables <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5


def test_a_clear_change_has_a_star_and_one_that_matters_to_nobody_has_none() -> None:
    result = compared(np.random.default_rng(3), sjf=-0.4)
    assert {effect.policy for effect in stars(result)} == {"sjf"}
    assert "e2e_p50_s" in {effect.metric for effect in stars(result)}
    assert stars(replace(result, practical=0.9)) == []
    tiny = {
        (policy, "ema"): [dict.fromkeys(METRICS, level * (1 + 1e-6 * turn)) for turn in range(5)]
        for policy, level in (("fifo", 1.0), ("sjf", 1.009), ("aging", 1.011))
    }
    small = CapturedComparison(tiny, ("fifo", "ema"), (), 60)
    assert all(effect.p < 1e-6 for effect in small.effects() if effect.policy != "fifo")
    assert {effect.policy for effect in stars(small)} == {"aging"}
    with pytest.raises(InputError, match="practical must be 0 or more"):
        compare_captured([], practical=-1)


def test_the_p_of_a_change_is_of_the_estimate_that_is_shown_after_holm() -> None:
    result = compared(np.random.default_rng(5), sjf=-0.05)
    for effect in result.effects():
        if effect.policy != "fifo" and effect.metric != "makespan_s":
            alone = result.adjustments[effect.metric].contrasts[effect.policy, "ema"]
            assert effect.p >= alone.p
            assert effect.best == alone.relative()


def test_the_makespan_is_never_adjusted_and_the_text_says_of_each_metric_whether_it_was() -> None:
    result = compared(np.random.default_rng(6))
    document = result.document()
    assert {name for name, told in document["adjustment"].items() if not told["adjusted"]} == {"makespan_s"}
    assert document["adjustment"]["e2e_mean_s"]["slope"][0] == pytest.approx(1, abs=0.3)
    rows = [row for row in document["rows"] if row["metric"] == "makespan_s" and row["policy"] != "fifo"]
    assert all(row["adjusted"] is None and row["change"] is not None for row in rows)
    slopes = next(line for line in str(result).splitlines() if line.startswith("slope"))
    assert slopes.endswith("not adjusted")
    assert "as measured, round by round" in str(result)


def test_without_steps_nothing_is_adjusted_and_that_is_said(runs: list[tuple[str, Trace]]) -> None:
    result = compare_captured(runs)
    assert all(np.isnan(effect.adjusted) for effect in result.effects())
    assert "no change is adjusted for the speed of the host: fifo-0 has no steps table" in " ".join(str(result).split())
    assert not result.document()["adjustment"]["e2e_mean_s"]["adjusted"]


def test_the_hosts_speed_is_read_off_the_steps() -> None:
    trace = read(ROOT / "traces" / "smollm2-cpu-policies" / "fifo-1")
    assert trace.steps is not None
    slow = trace.steps.assign(duration_s=1.2 * trace.steps["duration_s"])
    found = host_speeds([Run("plain", trace), Run("slow", replace(trace, steps=slow))])
    assert found.logs[1] - found.logs[0] == pytest.approx(np.log(1.2))


def test_one_order_in_every_round_is_a_warning(runs: list[tuple[str, Trace]]) -> None:
    def at(name: str, minute: int) -> tuple[str, Trace]:
        trace = dict(runs)[name]
        return name, replace(trace, header=trace.header.changed(captured_at=f"2026-01-01T00:{minute:02}:00Z"))

    names = [f"{policy}-{turn}" for turn in range(3) for policy in ("fifo", "sjf")]
    alike = [at(name, minute) for minute, name in enumerate(names)]
    warning = "every round ran in the same order (fifo, sjf): policy and position in the round cannot be told apart"
    assert any(warning in told for told in compare_captured(alike).warnings)
    names[:2] = ["sjf-0", "fifo-0"]
    mixed = [at(name, minute) for minute, name in enumerate(names)]
    assert not any("same order" in told for told in compare_captured(mixed).warnings)
    assert not any("same order" in told for told in compare_captured(runs).warnings)  # not told to the second


def test_the_shipped_policies_ran_in_one_order_in_every_round() -> None:
    folder = ROOT / "traces" / "smollm2-cpu-policies"
    names = [f"{policy}-{turn}" for policy in ("fifo", "sjf") for turn in (1, 2)]
    result = compare_captured([(name, read(folder / name)) for name in names])
    assert "every round ran in the same order (fifo, sjf)" in result.warnings[0]
    assert not np.isnan(next(one.adjusted for one in result.effects() if one.policy == "sjf"))


def test_a_contrast_without_a_degree_of_freedom_has_no_interval() -> None:
    assert np.isnan(Contrast(0.1, 0.0, 0).interval().low)
    assert np.isnan(Contrast(0.1, 0.0, 0).p)
    assert np.isnan(Contrast(np.nan, np.nan, 3).p)
    assert Contrast(0.1, 0.0, 3).p == 0
