"""A timeline for Perfetto: slices of a request are its life, a lane holds one at a time, counters are the table's."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import driftsim as ds
from driftsim.errors import InputError
from driftsim.formats import perfetto as module
from driftsim.formats.lanes import packed
from driftsim.formats.perfetto import COUNTERS, QUEUE, STEPS_TRACK, TOKENS, Timeline, perfetto, process_name
from driftsim.formats.window import View
from driftsim.metrics import queue_depth
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace, read
from driftsim.workloads.workload import Workload
from tests.commands import driftsim
from tests.conftest import ONE_OF_EACH
from tests.strategies import engine, profile, workload, workloads
from tests.test_laws import scenarios

Event = dict[str, Any]
SOME = settings().max_examples // 3
STAGES = {"waiting", "prefill", "decode", "preempted"}


def crowded() -> Trace:
    """Requests of three tenants share so few KV blocks that some are preempted."""
    small = profile(engine(kv_blocks=15, block_size=4, max_num_seqs=6), gap_s=0.0001)
    made = workload(
        [0.01 * row for row in range(12)], [20] * 12, prompt_tokens=[9, 13, 7, 11, 16, 5] * 2, tenant=list("abcabc") * 2
    )
    return simulate(Scenario(profile=small, policy="stock"), made, step_requests=True)


def events(made: Timeline) -> list[Event]:
    found: list[Event] = json.loads(made.content)["traceEvents"]
    return found


def check_format(found: Iterable[Event]) -> None:
    """As the Trace Event Format has it: what each kind of event needs, and a name for each process and track."""
    found = list(found)
    processes = {one["pid"] for one in found if one["name"] == "process_name"}
    tracks = [(one["pid"], one["tid"]) for one in found if one["name"] == "thread_name"]
    assert len(set(tracks)) == len(tracks)
    for one in found:
        assert one["ph"] in ("M", "X", "C", "i")
        assert isinstance(one["name"], str)
        assert one["pid"] in processes
        if one["ph"] == "M":
            assert set(one["args"]) in ({"name"}, {"sort_index"})
            continue
        assert isinstance(one["ts"], int)
        assert one["ts"] >= 0
        if one["ph"] == "X":
            assert isinstance(one["dur"], int)
            assert one["dur"] >= 0
        if one["ph"] in ("X", "i"):
            assert (one["pid"], one["tid"]) in tracks
        if one["ph"] == "i":
            assert one["s"] == "t"
        if one["ph"] == "C":
            assert [type(value) for value in one["args"].values()] == [int]


def check_lanes(found: Iterable[Event]) -> None:
    """No two slices of a track share a moment."""
    tracks = defaultdict(list)
    for one in found:
        if one["ph"] == "X":
            tracks[one["pid"], one["tid"]].append((one["ts"], one["ts"] + one["dur"]))
    for spans in tracks.values():
        assert all(end <= begin for (_, end), (begin, _) in pairwise(sorted(spans)))


def strips(found: Iterable[Event]) -> dict[str, list[Event]]:
    """The slices of each request, in order."""
    by_request = defaultdict(list)
    for one in found:
        if one["ph"] == "X" and one["cat"] == "request":
            by_request[one["args"]["request"]].append(one)
    return {name: sorted(own, key=lambda one: one["ts"]) for name, own in by_request.items()}


def check_strips(found: Iterable[Event], requests: pd.DataFrame) -> None:
    """The slices of each finished request follow each other from its arrival to its finish."""
    shown = strips(found)
    done = requests[requests["finish_reason"].isin(FINISHED)]
    assert set(done["request_id"]) <= set(shown)
    for row in done.to_dict("records"):
        own = shown[row["request_id"]]
        assert len({one["tid"] for one in own}) == 1
        assert own[0]["ts"] == round(row["arrival_s"] * 1e6)
        assert all(one["ts"] + one["dur"] == other["ts"] for one, other in pairwise(own))
        assert sum(one["dur"] for one in own) == pytest.approx(1e6 * (row["finish_s"] - row["arrival_s"]), abs=1.001)


def check_counter(
    found: Iterable[Event], counter: tuple[str, str], moments: Iterable[float], values: Iterable[int]
) -> None:
    """A counter is told as it changes; held until then, it has each of ``values`` at its moment."""
    name, series = counter
    changes = [one for one in found if one["ph"] == "C" and one["name"] == name]
    times, told = [one["ts"] for one in changes], [one["args"][series] for one in changes]
    at = np.round(np.asarray(list(moments)) * 1e6).astype(int)
    last = pd.Series(list(values)).groupby(at).last()  # of those in one microsecond
    held = pd.Series(told).groupby(np.asarray(times)).last()
    assert held.reindex(last.index, method="ffill").tolist() == last.tolist()


@pytest.mark.parametrize("folder", ONE_OF_EACH, ids=lambda folder: folder.name)
def test_a_captured_run_is_drawn_whole(folder: Path) -> None:
    trace = read(folder)
    made = perfetto([trace])
    found = events(made)
    check_format(found)
    check_lanes(found)
    check_strips(found, trace.requests)
    check_steps(found, trace)
    names = {one["name"] for one in found if one["ph"] == "X" and one["cat"] == "request"}
    assert names <= STAGES - {"preempted"}
    preempted = int(trace.requests["preemptions"].sum())
    assert made.notes == () if not preempted else f"{preempted} preemptions are counted but not drawn" in made.notes[0]


def check_steps(found: list[Event], trace: Trace) -> None:
    """The steps' slices and the counters hold the values of the table."""
    assert trace.steps is not None
    steps = [one for one in found if one.get("cat") == "step"]
    for name in ("prefill_tokens", "decode_requests", "kv_blocks_used", "running", "waiting", "preempted"):
        assert [one["args"][name] for one in steps] == trace.steps[name].tolist()
    np.testing.assert_allclose([one["dur"] for one in steps], 1e6 * trace.steps["duration_s"], atol=1.001)
    starts = trace.steps["start_s"]
    for column, counter in COUNTERS.items():
        check_counter(found, counter, starts, trace.steps[column])
    check_counter(found, TOKENS, starts, trace.steps["prefill_tokens"] + trace.steps["decode_requests"])
    check_counter(found, QUEUE, *queue_depth(trace.requests))


