"""A profile from the timings of requests alone: it predicts loads that it has not seen."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.overlap import Excerpt, from_overlap
from driftsim.calibration.runs import Run
from driftsim.errors import TraceError
from driftsim.latency.profile import Profile
from driftsim.trace.trace import Trace
from driftsim.validation.validation import on_model_steps
from tests.gpu import HTTP_S, served

LOADS = (3, 10, 24)  # of which the last is more than the GPU can take
BELOW, KNEE = 6, 15
COUNT = 180


def fitted(anchor: str) -> Profile:
    runs = [Run(f"at {rate}", served(rate, COUNT, seed, anchor)) for seed, rate in enumerate(LOADS)]
    return calibrate(runs, source="requests")


def errors(profile: Profile, rate: float, anchor: str) -> dict[tuple[str, str], float]:
    rows = on_model_steps("unseen", served(rate, COUNT, 77, anchor), profile).rows()
    return {(row["metric"], row["stat"]): abs(row["error"]) for row in rows}


@pytest.mark.parametrize("anchor", ["received", pytest.param("http", marks=pytest.mark.nightly)])
def test_unseen_loads_are_predicted_within_the_targets(anchor: str) -> None:
    profile = fitted(anchor)
    assert profile.fit is not None
    assert profile.fit.source == "requests"
    below = errors(profile, BELOW, anchor)
    assert max(below["e2e", stat] for stat in ("mean", "p50", "p90", "p99")) < 0.02
    assert max(below["tpot", stat] for stat in ("mean", "p50", "p90", "p99")) < 0.02
    assert below["ttft", "mean"] < 0.05
    assert below["ttft", "p99"] < 0.12
    assert max(errors(profile, KNEE, anchor)["e2e", stat] for stat in ("mean", "p50", "p90", "p99")) < 0.05
    saturated = errors(profile, 30, anchor)
    assert saturated["makespan", "mean"] < 0.03
    assert saturated["e2e", "mean"] < 0.04
    overhead = profile.submit_lag_s if anchor == "http" else profile.output_lag_s
    assert overhead == pytest.approx(HTTP_S if anchor == "http" else 0.0006, abs=0.0015)
    assert all(low <= getattr(profile, name) <= high for name, (low, high) in profile.intervals.items())


def test_the_overlap_of_requests_gives_a_first_guess() -> None:
    intercept, prefill, decode, context = from_overlap([Excerpt(served(rate, 200, 5)) for rate in (3, 15)])
    batch, tokens = 20, 20 * 600
    truth = 0.0105 + 25e-6 * batch + 2e-8 * tokens
    assert intercept + decode * batch + context * tokens == pytest.approx(truth, rel=0.1)
    assert 10e-6 < prefill < 60e-6


@pytest.mark.parametrize("truth", [pytest.param(True, marks=pytest.mark.nightly), False])
def test_whether_scheduling_was_asynchronous_is_found_out_and_said(truth: bool) -> None:
    runs = []
    for seed, rate in enumerate((2, 8)):
        trace = served(rate, 90, seed, async_scheduling=truth)
        engine = trace.header.engine.changed(assumed=("async_scheduling",), version="0.12.0", async_scheduling=False)
        runs.append(Run(f"at {rate}", Trace(trace.header.changed(engine=engine), trace.requests)))
    profile = calibrate(runs)
    assert profile.engine.async_scheduling is truth
    assert any("async_scheduling was not told" in warning for warning in profile.warnings)


def test_what_happened_later_is_not_fitted() -> None:
    trace = served(8, 140, 3)
    cut = float(trace.requests["arrival_s"].iloc[90])
    late = trace.requests["finish_s"] > cut
    rows = trace.requests.copy()
    rows.loc[late, "finish_s"] += 5.0
    changed = replace(trace, requests=rows)
    one, other = (calibrate([Run("r", run)], source="requests", until=cut) for run in (trace, changed))
    assert one.changed(seen=None) == other.changed(seen=None)
    assert one != calibrate([Run("r", trace)], source="requests")


def broken(trace: Trace, **columns: pd.Series | pd.api.extensions.ExtensionArray) -> Trace:
    return replace(trace, requests=trace.requests.assign(**columns), steps=None)


def test_what_cannot_be_fitted_is_said() -> None:
    trace = served(8, 60, 3)
    few = replace(trace, requests=trace.requests.head(20), steps=None)
    with pytest.raises(TraceError, match="few: has 20 finished requests, a fit needs 30"):
        calibrate([Run("few", few)])
    with pytest.raises(TraceError, match="usage counts are missing"):
        calibrate([Run("t", broken(trace, output_tokens=pd.array([None] * 60, dtype="Int64")))])
    with pytest.raises(TraceError, match="60 of 60 requests have a single output token"):
        calibrate([Run("t", broken(trace, output_tokens=pd.array([1] * 60, dtype="Int64")))])
    with pytest.raises(TraceError, match="the clocks do not agree"):
        calibrate([Run("t", broken(trace, first_token_s=trace.requests["arrival_s"]))])
    with pytest.raises(TraceError, match="no trace to calibrate with"):
        calibrate([])
    other = replace(trace, header=trace.header.changed(hardware="another"))
    with pytest.raises(TraceError, match="hardware is 'another', but 'unknown' in one; fit them apart"):
        calibrate([Run("one", trace), Run("two", other)])
    mixed = replace(trace, header=trace.header.changed(model="another"))
    with pytest.raises(TraceError, match="model is 'another'"):
        calibrate([Run("one", trace), Run("two", mixed)])
    newer = replace(trace, header=trace.header.changed(engine=trace.header.engine.changed(version="0.99")))
    with pytest.raises(TraceError, match="engine version is '0.99'"):
        calibrate([Run("one", trace), Run("two", newer)])


def test_one_run_with_one_batch_size_leaves_named_warnings() -> None:
    trace = served(8, 60, 3)
    rows = trace.requests.assign(arrival_s=np.arange(60.0) * 20, prompt_tokens=100)
    alone = replace(trace, requests=rows.assign(queued_s=rows["arrival_s"], scheduled_s=rows["arrival_s"]), steps=None)
    alone.requests["output_tokens"] = alone.requests["output_tokens"].astype(int)
    alone.requests["first_token_s"] = alone.requests["arrival_s"] + 0.02
    alone.requests["finish_s"] = alone.requests["first_token_s"] + 0.01 * (alone.requests["output_tokens"] - 1)
    profile = calibrate([Run("alone", alone)])
    assert any("decode_request_s" in warning and "another load" in warning for warning in profile.warnings)
    assert any("one run only" in warning for warning in profile.warnings)
    assert profile.decode_request_s == 0


@pytest.mark.nightly
def test_large_inputs_are_fitted_in_time_and_memory() -> None:
    code = """
