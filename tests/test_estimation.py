"""How well estimators did, held against what plain loops say and against truths that are known."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim import api
from driftsim.comparison import estimators
from driftsim.comparison.page import page
from driftsim.errors import TraceError
from driftsim.estimates import estimation, pinball
from driftsim.glossary import METRICS
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.trace.trace import Trace, read
from driftsim.workloads.table import workload_table
from driftsim.workloads.workload import Workload
from tests.conftest import ROOT
from tests.strategies import engine, profile

RECORDED = read(ROOT / "traces" / "smollm2-cpu-drift")


def made(outputs: list[int], gap: float = 1.0, cap: int = 900) -> Workload:
    phase = Phase(name="only", requests=len(outputs))
    table = workload_table(
        [phase], category="summary", prompt_tokens=20, max_tokens=cap, output_tokens=outputs,
        offset_s=gap * np.arange(len(outputs)),
    )  # fmt: skip
    return Workload(WorkloadInfo(name="made", phases=(phase,)), table)


def run(outputs: list[int], estimator: str, **more: object) -> Trace:
    return api.simulate(made(outputs), estimator=estimator, profile=profile(engine()), **more)  # type: ignore[arg-type]


def tau_by_pairs(one: list[int], other: list[int]) -> float:
    """Kendall's tau-b, pair by pair."""
    signs = [(np.sign(one[i] - one[j]), np.sign(other[i] - other[j])) for i, j in combinations(range(len(one)), 2)]
    untied = [math.sqrt(sum(sign[side] != 0 for sign in signs)) for side in (0, 1)]
    return float(sum(a * b for a, b in signs) / (untied[0] * untied[1])) if all(untied) else math.nan


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=2, max_size=40))
def test_errors_and_tau_are_what_plain_loops_say(pairs: list[tuple[int, int]]) -> None:
    said, truth = [one for one, _ in pairs], [other for _, other in pairs]
    rows = RECORDED.requests.head(len(pairs)).assign(estimate=said, output_tokens=truth)
    found = estimation(replace(RECORDED, requests=rows.astype({"estimate": "Int64", "output_tokens": "Int64"})))
    logs = [math.log(a / b) for a, b in pairs]
    assert found["scored"] == len(pairs)
    assert found["mae"] == pytest.approx(sum(abs(a - b) for a, b in pairs) / len(pairs))
    assert found["log_error"] == pytest.approx(sum(map(abs, logs)) / len(pairs))
    assert found["log_bias"] == pytest.approx(sum(logs) / len(pairs), abs=1e-12)
    assert found["kendall_tau_estimate"] == pytest.approx(tau_by_pairs(said, truth), nan_ok=True)


def test_every_estimate_is_judged_as_it_was_before_its_truth_was_known() -> None:
    """All there at once: nothing could be learned, though at the end much is known."""
    trace = api.simulate(made([50] * 40, gap=0.0), estimator="log-ema?alpha=1", profile=profile(engine()))
    first = trace.requests["estimate"].iloc[0]
    assert (trace.requests["estimate"] == first).all()
    assert estimation(trace)["mae"] == abs(first - 50)
    late = run([50] * 40, "log-ema?alpha=1")
    assert estimation(late)["mae"] < 0.2 * abs(first - 50)


# -- quantiles


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.floats(0.05, 0.95))
def test_the_pinball_loss_is_least_at_the_quantile(values: list[int], level: float) -> None:
    truth = np.array(values, dtype=float)
    losses = [pinball(np.full(len(truth), float(said)), truth, level).mean() for said in range(101)]
    best = float(np.quantile(truth, level, method="inverted_cdf"))
    assert losses[int(best)] == pytest.approx(min(losses))