def test_a_simulated_run_shows_who_was_preempted_and_when() -> None:
    trace = crowded()
    made = perfetto([trace])
    found = events(made)
    assert made.notes == ()
    check_format(found)
    check_lanes(found)
    check_strips(found, trace.requests)
    check_steps(found, trace)
    counts = trace.requests.set_index("request_id")["preemptions"]
    assert counts.sum() > 2
    for name, own in strips(found).items():
        stages = [one["name"] for one in own]
        assert stages.count("preempted") == counts[name]
        assert all(after == "prefill" for before, after in pairwise(stages) if before == "preempted")
        assert stages[0] in ("waiting", "prefill")
        assert stages[-1] == "decode"
        assert set(stages) <= STAGES
    assert trace.steps is not None
    steps = [one["args"] for one in found if one.get("cat") == "step"]
    for args, ids, tokens in zip(steps, trace.steps["request_ids"], trace.steps["request_tokens"], strict=True):
        assert args["requests"] == dict(zip(ids, tokens.tolist(), strict=True))
        assert sum(args["requests"].values()) == args["prefill_tokens"] + args["decode_requests"]


@settings(max_examples=SOME)
@given(scenarios(), workloads(25, patient=False))
def test_whatever_happened_nothing_overlaps_and_nobody_is_lost(scenario: Scenario, workload: Workload) -> None:
    trace = simulate(scenario, workload, step_requests=True)
    found = events(perfetto([trace]))
    check_format(found)
    check_lanes(found)
    check_strips(found, trace.requests)
    shown = {one["args"]["request"] for one in found if one.get("cat") == "request"}
    instant = {one["args"]["request"] for one in found if one["ph"] == "i"}
    table = trace.requests.set_index("request_id")
    took_time = set(table.index[table["finish_s"] - table["arrival_s"] > 1e-5])
    assert took_time | set(table.index[~table["finish_reason"].isin(FINISHED)]) <= shown
    assert instant == set(table.index[~table["finish_reason"].isin(FINISHED)])


def test_requests_that_did_not_finish_are_marked_as_such() -> None:
    made = workload([0.0, 0.0, 0.0], [40, 5, 5], prompt_tokens=[8, 500, 8], patience_s=[0.1, np.nan, np.nan])
    trace = simulate(Scenario(profile=profile(engine(max_model_len=128))), made)
    reasons = trace.requests["finish_reason"].tolist()
    assert reasons == ["abort", "rejected", "stop"]
    open_ended = replace(
        trace,
        header=trace.header.changed(ended="interrupted"),
        requests=trace.requests.assign(
            finish_reason=pd.Series(["abort", "rejected", None]),
            finish_s=[trace.requests["finish_s"][0], np.nan, np.nan],
        ),
    )
    marks = {one["args"]["request"]: one["name"] for one in events(perfetto([open_ended])) if one["ph"] == "i"}
    assert marks == {"r0": "abort", "r1": "rejected", "r2": "unfinished"}
    last = strips(events(perfetto([open_ended])))["r2"][-1]
    assert last["ts"] + last["dur"] == round(
        1e6 * max(trace.requests["finish_s"][0], trace.requests["first_token_s"][2])
    )


