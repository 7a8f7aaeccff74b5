"""Loops: requests that wait for others to end do so again, and a file's loop is told or found, never assumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.runs import Run
from driftsim.errors import InputError
from driftsim.formats.imports import import_trace
from driftsim.formats.mapping import Mapping
from driftsim.latency.profile import Profile
from driftsim.metrics import summary
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.header import Phase
from driftsim.trace.loops import Told, due_times, find_loop
from driftsim.trace.trace import Trace
from driftsim.validation.validation import on_model_steps
from driftsim.workloads.lengths import Lengths
from driftsim.workloads.processes import Process
from driftsim.workloads.replay import as_recorded, replay
from driftsim.workloads.workload import Workload
from tests.commands import driftsim
from tests.strategies import engine, profile, workload

PLAIN: dict[str, Any] = {
    "prompt_tokens": Lengths(kind="uniform", low=50, high=900),
    "output_tokens": Lengths(kind="uniform", low=10, high=90),
}


def model(slower: float = 1.0) -> Profile:
    times = {"intercept_s": 0.01, "prefill_token_s": 1e-4, "context_token_s": 1e-7}
    return profile(
        engine(max_num_seqs=64, max_num_batched_tokens=2048, max_model_len=8192, kv_blocks=9000, block_size=16),
        **{name: slower * value for name, value in times.items()},
    )


def served(made: Workload, slower: float = 1.0, **changes: Any) -> Trace:
    return simulate(Scenario(profile=model(slower), policy="stock", **changes), made)


def outstanding(trace: Trace) -> int:
    """The most requests that were out at once."""
    rows = trace.requests
    ends = np.sort(rows["finish_s"].to_numpy())
    arrivals = np.sort(rows["arrival_s"].to_numpy())
    return int((np.arange(1, len(rows) + 1) - np.searchsorted(ends, arrivals, side="right")).max())


def bench(trace: Trace, file: Path, **told: Any) -> Path:
    """``trace`` as vllm bench would have saved it."""
    rows = trace.requests
    gaps = (rows["finish_s"] - rows["first_token_s"]) / (rows["output_tokens"] - 1).clip(lower=1)
    content = {
        "model_id": "m", "input_lens": rows["prompt_tokens"].tolist(), "output_lens": rows["output_tokens"].tolist(),
        "start_times": (rows["arrival_s"] + 1000).tolist(),
        "ttfts": (rows["first_token_s"] - rows["arrival_s"]).tolist(),
        "itls": [[gap] * (count - 1) for gap, count in zip(gaps, rows["output_tokens"], strict=True)],
        "errors": [""] * len(rows), **told,
    }  # fmt: skip
    file.write_text(json.dumps(content))
    return file


# -- the capped phase
@given(st.integers(1, 5), st.lists(st.sampled_from([0.0, 0.01, 0.1]), min_size=1, max_size=20))
def test_a_capped_phase_never_has_more_out_and_sends_no_earlier_than_due(cap: int, gaps: list[float]) -> None:
    due = np.cumsum(gaps)
    phase = Phase(name="only", kind="capped", requests=len(gaps), users=cap)
    trace = served(workload(due.tolist(), [7] * len(gaps), (phase,)))
    assert outstanding(trace) <= cap
    assert (trace.requests["arrival_s"].to_numpy() >= due - 1e-9).all()
    ends = np.sort(trace.requests["finish_s"].to_numpy())
    held = trace.requests["arrival_s"].to_numpy() > due + 1e-9
    late = trace.requests["arrival_s"].to_numpy()[held]
    assert all(np.isclose(ends, moment).any() for moment in late)  # held back only until somebody ended


def test_a_cap_that_never_binds_changes_nothing() -> None:
    made = Workload.poisson(rate=2.0, requests=60, **PLAIN)
    capped = Workload.poisson(rate=2.0, requests=60, max_outstanding=60, **PLAIN)
    assert capped.info.phases[0].kind == "capped"
    assert served(capped).requests["finish_s"].tolist() == served(made).requests["finish_s"].tolist()


def test_a_cap_of_one_serves_one_at_a_time() -> None:
    trace = served(Workload.poisson(rate=50.0, requests=30, max_outstanding=1, **PLAIN))
    rows = trace.requests
    assert (rows["arrival_s"].to_numpy()[1:] >= rows["finish_s"].to_numpy()[:-1] - 1e-9).all()


@pytest.mark.parametrize("changes", [{"max_outstanding": 0}, {"kind": "closed", "users": 3, "max_outstanding": 2}])
def test_a_cap_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="max_outstanding must be"):
        Process(**({"kind": "poisson", "rate": 1.0} | changes if "kind" not in changes else changes))


# -- finding the loop
@pytest.mark.parametrize("users", [4, 32])
@pytest.mark.parametrize("think_s", [0.0, 0.3])
def test_a_closed_loop_is_found_where_nobody_told(users: int, think_s: float, tmp_path: Path) -> None:
    trace = served(Workload.closed(users=users, requests=200, think_s=think_s, **PLAIN))
    found = import_trace(bench(trace, tmp_path / "b.json"))
    phase = found.header.workload.phases[0]
    assert (phase.kind, phase.users) == ("closed", users)
    assert phase.think_s == pytest.approx(think_s, abs=1e-6)
    assert any("taken as a closed loop" in caveat for caveat in found.header.caveats)


def test_a_capped_loop_is_found_where_nobody_told(tmp_path: Path) -> None:
    trace = served(Workload.poisson(rate=6.0, requests=300, max_outstanding=6, **PLAIN))
    found = import_trace(bench(trace, tmp_path / "b.json"))
    assert (found.header.workload.phases[0].kind, found.header.workload.phases[0].users) == ("capped", 6)
    assert outstanding(served(replay(found), slower=2.0)) <= 6


@pytest.mark.parametrize("rate", [0.5, 2.0, 4.0, 12.0])
def test_an_open_loop_is_never_taken_for_another(rate: float, tmp_path: Path) -> None:
    for seed in range(5):
        trace = served(Workload.poisson(rate=rate, requests=250, seed=seed, **PLAIN))
        found = import_trace(bench(trace, tmp_path / "b.json"))
        assert found.header.workload.phases[0].kind == "open"


def test_what_a_file_tells_of_its_loop_is_held_against_its_times(tmp_path: Path) -> None:
    closed = served(Workload.closed(users=8, requests=120, **PLAIN))
    opened = served(Workload.poisson(rate=3.0, requests=120, **PLAIN))

    def kind(trace: Trace, **told: Any) -> tuple[str, int, str]:
        header = import_trace(bench(trace, tmp_path / "b.json", **told)).header
        return header.workload.phases[0].kind, header.workload.phases[0].users, " ".join(header.caveats)

    assert kind(closed, max_concurrency=8, request_rate="inf")[:2] == ("closed", 8)
    wrong = kind(opened, max_concurrency=8, request_rate="inf")
    assert wrong[0] == "open"
    assert "its arrivals do not follow its ends" in wrong[2]
    assert kind(opened, max_concurrency=1000, request_rate="inf")[0] == "open"
    assert kind(opened, max_concurrency=None, request_rate=3.0)[0] == "open"
    for users in ("8", 8.0, "x", None, 0, -1, True, [8], 10**9):  # told oddly, or wrongly: the times tell
        for rate in ("inf", None, 0, -1, "x"):
            assert kind(closed, max_concurrency=users, request_rate=rate)[:2] == ("closed", 8), (users, rate)
    more = kind(opened, max_concurrency=2, request_rate=3.0)
    assert more[0] == "open"
    assert "were out" in more[2]


def test_failures_of_which_nobody_knows_the_end_do_not_hide_a_loop_that_the_file_tells(tmp_path: Path) -> None:
    waits = [5.0 if row % 10 == 5 else 0.0 for row in range(184)]  # users whose request failed, after 5 s
    trace = served(by_hand(200, 16, [0.0] * 16, waits))
    file = bench(trace, tmp_path / "b.json", max_concurrency=16, request_rate="inf")
    content = json.loads(file.read_text())
    ends = np.sort(trace.requests["finish_s"].to_numpy())
    for row in np.flatnonzero(waits).tolist():  # sent when a user was free; zeros, as vllm bench writes a failure
        zeros = {"input_lens": 9, "output_lens": 0, "ttfts": 0.0, "itls": [], "errors": "Timeout"}
        for name, value in zeros.items():
            content[name].append(value)
        content["start_times"].append(1000 + ends[row])
    file.write_text(json.dumps(content))
    found = import_trace(file)
    assert found.header.workload.phases[0].kind == "closed"
    assert sum(found.requests["finish_reason"] == "error") == len(np.flatnonzero(waits))
    assert any("its users did not all wait alike" in caveat for caveat in found.header.caveats)
    errors = [row["error"] for row in on_model_steps("t", found, model()).rows()]
    assert max(map(abs, errors)) < 1e-3


def test_users_that_are_told_make_a_loop_even_where_nobody_knows_the_ends(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("t,p,o\n" + "".join(f"{at},50,20\n" for at in range(40)))
    (tmp_path / "m.toml").write_text(
        'users = 8\n[columns]\narrival_s = "t"\nprompt_tokens = "p"\noutput_tokens = "o"\n'
    )
    trace = import_trace(tmp_path / "r.csv", mapping=tmp_path / "m.toml")
    assert (trace.header.workload.phases[0].kind, trace.header.workload.phases[0].users) == ("closed", 8)
    assert any("as you say; when requests ended is not" in caveat for caveat in trace.header.caveats)
    quick, slow = (served(replay(trace), slower=factor).requests["arrival_s"].max() for factor in (1.0, 9.0))
    assert slow > 1.5 * quick  # arrivals wait for ends


def test_requests_that_came_at_once_for_more_users_than_requests_are_a_backlog() -> None:
    loop = find_loop(np.zeros(5), np.arange(1.0, 6.0), Told(users=10, rate=np.inf))
    assert loop.kind == "backlog"


def test_due_times_lie_between_those_of_requests_that_nothing_held_back() -> None:
    made = Workload.poisson(rate=6.0, requests=300, max_outstanding=6, **PLAIN)
    rows = served(made).requests
    arrival, end = (rows[name].to_numpy() for name in ("arrival_s", "finish_s"))
    due, truth = due_times(arrival, end, 6), made.table["offset_s"].to_numpy()
    assert (due <= arrival + 1e-9).all()
    assert (np.diff(due) >= -1e-9).all()
    assert np.abs(due - truth).mean() < np.abs(arrival - truth).mean()  # nearer to the truth than the sends are


def loop_of(trace: Trace, tmp_path: Path, **mapping: Any) -> Trace:
    """``trace`` as a table that tells nothing of its loop, brought in again with what ``mapping`` says."""
    names = {"arrival_s": "a", "first_token_s": "f", "finish_s": "e", "prompt_tokens": "p", "output_tokens": "o"}
    rows = trace.requests.rename(columns=names)[[*names.values(), "phase"]]
    rows.to_csv(tmp_path / "r.csv", index=False)
    columns = names | ({"phase": "phase"} if mapping.pop("phases", False) else {})
    return import_trace(tmp_path / "r.csv", mapping=Mapping(columns=columns, **mapping))


def by_hand(count: int, users: int, begins: Sequence[float], waits: Sequence[float]) -> Workload:
    """A closed loop whose users begin and wait as told."""
    made = Workload.closed(users=users, requests=count, **PLAIN)
    return replace(made, table=made.table.assign(offset_s=[*begins, *waits]))


@given(st.data(), st.integers(1, 6))
def test_users_begin_and_wait_again_as_they_did(data: st.DataObject, users: int) -> None:
    count = data.draw(st.integers(users, 30))
    times = st.floats(0.0, 3.0).map(lambda value: round(value, 3))
    begins = sorted(data.draw(st.lists(times, min_size=users, max_size=users)))
    waits = data.draw(st.lists(times, min_size=count - users, max_size=count - users))
    begins = [begin - begins[0] for begin in begins]
    trace = served(by_hand(count, users, begins, waits))
    again = served(replay(trace))
    assert outstanding(again) <= users
    differences = (again.requests["arrival_s"] - trace.requests["arrival_s"]).abs()
    assert differences.max() < 1e-6


@pytest.mark.parametrize("apart_s", [0.1, 1.0])
def test_users_who_begin_one_after_the_other_are_a_loop_all_the_same(apart_s: float, tmp_path: Path) -> None:
    begins = [user * apart_s for user in range(12)]
    made = by_hand(200, 12, begins, [0.0] * 188)
    trace = served(made)
    for found in (loop_of(trace, tmp_path), loop_of(trace, tmp_path, users=12)):
        assert (found.header.workload.phases[0].kind, found.header.workload.phases[0].users) == ("closed", 12)
        slow = served(made, slower=1.05).requests
        for row in on_model_steps("t", found, model(1.05)).rows():
            if row["metric"] == "makespan":
                truth = (slow["finish_s"].max()) / trace.requests["finish_s"].max() - 1
                assert row["error"] == pytest.approx(truth, abs=0.005)


def test_a_pause_inside_a_loop_is_kept(tmp_path: Path) -> None:
    waits = [0.0] * 192
    waits[90:98] = [20.0] * 8
    trace = served(by_hand(200, 8, [0.0] * 8, waits))
    found = loop_of(trace, tmp_path)
    assert found.header.workload.phases[0].kind == "closed"
    for row in on_model_steps("t", found, model()).rows():
        assert abs(row["error"]) < 1e-3


def test_one_user_is_a_loop(tmp_path: Path) -> None:
    found = loop_of(served(Workload.closed(users=1, requests=60, **PLAIN)), tmp_path)
    assert (found.header.workload.phases[0].kind, found.header.workload.phases[0].users) == ("closed", 1)
    for row in on_model_steps("t", found, model(1.05)).rows():
        assert row["error"] == pytest.approx(0.05, abs=2e-3)


def test_users_who_think_for_random_times_are_a_loop_if_you_say_so(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    made = by_hand(200, 16, [0.0] * 16, random.exponential(2.0, 184).tolist())
    trace = served(made)
    found = loop_of(trace, tmp_path, users=16)
    assert found.header.workload.phases[0].kind == "closed"
    few = model().changed(engine=model().engine.changed(max_num_seqs=4))
    truth, ours = (
        summary(simulate(Scenario(profile=few, policy="stock"), one))["e2e_mean_s"] for one in (made, replay(found))
    )
    assert ours == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize("rate", [2.0, 4.0, 8.0])
def test_requests_at_an_even_pace_are_open_however_much_they_look_like_users(rate: float, tmp_path: Path) -> None:
    made = Workload.backlog(requests=200, prompt_tokens=200, output_tokens=50)
    phases = (Phase(name="only", requests=200),)
    table = made.table.assign(offset_s=np.arange(200) / rate, phase="only")
    trace = served(replace(made, info=made.info.changed(phases=phases), table=table))
    assert loop_of(trace, tmp_path).header.workload.phases[0].kind == "open"
    told = import_trace(bench(trace, tmp_path / "b.json", request_rate=rate, max_concurrency=None))
    assert told.header.workload.phases[0].kind == "open"


def test_each_phase_has_a_loop_of_its_own_and_none_where_they_overlap(tmp_path: Path) -> None:
    one = Workload.closed(users=8, requests=100, **PLAIN)
    names = np.where(np.arange(200) < 100, "a", "b")
    phases = tuple(
        Phase(name=name, kind="closed", users=8, requests=100, pause_s=40.0 * (name == "b")) for name in "ab"
    )
    table = pd.concat([one.table, one.table], ignore_index=True).assign(
        phase=names, request_id=[f"r{row}" for row in range(200)]
    )
    trace = served(replace(one, info=one.info.changed(phases=phases), table=table))
    for options in ({}, {"users": 8}):
        found = loop_of(trace, tmp_path, phases=True, **options)
        assert [(phase.kind, phase.users) for phase in found.header.workload.phases] == [("closed", 8)] * 2
        for row in on_model_steps("t", found, model()).rows():
            assert abs(row["error"]) < 1e-3
    mixed = replace(trace, requests=trace.requests.assign(phase=np.where(np.arange(200) % 2, "a", "b")))
    found = loop_of(mixed, tmp_path, phases=True, users=8)
    assert {phase.kind for phase in found.header.workload.phases} == {"open"}
    assert any("its phases overlap" in caveat and "the 8 users do nothing" in caveat for caveat in found.header.caveats)


def test_a_run_that_may_be_a_loop_is_said_to_be_one(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    waits = np.where(random.random(188) < 0.5, 0.0, random.exponential(3.0, 188))
    found = loop_of(served(by_hand(200, 12, [0.0] * 12, waits.tolist())), tmp_path)
    assert found.header.workload.phases[0].kind == "open"
    assert any("if users waited for answers, say so with users = N" in caveat for caveat in found.header.caveats)


# -- what is concluded from a loop
@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Trace]:
    folder = tmp_path_factory.mktemp("loops")
    traces = {}
    for users in (8, 32):
        trace = served(Workload.closed(users=users, requests=120, **PLAIN))
        file = bench(trace, folder / f"c{users}.json", max_concurrency=users, request_rate="inf")
        traces[users] = import_trace(file)
    return traces


def test_a_model_that_is_slower_delays_the_arrivals_of_a_closed_loop(loops: dict[int, Trace]) -> None:
    for slower in (1.0, 1.05, 1.5):
        for row in on_model_steps("t", loops[32], model(slower)).rows():
            assert row["error"] == pytest.approx(slower - 1, abs=2e-3), row


def test_a_closed_loop_gives_back_the_coefficients_of_its_engine(loops: dict[int, Trace]) -> None:
    fitted = calibrate([Run(str(users), trace) for users, trace in loops.items()])
    truth = model()
    assert fitted.intercept_s == pytest.approx(truth.intercept_s, rel=0.05)
    assert fitted.prefill_token_s == pytest.approx(truth.prefill_token_s, rel=0.05)
    assert fitted.context_token_s == pytest.approx(truth.context_token_s, rel=0.05)


def test_fewer_slots_make_a_closed_loop_slower(loops: dict[int, Trace]) -> None:
    few = model().changed(engine=model().engine.changed(max_num_seqs=8))
    made = replay(loops[32])
    mean = {
        slots: summary(simulate(Scenario(profile=known, policy="stock"), made))["e2e_mean_s"]
        for slots, known in ((64, model()), (8, few))
    }
    assert mean[8] > 1.05 * mean[64]


def test_a_closed_loop_has_no_rate_to_scale(loops: dict[int, Trace], tmp_path: Path) -> None:
    place = loops[8].write(tmp_path / "t")
    model().save(tmp_path / "p.json")
    run = driftsim("compare", place, "--profile", tmp_path / "p.json", "--rate-scale", "2")
    assert run.returncode == 2
    assert "--arrivals closed --users N" in run.stderr
    assert "--arrivals poisson --rate R" in run.stderr


def test_open_arrivals_are_repeated_as_they_were_recorded() -> None:
    trace = served(Workload.poisson(rate=3.0, requests=50, **PLAIN))
    assert as_recorded(trace).table["offset_s"].tolist() == trace.requests["arrival_s"].tolist()


def test_a_closed_loop_without_a_queue_is_pressed_by_more_users(loops: dict[int, Trace], tmp_path: Path) -> None:
    place = loops[8].write(tmp_path / "t")
    run = driftsim("compare", place, "--policies", "fifo,sjf", "--replications", "1", "--estimators", "static")
    said = " ".join(run.stdout.split())
    assert "press this run harder with more users (--arrivals closed --users N)" in said
    assert "Held out: fitted to what finished in its first" in said
    model().save(tmp_path / "p.json")
    pressed = driftsim("compare", place, "--policies", "fifo,sjf", "--replications", "1", "--json",
                       "--profile", tmp_path / "p.json",
                       "--arrivals", "closed", "--users", "64", "--max-num-seqs", "4")  # fmt: skip
    rows = json.loads(pressed.stdout)
    assert rows["arrivals"] == {"kind": "closed", "users": 64}
    assert rows["rows"][0]["choice_fraction"] > 0.5
