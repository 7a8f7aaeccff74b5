"""Times of another unit, clocks too coarse, numbers that stand for nothing: told or refused, never believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import driftsim as ds
from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.runs import Run
from driftsim.errors import InputError, TraceError
from driftsim.formats.clocks import coarse_step
from driftsim.formats.exports import export_trace
from driftsim.formats.imports import import_trace
from driftsim.formats.mapping import Mapping
from driftsim.formats.suggest import suggestion
from driftsim.metrics import summary
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload
from tests.commands import driftsim
from tests.test_exports import run_of
from tests.test_loops import PLAIN, model, served
from tests.test_unfinished import overloaded

COLUMNS = {
    "arrival_s": "at", "prompt_tokens": "p", "output_tokens": "o", "first_token_s": "ft", "finish_s": "end",
    "finish_reason": "st",
}  # fmt: skip


def table(trace: Trace) -> pd.DataFrame:
    """The requests of ``trace`` as somebody's client would have saved them."""
    rows = trace.requests
    return pd.DataFrame({theirs: rows[ours] for ours, theirs in COLUMNS.items()})


def imported(rows: pd.DataFrame, folder: Path, **told: Any) -> Trace:
    rows.to_csv(folder / "r.csv", index=False)
    return import_trace(folder / "r.csv", mapping=Mapping(columns=COLUMNS, **told))


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return table(served(Workload.poisson(rate=4.0, requests=120, **PLAIN)))