def test_intervals_are_counted_as_plain_loops_do() -> None:
    random = np.random.default_rng(4)
    trace = run(random.integers(1, 300, 80).tolist(), "kaplan-meier")
    rows = trace.requests
    found = estimation(trace)
    inside = [
        low <= out <= high
        for low, out, high in zip(rows["estimate_low"], rows["output_tokens"], rows["estimate_high"], strict=True)
    ]
    assert found["coverage"] == pytest.approx(np.mean(inside))
    assert found["coverage_nominal"] == pytest.approx(0.8)
    assert found["width"] == pytest.approx((rows["estimate_high"] - rows["estimate_low"]).mean())
    losses = [max(level * (out - end), (level - 1) * (out - end))
              for level, name in ((0.1, "estimate_low"), (0.9, "estimate_high"))
              for end, out in zip(rows[name], rows["output_tokens"], strict=True)]  # fmt: skip
    assert found["pinball"] == pytest.approx(np.mean(losses))


def test_a_single_quantile_covers_what_does_not_exceed_it() -> None:
    trace = run(np.random.default_rng(4).integers(1, 300, 80).tolist(), "quantile?q=0.7")
    found = estimation(trace)
    assert found["coverage_nominal"] == 0.7
    assert found["coverage"] == pytest.approx((trace.requests["output_tokens"] <= trace.requests["estimate"]).mean())
    assert math.isnan(found["width"])


@pytest.mark.parametrize("levels", ["half", [2.0, 3.0], ["0.5"], 7, [], [True]])
def test_levels_that_are_none_are_not_believed(levels: object) -> None:
    trace = run([50, 60] * 20, "kaplan-meier")
    header = trace.header.changed(admission={**trace.header.admission, "levels": levels})
    assert math.isnan(estimation(replace(trace, header=header))["coverage"])


def test_without_quantiles_nothing_is_said_of_them() -> None:
    found = estimation(run([50] * 20, "ema"))
    assert all(math.isnan(found[name]) for name in ("coverage", "coverage_nominal", "width", "pinball"))
    assert found["recovered"] is None


# -- recovery


@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.1, 0.5])
def test_the_time_to_recover_is_that_of_the_formula(alpha: float) -> None:
    """Of a moving average: b_n = r^(1 - (1 - alpha)^n), averaged over 20 estimates in a row."""
    trace = run([100] * 900, f"log-ema?alpha={alpha}", drift="factor=2:at=50%")
    found = estimation(trace)
    steps = 1 - (1 - alpha) ** np.maximum(np.arange(450) - 1.0, 0)  # an output ends a second and more after it began
    means = np.convolve(steps, np.full(20, 1 / 20), mode="valid")
    formula = int(np.flatnonzero(means >= 0.5)[0])
    assert found["recovered"] is True
    assert abs(found["recovery_requests"] - formula) <= 2
    assert found["recovery_s"] == pytest.approx(found["recovery_requests"], abs=0.01)  # a request a second


def test_who_learns_nothing_never_recovers() -> None:
    found = estimation(run([100] * 200, "static", drift="factor=2:at=50%"))
    assert (found["recovered"], found["recovery_requests"]) == (False, math.inf)
    assert estimation(run([100] * 200, "oracle", drift="factor=2:at=50%"))["recovery_requests"] == 0


@pytest.mark.parametrize("drift", ["ramp:factor=2:over=50%", "factor=1.01:at=50%", "words:at=50%", "factor=2"])
def test_where_there_is_no_shift_to_follow_nothing_is_said(drift: str) -> None:
    """Too small, too slow, of what estimators are told, or from the very first request on."""
    assert estimation(run([100] * 100, "ema", drift=drift))["recovered"] is None


# -- a comparison, a phase, words


def test_only_what_is_asked_for_counts() -> None:
    trace = RECORDED
    whole, learning = estimation(trace), estimation(trace, phase="learning")
    mask = (trace.requests["phase"] == "learning").to_numpy(dtype=bool)
    assert whole["scored"] == 360
    assert learning["scored"] == 120
    assert estimation(trace, scored=mask) == pytest.approx(learning, nan_ok=True)
    with pytest.raises(TraceError, match="unknown phase 'night'; choose one of all, learning, stress"):
        estimation(trace, phase="night")


