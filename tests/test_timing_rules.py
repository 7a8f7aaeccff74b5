"""Single rules of a fit to the timings of requests, and of who is fitted to what."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim import profiles
from driftsim.calibration import calibrate as calibration
from driftsim.calibration import from_requests, guards, host_speed, request_fit
from driftsim.calibration import runs as runs_of
from driftsim.calibration.form import Form
from driftsim.calibration.guards import FORCE
from driftsim.calibration.least_squares import Rows, Solution
from driftsim.calibration.lives import resimulate
from driftsim.calibration.measures import MEASURES
from driftsim.calibration.overlap import Excerpt, beginning, from_overlap
from driftsim.calibration.request_rows import rows_of
from driftsim.calibration.runs import FEWEST_STEPS, Run
from driftsim.errors import TraceError
from driftsim.latency.profile import LEAST_INTERCEPT_S, Fit, Profile
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace
from tests.strategies import engine, profile, workload

NAN = math.nan
PROFILE = profile(prefill_token_s=1e-4, decode_request_s=0.001, context_token_s=1e-6)


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Forty requests, one every 30 ms, of which two are served at once; the others wait for the dispatcher."""
    made = workload([0.03 * number for number in range(40)], [2 + number % 5 for number in range(40)])
    return simulate(Scenario(profile=PROFILE, max_in_flight=2), made)


# -- who is fitted to what
def test_runs_without_steps_are_left_out_of_a_fit_to_steps_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, steps: int | None) -> Any:
        table = None if steps is None else pd.DataFrame(index=range(steps))
        return Run(name, SimpleNamespace(header=SimpleNamespace(replicas={}), steps=table), f"d-{name}")  # type: ignore[arg-type]

    runs, fitted = [run("a", FEWEST_STEPS), run("b", None), run("c", FEWEST_STEPS - 1)], []

    def fit_steps(chosen: list[Run], *_: Any) -> Profile:
        fitted.append([one.name for one in chosen])
        return PROFILE

    monkeypatch.setattr(calibration, "check_runs", lambda _: [])
    monkeypatch.setattr(calibration, "fit_steps", fit_steps)
    found = calibration.calibrate(runs)
    assert fitted == [["a"]]
    assert found.fitted_on == ("d-a", "d-b", "d-c")
    assert [said.split(" and was left out")[0] for said in found.warnings] == ["b has no steps", "c has no steps"]