def test_a_run_that_knows_only_arrivals_shows_them() -> None:
    run = ds.simulate(workload([0.5, 1.5], [5, 5]), profile=profile())
    times = ("dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s")
    header = run.header.changed(kind="imported")
    known = replace(run, header=header, requests=run.requests.assign(**dict.fromkeys(times, np.nan)))
    known.check("t")
    found = events(perfetto([known]))
    check_format(found)
    marks = [(one["name"], one["ts"]) for one in found if one["ph"] == "i"]
    assert marks == [("end not recorded", 500_000), ("end not recorded", 1_500_000)]


def test_stages_that_nobody_told_apart_are_one() -> None:
    """A server does not say when it began to compute; a barrier engine shows no first token."""
    run = ds.simulate(workload([0.0, 0.1], [5, 5]), profile=profile())
    served = replace(run, requests=run.requests.assign(scheduled_s=np.nan, queued_s=np.nan))
    stages = [[one["name"] for one in own] for own in strips(events(perfetto([served]))).values()]
    assert all(own[-2:] == ["waiting or prefill", "decode"] for own in stages)
    check_strips(events(perfetto([served])), served.requests)
    told = run.requests.assign(scheduled_s=np.nan, queued_s=np.nan, dispatch_s=np.nan, first_token_s=np.nan)
    known = replace(run, requests=told)
    stages = [[one["name"] for one in own] for own in strips(events(perfetto([known]))).values()]
    assert stages == [["waiting, prefill and decode"]] * 2
    assert not [one for one in events(perfetto([known])) if one["ph"] == "C"]  # who waits until when is not known
    barrier = ds.simulate(workload([0.0, 0.1], [5, 5]), profile=profile(), engine="barrier")
    stages = [[one["name"] for one in own] for own in strips(events(perfetto([barrier]))).values()]
    assert stages == [["waiting", "prefill and decode"]] * 2


def test_a_lane_is_the_first_that_is_free_and_belongs_to_a_tenant() -> None:
    trace = crowded()
    found = events(perfetto([trace]))
    named = {one["tid"]: one["args"]["name"] for one in found if one["name"] == "thread_name"}
    for own in strips(found).values():
        assert named[own[0]["tid"]].rsplit(" ", 1)[0] == own[0]["args"]["tenant"]
    assert next(iter(named.values())) == STEPS_TRACK
    assert list(named.values())[1:] == sorted(list(named.values())[1:])
    table = trace.requests
    for tenant in "abc":
        rows = table[table["tenant"] == tenant]
        together = max(int(((rows["arrival_s"] <= at) & (rows["finish_s"] > at)).sum()) for at in rows["arrival_s"])
        assert sum(name.startswith(tenant) for name in named.values()) == together


def test_lanes_are_reused_from_the_first() -> None:
    assert packed([("a", 0, 1), ("a", 0, 4), ("a", 1, 2), ("a", 1, 3)], most=9) == [
        ("a", 0),
        ("a", 1),
        ("a", 0),
        ("a", 2),
    ]


def test_traces_stand_side_by_side_each_at_its_own_start() -> None:
    runs = [crowded(), ds.simulate(workload([0.5], [3]), policy="sjf", estimator="ema", profile=profile())]
    found = events(perfetto(runs))
    check_format(found)
    names = {one["pid"]: one["args"]["name"] for one in found if one["name"] == "process_name"}
    assert names == {1: "test: stock/static, simulated", 2: "test: sjf/ema, simulated"}
    assert process_name(runs[1]) == names[2]
    assert min(one["ts"] for one in found if one.get("cat") == "request" and one["pid"] == 2) == 500_000
    assert len({one["tid"] for one in found if one["name"] == "thread_name"}) == len(
        [one for one in found if one["name"] == "thread_name"]
    )


def test_a_run_without_steps_says_how_to_record_them() -> None:
    run = ds.simulate(workload([0.0] * 3, [3] * 3), profile=profile(engine(max_num_seqs=2)))
    made = perfetto([run])
    assert len(made.notes) == 1
    assert "driftsim simulate --steps, or steps = true" in made.notes[0]
    assert json.loads(made.content)["otherData"]["notes"] == list(made.notes)
    assert {one["name"] for one in events(made) if one["ph"] == "C"} == {QUEUE[0]}


def test_a_window_draws_whole_requests_and_the_steps_in_it(shipped: Path) -> None:
    trace = read(shipped)
    made = perfetto([trace], View(since_s=100, until_s=130))
    found = events(made)
    assert made.notes == ()
    table = trace.requests
    there = table[(table["arrival_s"] <= 130) & (table["finish_s"] >= 100)]
    assert set(strips(found)) == set(there["request_id"])
    check_strips(found, there)
    steps = [one["args"]["step"] for one in found if one.get("cat") == "step"]
    assert trace.steps is not None
    assert steps == np.flatnonzero(trace.steps["start_s"].between(100, 130, inclusive="left")).tolist()