import time
from dataclasses import replace
import pandas as pd
from driftsim.calibration.runs import Run
from driftsim.calibration.calibrate import calibrate
from tests.gpu import served
trace = served(10, 500, 1, "http")
rows = trace.requests
shift = float(rows["finish_s"].max()) + 1
times = ["arrival_s", "dispatch_s", "first_token_s", "finish_s"]
def later(n):
    return rows.assign(request_id=rows["request_id"] + f"-{n}", **{t: rows[t] + n * shift for t in times})
many = pd.concat([later(n) for n in range(100)], ignore_index=True)
begin = time.process_time()
calibrate([Run("many", replace(trace, requests=many))])
whole = served(10, 500, 1)
steps = whole.steps
table = pd.concat([steps.assign(start_s=steps["start_s"] + n * shift) for n in range(200_000 // len(steps) + 1)])
middle = time.process_time()
calibrate([Run("steps", replace(whole, steps=table.reset_index(drop=True)))])
used = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))  # kB
print(len(many), middle - begin, len(table), time.process_time() - middle, used)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    requests, one, steps, other, memory_kb = (float(word) for word in run.stdout.split())
    assert requests >= 50_000
    assert steps >= 200_000
    assert one < 60
    assert other < 60
    assert memory_kb < 1_000_000


ROOT = Path(__file__).resolve().parent.parent