@pytest.mark.parametrize("steps", [None, FEWEST_STEPS])
def test_the_profile_of_a_trace_itself_repeats_no_caveat_and_cannot_be_forced(
    steps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = None if steps is None else pd.DataFrame(index=range(steps))
    requests = pd.DataFrame({"first_token_s": [1.0, NAN]})
    own: Any = SimpleNamespace(name="t", digest="d", steps=table, requests=requests)

    def calibrated(runs: list[Run], **_: Any) -> Profile:
        return PROFILE.changed(warnings=(f"{runs[0].name}: late", "other"))

    def refused(*_: Any, **__: Any) -> Profile:
        raise TraceError(f"too noisy{FORCE}")

    monkeypatch.setattr(calibration, "caveats", lambda _: ["late"])
    monkeypatch.setattr(calibration, "calibrate", calibrated)
    assert calibration.fit_own_profile(own).warnings == ("other",)
    monkeypatch.setattr(calibration, "calibrate", refused)
    if steps is None:
        with pytest.raises(TraceError, match="too noisy; give a profile with --profile"):
            calibration.fit_own_profile(own)


@pytest.mark.parametrize(("first", "told"), [([1.0, NAN], False), ([NAN, NAN], True)])
def test_a_trace_without_any_time_of_an_answer_is_said_to_have_none(first: list[float], told: bool) -> None:
    bare: Any = SimpleNamespace(steps=None, requests=pd.DataFrame({"first_token_s": first}))
    with pytest.raises(TraceError, match="has no steps table") as error:
        calibration.fit_profile(bare)
    assert ("and no times of answers" in str(error.value)) is told


# -- whether scheduling was asynchronous
def fitter(error_of: Callable[[bool, bool], float]) -> Any:
    """A stand-in for ``RequestFitter``: its error by whether scheduling is asynchronous and arrivals wait for ends."""

    class Fitter:
        def __init__(self, traces: Any, base: Profile, report: Any, until: float, loops: bool) -> None:
            self.base, self.loops = base, loops

        def fit(self) -> str:
            return "fit"

        def error(self, fit: str) -> float:
            return error_of(self.base.engine.async_scheduling, self.loops) / (2 if fit == "whole" else 1)

        def with_all_time(self, fit: str, warnings: list[str]) -> str:
            return "whole"

    return Fitter


@pytest.mark.parametrize(
    ("unusual", "taken", "told"),
    [
        (0.09, True, "is taken as true: simulated percentiles are 10.0 % off so, 9.0 % otherwise"),
        (0.07, False, "is taken as false: simulated percentiles are 7.0 % off so, 10.0 % otherwise"),
    ],
)
def test_scheduling_is_taken_for_unusual_where_that_fits_clearly_better(
    unusual: float, taken: bool, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = engine(async_scheduling=True).changed(assumed=("async_scheduling",))
    monkeypatch.setattr(from_requests, "RequestFitter", fitter(lambda ahead, _: 0.1 if ahead else unusual))
    warnings: list[str] = []
    fit, base, error = from_requests._best([], profile(settings), math.inf, lambda _: None, warnings)
    assert str(fit) == "whole"
    assert base.engine.async_scheduling is taken
    assert error == pytest.approx((0.1 if taken else unusual) / 2)  # of the fit whose time was put back
    assert warnings[0].endswith(told)


# -- what a fit to timings says of itself
def test_a_profile_of_timings_tells_decode_times_from_waits(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two decode times, one 10 % too short and one too long, each of 100 steps; two waits that are twice as long.
    columns = np.array([[100.0, 0, 0, 0, 0], [100, 9, 0, 0, 0], [9, 9, 9, 0, 1], [9, 0, 9, 9, 1]])
    fitted = np.ones(4)
    rows = Rows(columns, np.array([1.1, 0.9, 2.0, 2.0]), np.arange(4), fitted, np.arange(4))
    values = np.array([0.01, 1e-4, 1e-3, 1e-6, 0.02])
    solution = Solution(values, fitted, fitted)
    timed = request_fit.RequestFit(Form(), values, rows, solution, False, {})
    base = profile(engine(max_num_batched_tokens=77))
    monkeypatch.setattr(from_requests, "_best", lambda *_: (timed, base, 0.1))
    checked: list[str] = []
    monkeypatch.setattr(from_requests, "check_timings", lambda run: checked.append(run.name))
    found, warnings = [], []
    for runs, force in (([Run("a", trace)], False), ([Run("b", trace), Run("c", trace)], True)):
        said: list[str] = []
        found.append(from_requests.fit_requests(runs, math.inf, lambda _: None, said, force))
        warnings.append(any(line.startswith("one run only") for line in said))
    assert checked == ["a"]
    assert warnings == [True, False]
    one = found[0]
    assert one.fit is not None
    assert one.fit.rows == 2
    assert {region.name: region.mean_absolute_percentage_error for region in one.fit.regions} == pytest.approx(
        {"decode time of a request": (0.1 / 1.1 + 0.1 / 0.9) / 2, "time to first token": 0.5}
    )
    assert one.noise is not None
    assert one.noise.spread == pytest.approx(0.1 * 100**0.5 / 0.455**0.5)  # of a step, of which a mean has 100
    assert one.seen is not None
    assert one.seen.prefill_tokens == 77


def test_paces_are_no_part_of_the_error_of_a_fit() -> None:
    found = np.concatenate([np.tile([0.1, -0.3], MEASURES)[:MEASURES], [9.0, 9.0]])
    seen = request_fit.Seen(found, (1.0, 1.0))
    assert request_fit.error_of([seen]) == pytest.approx(np.abs(found[:MEASURES]).mean())


def test_a_fit_that_comes_back_to_a_profile_does_not_simulate_it_again(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles: list[str] = []

    def counted(part: Any, profile: Profile, loops: bool, steps: bool = True) -> Any:
        profiles.append(f"{profile.digest} {steps}")
        return resimulate(part, profile, loops, steps)

    monkeypatch.setattr(request_fit, "resimulate", counted)
    fitter = request_fit.RequestFitter([trace], PROFILE, lambda _: None)
    slower = PROFILE.changed(intercept_s=2 * PROFILE.intercept_s)
    first = [fitter.seen(0, profile) for profile in (PROFILE, slower)]
    assert first[0].errors[0] < first[1].errors[0]
    assert [fitter.seen(0, profile) for profile in (PROFILE, slower)] == first
    lives = fitter.lives(PROFILE)
    assert fitter.lives(PROFILE) is lives
    assert fitter.seen(0, PROFILE).errors.tobytes() == first[0].errors.tobytes()
    assert len(profiles) == 3  # each, and one of them with its steps


# -- lives and their rows
def test_an_excerpt_ends_with_its_steps_or_with_what_may_be_known(trace: Trace) -> None:
    pace = float((trace.requests["finish_s"] - trace.requests["first_token_s"]).median())
    assert pace > 0
    known = beginning(trace, 1e9, until=0.3)
    assert (known.until, len(known.trace.requests)) == (0.3, 11)
    few = beginning(trace, 10)
    assert 0 < few.until < 0.3
    assert len(few.trace.requests) == int(few.until / 0.03) + 1
    assert beginning(trace, 1e9).until == math.inf


def test_what_ended_later_tells_nothing_of_an_overlap() -> None:
    begin = np.arange(20.0)
    rows = pd.DataFrame({
        "arrival_s": begin - 0.5, "first_token_s": begin, "finish_s": begin + 2.5, "output_tokens": 26,
        "prompt_tokens": 10,
    })  # fmt: skip
    slower = rows.assign(finish_s=np.where(begin < 10, rows["finish_s"], begin + 90))
    guesses = [
        from_overlap([Excerpt(SimpleNamespace(finished=table), 12.0)])  # type: ignore[arg-type]
        for table in (rows, slower)
    ]
    assert guesses[0] == pytest.approx(guesses[1])


def test_rows_of_a_life_add_up_to_what_was_recorded_and_runs_share_no_block(trace: Trace) -> None:
    life = resimulate(Excerpt(trace), PROFILE, loops=True)
    rows = rows_of([life, life], Form(), precision=(0.1, 1.0))
    values = np.array([0.010, 1e-4, 0.001, 1e-6, 0.0])
    assert rows.columns @ values == pytest.approx(rows.duration, rel=1e-6)  # waits for the dispatcher, too
    assert len(rows.duration) == 4 * len(trace.requests)
    first = np.repeat([True, False], 2 * len(trace.requests))
    for block in (rows.block, rows.tenth):
        assert not set(block[first]) & set(block[~first])
    until = float(trace.requests["finish_s"].median())
    cut = rows_of([replace(life, part=Excerpt(trace, until))], Form(), precision=(0.1, 1.0))
    known = (trace.requests[["first_token_s", "finish_s"]] <= until).to_numpy().sum()
    assert len(cut.duration) == known < 2 * len(trace.requests)


# -- guards
def stub(pace: float, *kinds: str) -> Any:
    """A run of a hundred requests of the same pace (s), of phases of these ``kinds``."""
    rows = pd.DataFrame({"first_token_s": [0.0] * 100, "finish_s": 7 * pace, "output_tokens": 8}).iloc[:19]
    phases = [SimpleNamespace(kind=kind) for kind in kinds]
    header = SimpleNamespace(workload=SimpleNamespace(phases=phases))
    return SimpleNamespace(name="r", trace=SimpleNamespace(requests=range(100), finished=rows, header=header))


@pytest.mark.parametrize(
    ("known", "kinds", "told"),
    [
        (94, ("open",), "6 % of the requests of r have no known output"),
        (96, ("open", "open"), "its arrivals waited for answers"),
        (96, ("open", "closed"), "or its settings are others"),
    ],
)
def test_the_likeliest_reason_is_a_load_that_nobody_knows(
    known: int, kinds: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "as_far_as_known", lambda _: range(known))
    said = guards.likeliest_reason([stub(0.01, *kinds)])
    assert told in said
    assert ("users = N" in said) is ("waited" in told)


def test_a_step_reads_the_weights_at_the_pace_of_most_runs_and_no_host_holds_an_output_back() -> None:
    runs = [stub(pace, "open") for pace in (0.01, 0.01, 1.0)]
    fit = Fit(source="requests", rows=9, mean_absolute_percentage_error=0.0, r_squared=1.0, bias=0.0)
    sound = Profile.plain(0.001).changed(fit=fit)
    assert guards.unphysical(sound, runs) == []
    (said,) = guards.unphysical(sound.changed(output_lag_s=0.2), runs)
    assert "output_lag_s is 0.2 s" in said
    assert guards.unphysical(sound.changed(output_lag_s=0.2, fit=fit.changed(source="steps")), runs) == []


# -- steps
def stepped(gap_s: float, lag_s: float, requests: int, prompt: int) -> Trace:
    """A recorded run of requests that never wait for a slot."""
    made = workload([0.04 * at for at in range(requests)], [4 + at % 7 for at in range(requests)], prompt_tokens=prompt)
    truth = PROFILE.changed(gap_s=gap_s, submit_lag_s=lag_s, notify_lag_s=lag_s)
    return simulate(Scenario(profile=truth), made, record_steps=True)


def test_what_surrounds_the_steps_is_that_of_all_runs() -> None:
    runs = [stepped(0.001, 0.001, 20, 8), stepped(0.004, 0.004, 60, 20)]
    found = calibration.calibrate([Run(str(at), run) for at, run in enumerate(runs)])
    alone = [calibration.fit_profile(run) for run in runs]
    count = [len(run.steps) for run in runs if run.steps is not None]
    assert found.gap_s == pytest.approx(np.average([0.001, 0.004], weights=count), rel=1e-3)
    assert found.submit_lag_s == pytest.approx((alone[0].submit_lag_s + alone[1].submit_lag_s) / 2)
    assert alone[0].submit_lag_s < alone[1].submit_lag_s
    assert found.seen is not None
    assert found.seen.prefill_tokens == max(
        int(run.steps["prefill_tokens"].max()) for run in runs if run.steps is not None
    )
    assert (found.launch_s, found.graph_tokens) == (0.0, 0)


def test_a_step_is_never_free_and_a_load_is_what_nine_steps_in_ten_had() -> None:
    run = stepped(0.0, 0.0, 40, 8)
    assert run.steps is not None
    tokens = run.steps["prefill_tokens"] + run.steps["decode_requests"]
    free = calibration.fit_profile(replace(run, steps=run.steps.assign(duration_s=0.001 * tokens)))
    assert free.intercept_s == LEAST_INTERCEPT_S
    decode = np.where(np.arange(len(tokens)) % 25 == 0, 1, 4)
    steps = run.steps.assign(prefill_tokens=0, decode_requests=decode, duration_s=0.01)
    said = calibration.fit_profile(replace(run, steps=steps)).warnings
    assert any("one load only: nine steps in ten had 4 to 4 decoding requests" in line for line in said)


def test_a_host_that_takes_twice_as_long_is_slow_by_the_logarithm_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    run = stepped(0.0, 0.0, 40, 8)
    assert run.steps is not None
    slow = replace(run, steps=run.steps.assign(duration_s=2 * run.steps["duration_s"]))

    def calibrated(runs: Any, *, source: str, force: bool) -> Profile:
        if not force:
            raise TraceError("refused")
        return PROFILE

    monkeypatch.setattr(host_speed, "calibrate", calibrated)
    found = host_speed.host_speeds([Run("a", run), Run("b", slow)])
    assert found.logs == pytest.approx((0.0, math.log(2)), abs=1e-6)


def test_runs_of_one_engine_share_a_profile_and_other_settings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_of, "caveats", lambda _: [])

    def run(name: str, **settings: Any) -> Any:
        header = SimpleNamespace(model="m", hardware="h", engine=engine(**settings))
        return SimpleNamespace(name=name, digest=name, trace=SimpleNamespace(header=header))

    assert runs_of.check_runs([run("a"), run("b")]) == []
    assert [line.split(" than ")[0] for line in runs_of.check_runs([run("a"), run("b", max_num_seqs=9)])] == [
        "b ran with other engine settings"
    ]
    with pytest.raises(TraceError, match=r"b: engine version is '0.9.0', but '0.32.0' in a; fit them apart"):
        runs_of.check_runs([run("a"), run("b", version="0.9.0")])


def test_a_profile_has_seen_the_most_of_any_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_of, "extent", lambda reach: reach)
    found = runs_of.coverage_of([(3, 10), (1, 50)], 7)  # type: ignore[list-item]
    assert (found.running, found.context_tokens, found.prefill_tokens) == (3, 50, 7)


# -- verbs
def test_a_verb_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def fitted(_: Any, **options: Any) -> Profile:
        given.append(options)
        return PROFILE

    monkeypatch.setattr(profiles, "fit_runs", fitted)
    profiles.calibrate()
    profiles.calibrate(until=9.0, force=True, source="requests")
    assert [(one["until"], one["force"], one["source"]) for one in given] == [
        (math.inf, False, "auto"),
        (9.0, True, "requests"),
    ]