def test_a_limit_says_what_it_leaves_out(shipped: Path) -> None:
    trace = read(shipped)
    made = perfetto([trace], View(limit=100))
    found = events(made)
    shown = strips(found)
    assert len(made.notes) == 1
    assert f"{len(shown)} of 360 requests are drawn until" in made.notes[0]
    assert "--from and --to, in seconds, or raise --limit" in made.notes[0]
    assert len([one for one in found if one.get("cat") == "step"]) <= 1000
    check_strips(found, trace.requests[trace.requests["request_id"].isin(shown)])
    few = perfetto([replace(trace, steps=None)], View(limit=100))
    first = trace.requests.sort_values("scheduled_s", kind="stable")["request_id"][:100]
    assert set(strips(events(few))) == set(first)


def test_more_than_the_lanes_hold_are_drawn_without_their_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LANES", 6)
    made = workload([0.0] * 30, [5] * 30)
    trace = simulate(Scenario(profile=profile(engine(max_num_seqs=4))), made)
    drawn = perfetto([trace])
    found = events(drawn)
    check_lanes(found)
    names = [one["args"]["name"] for one in found if one["name"] == "thread_name"]
    assert len(names) == 6 + 4
    assert "more than 6 requests were there at once; the wait of 24 is not drawn; lower --limit" in drawn.notes[1]
    assert len(strips(found)) == 30
    waits = [one["args"]["waited_s"] for own in strips(found).values() for one in own]
    assert max(waits) == pytest.approx(float((trace.requests["scheduled_s"] - trace.requests["arrival_s"]).max()))
    lost = replace(
        trace,
        header=trace.header.changed(ended="interrupted"),
        requests=trace.requests.assign(
            **{name: trace.requests[name].where(trace.requests.index < 10) for name in
               ("scheduled_s", "first_token_s", "finish_s", "finish_reason", "dispatch_s", "queued_s")}
        ),
    )  # fmt: skip
    assert (
        "the wait of 4 is not drawn, and 20 requests are not drawn at all (20 unfinished)" in perfetto([lost]).notes[1]
    )


# -- the verb


def test_the_verb_writes_what_perfetto_opens(tmp_path: Path, shipped: Path) -> None:
    for name, verb in (("a.json", ["view"]), ("a.json.gz", ["trace", "view"]), ("again.json.gz", ["view"])):
        made = driftsim(
            *verb, shipped, shipped.with_name("smollm2-cpu-backlog"), "--out", tmp_path / name, "--from", 10, "--to", 20
        )
        assert made.returncode == 0, made.stderr
        assert made.stdout == ""
        assert (
            made.stderr.splitlines()[-1]
            == f"{tmp_path / name}: open it at https://ui.perfetto.dev, which uploads nothing"
        )
    plain = (tmp_path / "a.json").read_bytes()
    packed_bytes = (tmp_path / "a.json.gz").read_bytes()
    assert gzip.decompress(packed_bytes) == plain
    assert packed_bytes == (tmp_path / "again.json.gz").read_bytes()
    assert json.loads(plain)["displayTimeUnit"] == "ms"
    assert driftsim("view", shipped, "--out", tmp_path / "a.json").returncode == 0  # replaced, as every file is
    assert (tmp_path / "a.json").read_bytes() != plain
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "a.json.gz", "again.json.gz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "o.json"], "nowhere: no such trace folder"),
        (["TRACE", "--out", "o.csv"], "o.csv: a timeline is written as JSON; name it o.json or o.json.gz"),
        (["TRACE", "--out", "gone/o.json"], "gone/o.json: cannot be written"),
        (["TRACE", "--out", "o.json", "--from", "9", "--to", "3"], "there is no window from 9 to 3 s"),
        (["TRACE", "--out", "o.json", "--from", "1e6"], "nothing happened from 1e+06 s on; the run ends at 588"),
        (["TRACE", "--out", "o.json", "--from", "nan"], "there is no window from nan"),
        (["TRACE", "--out", "o.json", "--limit", "0"], "give --limit 1 or more"),
        (["TRACE"], "Missing option '--out'"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_2(
    arguments: list[str], message: str, shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = driftsim("view", *[str(shipped) if word == "TRACE" else word for word in arguments])
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert message in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_window_is_an_error_in_python_too() -> None:
    with pytest.raises(InputError, match="nothing happened"):
        perfetto([crowded()], View(since_s=1000))