def test_a_comparison_tells_of_its_estimators_where_there_is_more_to_say(tmp_path: Path) -> None:
    plan = {"policies": ["fifo", "sjf"], "replications": 1, "jobs": 1, "profile": profile(engine())}
    random = np.random.default_rng(1).integers(1, 300, 60).tolist()
    plain = api.compare(made(random), estimators=["static", "ema"], **plan)  # type: ignore[arg-type]
    assert not estimators.told(plain)
    assert "How each estimator did" not in str(plain)
    assert "estimation" not in plain.document()
    result = api.compare(made(random), estimators=["static", "kaplan-meier"], **plan)  # type: ignore[arg-type]
    assert "How each estimator did under fifo, in this run" in str(result)
    headings, rows = estimators.table(result)
    assert [row[0] for row in rows] == ["static", "kaplan-meier"]
    assert {len(row) for row in rows} == {len(headings)} == {6}
    frame = result.estimation()
    assert list(frame["policy"]) == ["fifo", "fifo", "sjf", "sjf"]
    assert set(frame) <= {*METRICS, "policy", "estimator"}
    assert result.document()["estimation"][1]["coverage"] == frame["coverage"].iloc[1]
    assert result.document()["estimation"][0]["coverage"] is None
    assert "How well each estimator did" in page(result, result.provenance)
    assert "How well each estimator did" not in page(plain, plain.provenance)
    result.write(tmp_path / "out")
    with (tmp_path / "out" / "estimation.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["mae"]) for row in written] == pytest.approx(frame["mae"].tolist())


def test_words_are_judged_in_words() -> None:
    header = RECORDED.header.changed(admission={**RECORDED.header.admission, "accounting": "whitespace"})
    said, truth = (RECORDED.requests[name].to_numpy(dtype=float) for name in ("estimate", "output_words"))
    assert estimation(replace(RECORDED, header=header))["mae"] == pytest.approx(np.abs(said - truth).mean())


def test_a_comparison_holds_estimates_against_those_without_the_drift() -> None:
    """So who learns nothing never recovers, however much its estimates scatter; and who learns does so by its law."""
    random = np.random.default_rng(5)
    day = made([100] * 400)
    day = replace(day, table=day.table.assign(prompt_tokens=random.integers(1, 2000, 400)))
    result = api.compare(
        day, policies=["fifo"], estimators=["prompt", "log-ema", "oracle"], profile=profile(engine()), replications=1,
        jobs=1, drift="factor=2:at=50%",
    )  # fmt: skip
    found = result.estimation().set_index("estimator")
    assert found["recovered"].tolist() == [False, True, True]
    assert found.loc["prompt", "recovery_requests"] == math.inf
    assert found.loc["oracle", "recovery_requests"] == 0
    plain = api.simulate(day, estimator="log-ema", profile=profile(engine())).requests.set_index("request_id")
    trace = api.simulate(day, estimator="log-ema", profile=profile(engine()), drift="factor=2:at=50%")
    alone = estimation(trace, undrifted=plain["estimate"])
    assert found.loc["log-ema", "recovery_requests"] == alone["recovery_requests"] > 0
    assert [row[-1] for row in estimators.table(result)[1]] == ["never", f"{alone['recovery_requests']:.0f}", "0"]


def test_without_the_other_run_scatter_may_look_like_recovery() -> None:
    random = np.random.default_rng(5)
    day = made([100] * 400)
    day = replace(day, table=day.table.assign(prompt_tokens=random.integers(1, 2000, 400)))
    one, other = (
        api.simulate(day, estimator="prompt", profile=profile(engine()), drift=drift)
        for drift in ("factor=1.2:at=50%", ())
    )
    assert estimation(one)["recovered"] is True  # and nothing is learned
    same = other.requests.set_index("request_id")["estimate"]
    assert estimation(one, undrifted=same)["recovered"] is False