# -- units
@pytest.mark.parametrize(("unit", "scale"), [("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
def test_moments_after_the_year_5000_are_of_a_finer_unit(
    unit: str, scale: float, rows: pd.DataFrame, tmp_path: Path
) -> None:
    late = rows.assign(**{name: (1.79e9 + rows[name]) * scale for name in ("at", "ft", "end")})
    with pytest.raises(TraceError, match=f'give its unit, as in a mapping with units = {{ all = "{unit}" }}'):
        imported(late, tmp_path)
    assert imported(late, tmp_path, units={"all": unit}).requests["finish_s"].max() < 1000


@pytest.mark.parametrize(("scale", "said"), [(1e3, "probably milliseconds"), (1e-3, "faster than any engine")])
def test_a_pace_that_no_engine_has_is_told_by_every_verb(
    scale: float, said: str, rows: pd.DataFrame, tmp_path: Path
) -> None:
    trace = imported(rows.assign(**{name: rows[name] * scale for name in ("at", "ft", "end")}), tmp_path)
    assert any(said in caveat for caveat in trace.header.caveats)
    model().save(tmp_path / "p.json")
    trace.write(tmp_path / "t")
    run = driftsim("validate", tmp_path / "t", "--profile", tmp_path / "p.json")
    assert said in " ".join((run.stdout + run.stderr).split())


def test_a_comparison_whose_check_is_far_off_concludes_nothing(rows: pd.DataFrame, tmp_path: Path) -> None:
    slow = imported(rows.assign(**{name: rows[name] * 1e3 for name in ("at", "ft", "end")}), tmp_path)
    options: dict[str, Any] = {"profile": model(), "policies": ["fifo", "sjf"], "estimators": ["static"], "jobs": 1}
    said = ds.compare(slow, replications=1, **options).answer()
    assert said[0].startswith("What to do: No conclusion: the simulation is more than 50 % off")
    assert said[1].startswith(
        "Trust: The recorded run against its own simulation with the given profile: mean latency -"
    )
    assert [line.partition(":")[0] for line in said] == ["What to do", "Trust", "Next"]
    fine = ds.compare(imported(rows, tmp_path), replications=1, **options).answer()
    assert not any("No conclusion" in sentence for sentence in fine)


# -- clocks
@pytest.mark.parametrize("step", [1.0, 0.1])
def test_arrivals_on_a_coarse_clock_are_told(step: float, rows: pd.DataFrame, tmp_path: Path) -> None:
    trace = imported(rows.assign(at=np.floor(rows["at"] * 3 / 10 / step) * step), tmp_path)
    assert any(f"told in steps of {step:g} s" in caveat for caveat in trace.header.caveats)
    assert not any("in steps of" in caveat for caveat in imported(rows, tmp_path).header.caveats)


def test_an_epoch_in_single_precision_is_a_coarse_clock(rows: pd.DataFrame) -> None:
    moments = (1.79e9 + rows["at"].to_numpy() * 30).astype(np.float32).astype(float)
    assert coarse_step(np.sort(moments)) == 128.0


@pytest.mark.parametrize("arrival", [np.zeros(50), np.repeat([0.0, 7.0], 25), np.arange(50.0), np.arange(3.0)])
def test_loads_that_come_at_once_or_evenly_are_no_coarse_clock(arrival: np.ndarray) -> None:
    assert coarse_step(arrival) == 0.0


# -- rows that failed
@pytest.mark.parametrize(
    "nothing", [{"o": 0, "ft": 0.0, "end": 0.0}, {"o": -1, "ft": -1.0, "end": -1.0}, {"o": -1}, {"ft": 0.0}]
)
def test_placeholders_of_a_failed_request_cost_nobody_its_row(nothing: dict[str, float], tmp_path: Path) -> None:
    run = table(overloaded())
    failed = run["st"] == "abort"
    for name, value in nothing.items():
        run.loc[failed, name] = value
    trace = imported(run, tmp_path)
    assert len(trace.requests) == len(run)
    assert (trace.requests["finish_reason"] == "abort").sum() == failed.sum()
    assert not any("could not be read" in caveat for caveat in trace.header.caveats)


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_a_time_below_nothing_is_no_time_in_any_unit(unit: str, tmp_path: Path) -> None:
    run = overloaded().requests
    failed, scale = run["finish_reason"] == "abort", {"s": 1.0, "ms": 1e3}[unit]
    rows = pd.DataFrame({"at": run["arrival_s"], "p": run["prompt_tokens"], "o": run["output_tokens"],
                         "st": run["finish_reason"]})  # fmt: skip
    for theirs, ours in (("ft", "first_token_s"), ("end", "finish_s")):
        rows[theirs] = ((run[ours] - run["arrival_s"]) * scale).where(~failed, -1.0)
    rows.to_csv(tmp_path / "r.csv", index=False)
    named = {ours: theirs for ours, theirs in COLUMNS.items() if not ours.startswith(("first", "finish_s"))}
    durations = {"first_token_s": "ft", "finish_s": "end"}
    units: Any = dict.fromkeys(durations, unit)
    trace = import_trace(tmp_path / "r.csv", mapping=Mapping(columns=named, durations=durations, units=units))
    unfinished = trace.requests[trace.requests["finish_reason"] == "abort"]
    assert len(unfinished) == failed.sum()
    assert unfinished["finish_s"].isna().all()


def test_a_run_whose_time_outs_are_blank_is_no_ground_for_a_fit(tmp_path: Path) -> None:
    run = table(overloaded(4.0))
    run.loc[run["st"] == "abort", ["o", "ft", "end"]] = 0
    trace = imported(run, tmp_path)
    with pytest.raises(TraceError, match=r"likely, \d+ % of the requests of t have no known output"):
        calibrate([Run("t", trace)], source="requests")


def test_a_request_that_ended_well_has_no_placeholders(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows = rows.assign(o=[-1, *rows["o"][1:]])
    trace = imported(rows, tmp_path)
    assert (
        "1 of 120 rows could not be read and were left out: line 2 (row 0): output_tokens is -1"
        in trace.header.caveats[0]
    )


def test_requests_that_no_engine_takes_are_told(tmp_path: Path) -> None:
    trace = served(Workload.poisson(rate=4.0, requests=60, **PLAIN))
    rows = trace.requests.assign(prompt_tokens=np.where(np.arange(60) % 2, trace.requests["prompt_tokens"], 9000))
    big = Trace(trace.header.changed(engine=trace.header.engine.changed(max_model_len=20_000)), rows)
    big.write(tmp_path / "t")
    model().save(tmp_path / "p.json")
    (tmp_path / "s.toml").write_text('trace = "t"\nprofile = "p.json"\n')
    run = driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / "o")
    assert "30 of 60 requests never fit this engine and were rejected; latencies are of the others" in run.stderr
    assert summary(ds.read(tmp_path / "o"))["rejected"] == 30


# -- out, and in
def test_tiers_of_other_names_come_back_from_blis(tmp_path: Path) -> None:
    trace = run_of()
    trace = replace(trace, requests=trace.requests.assign(tier=["gold", "silver"] * 15))
    export_trace(trace, "blis", tmp_path / "x.csv")
    assert import_trace(tmp_path / "x.csv").requests["tier"].tolist() == ["gold", "silver"] * 15


@pytest.mark.parametrize("form", ["blis", "mooncake"])
def test_an_export_to_nowhere_is_refused(form: str, tmp_path: Path) -> None:
    run_of().write(tmp_path / "t")
    run = driftsim("export", tmp_path / "t", form, "--out", "")
    assert run.returncode == 2
    assert "is no file to write to; name one that ends in" in run.stderr


def test_a_mapping_object_is_checked_as_its_file_is(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("at,p,o\n0,1,2\n")
    with pytest.raises(InputError, match="the mapping: 'arival_s' is no column of a trace"):
        import_trace(tmp_path / "r.csv", mapping=Mapping(columns={"arival_s": "at"}))


def test_a_unit_without_the_length_of_an_answer_is_a_guess(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(
        "arrival,prompt_tokens,latency\n" + "".join(f"{row},50,{0.1 + row / 100}\n" for row in range(9))
    )
    assert "a guess: an answer, whose length nothing tells" in suggestion(tmp_path / "r.csv")


def test_a_file_that_is_not_there_is_told_as_a_file(tmp_path: Path) -> None:
    run = driftsim("compare", tmp_path / "nothere.json")
    assert run.returncode == 2
    assert "nothere.json: no such file; give a trace's folder, or a file that another tool wrote" in run.stderr


@pytest.mark.parametrize(("option", "kind"), [("--users", "closed"), ("--rate", "poisson")])
def test_an_option_of_arrivals_names_the_arrivals_that_take_it(option: str, kind: str, tmp_path: Path) -> None:
    run_of().write(tmp_path / "t")
    run = driftsim("compare", tmp_path / "t", option, "3")
    assert run.returncode == 2
    assert f"say which, --arrivals {kind} for instance" in run.stderr


# -- fits
def fitted(trace: Trace) -> dict[str, float]:
    """The coefficients of a fit to the timings of ``trace``, relative to the true ones."""
    profile = calibrate([Run("t", trace)], source="requests")
    return {name: getattr(profile, name) / getattr(model(), name)
            for name in ("intercept_s", "prefill_token_s", "context_token_s")}  # fmt: skip


@pytest.mark.parametrize("patience_s", [3.0, pytest.param(6.0, marks=pytest.mark.nightly)])
def test_a_run_with_time_outs_gives_its_coefficients(patience_s: float) -> None:
    trace = overloaded(patience_s)
    assert (trace.requests["finish_reason"] == "abort").sum() > 50
    found = fitted(trace)
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=0.05)


@pytest.mark.parametrize("rate", [pytest.param(12.0, marks=pytest.mark.nightly), 14.0])
def test_a_run_near_saturation_is_fitted(rate: float) -> None:
    trace = served(Workload.poisson(rate=rate, requests=300, **PLAIN))
    found = fitted(trace)
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=0.05)


def test_one_user_gives_the_time_of_a_step_whole() -> None:
    trace = served(Workload.closed(users=1, requests=40, **PLAIN))
    profile = calibrate([Run("t", trace)], source="requests")
    assert profile.decode_request_s == 0
    assert profile.intercept_s == pytest.approx(model().intercept_s, rel=0.01)
    assert any("one request ran at a time" in warning for warning in profile.warnings)


@pytest.mark.nightly  # without a time to think, test_loops has it in every run
@pytest.mark.parametrize("think_s", [0.0, 0.3])
def test_two_loops_of_unequal_size_give_the_coefficients(think_s: float) -> None:
    runs = [
        Run(f"{users} users", served(Workload.closed(users=users, requests=200, think_s=think_s, seed=users, **PLAIN)))
        for users in (8, 32)
    ]
    profile = calibrate(runs, source="requests")
    for name in ("intercept_s", "prefill_token_s", "context_token_s"):
        assert getattr(profile, name) == pytest.approx(getattr(model(), name), rel=0.05)
