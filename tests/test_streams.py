"""An answer as it streams in, event by event: its times, tokens, words and end, and what a machine's samples mean."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest

from driftsim.live import telemetry
from driftsim.live.answer import Answer
from driftsim.live.engine import Outcome
from driftsim.live.masking import masked
from driftsim.live.order import orders, williams
from driftsim.live.pages import Page
from driftsim.live.plan import CapturePlan
from driftsim.live.session import interleaved
from driftsim.live.telemetry import FOREIGN_CPU_LIMIT, Monitor
from driftsim.request import Job, Request, Tier

SENT = 100.0


def answer(most: int = 8, longest: int = 2000) -> Answer:
    return Answer(Job(Request("r", "a", Tier.BATCH, "", 0.0, 9, 9, most), "", 0, 0), SENT, longest)


def event(finish: str | None = None, **delta: Any) -> SimpleNamespace:
    return SimpleNamespace(choices=[SimpleNamespace(delta=delta, finish_reason=finish)], usage=None)


def usage(tokens: Any = 3, prompt: Any = 30, **metrics: Any) -> SimpleNamespace:
    return SimpleNamespace(choices=[], usage=SimpleNamespace(completion_tokens=tokens, prompt_tokens=prompt),
                           metrics=metrics or None)  # fmt: skip


def taken(*events: SimpleNamespace, most: int = 8, longest: int = 2000) -> Outcome:
    """The outcome of events that come a second apart, the first a second after the request was sent."""
    stream = answer(most, longest)
    for place, one in enumerate(events, start=1):
        stream.take(one, SENT + place)
    return stream.outcome()


PLAIN = (event(role="assistant", content=""), event(content="Good "), event(content="even"), event(content="ing"))


def test_times_are_of_the_first_and_the_last_piece_and_neither_of_the_role_nor_of_the_usage() -> None:
    found = taken(*PLAIN, event("stop"), usage())
    assert (found.first_token, found.finish) == (SENT + 2, SENT + 5)
    assert (found.finish_reason, found.output_tokens, found.prompt_tokens, found.output_words) == ("stop", 3, 30, 2)
    at_once = taken(event("length", content="word"), usage(1))
    assert (at_once.first_token, at_once.finish) == (SENT + 1, SENT + 1)
    silent = taken(event(role="assistant"), event("stop"), usage(1))
    assert (silent.first_token, silent.finish) == (SENT + 2, SENT + 2)


def test_tokens_are_the_usages_where_they_can_be() -> None:
    for tokens, prompt, known in (
        (3, 30, True), (8, 30, True), (9, 30, False), (2, 30, False), (0, 30, False), (None, 30, False),
        (3, None, False),        (3, 0, False), (True, 30, False), (3, "30", False), (3, 1997, True), (3, 1998, False),
    ):  # fmt: skip
        found = taken(*PLAIN, event("stop"), usage(tokens, prompt))
        assert (found.finish_reason == "stop") is known, (tokens, prompt)
        assert (found.error is None) is known
        assert found.output_tokens == (tokens if known else None)
    assert "no usage" in str(taken(*PLAIN, event("stop")).error)


def test_one_token_of_a_call_may_come_in_several_events_and_a_call_is_an_end() -> None:
    def call(**function: str) -> dict[str, Any]:
        return {"tool_calls": [{"function": function}]}

    found = taken(event(**call(name="look")), event(**call(arguments="{}")), event("tool_calls"), usage(1))
    assert (found.finish_reason, found.output_tokens, found.first_token) == ("stop", 1, SENT + 1)
    assert found.output_words == 1
    assert taken(event(content="a"), event("function_call"), usage(1)).finish_reason == "stop"


def test_thinking_and_refusals_are_text_and_two_names_of_one_thought_are_one() -> None:
    found = taken(event(reasoning="well ", reasoning_content="well "), event(content="yes "), event(refusal="or no"),
                  event("stop"), usage(3))  # fmt: skip
    assert (found.first_token, found.output_words) == (SENT + 1, 4)
    older = taken(event(reasoning_content="well "), event("stop", content=[{"text": "y"}, "es"]), usage(2))
    assert (older.first_token, older.output_words) == (SENT + 1, 2)


def test_what_is_no_end_is_an_error_and_what_was_given_up_keeps_its_times() -> None:
    broken = taken(*PLAIN)
    assert (broken.finish_reason, broken.first_token, broken.finish) == ("error", SENT + 2, None)
    assert "broke off" in str(broken.error)
    assert "content_filter" in str(taken(*PLAIN, event("content_filter"), usage()).error)
    stream = answer()
    for place, one in enumerate(PLAIN, start=1):
        stream.take(one, SENT + place)
    given_up = stream.outcome("abort")
    assert (given_up.finish_reason, given_up.first_token, given_up.finish) == ("abort", SENT + 2, SENT + 4)


@pytest.mark.parametrize(
    ("metrics", "queued", "scheduled"),
    [
        ({"time_to_first_token_ms": 500, "queue_time_ms": 250}, SENT + 1.25, SENT + 1.5),
        ({"time_to_first_token_ms": 1750, "queue_time_ms": 900}, SENT, SENT + 0.25),  # not before it was sent
        ({"time_to_first_token_ms": 2500, "queue_time_ms": 0}, SENT, SENT),
        ({"time_to_first_token_ms": 500}, None, SENT + 1.5),
        ({"queue_time_ms": 500}, None, None),
        ({"time_to_first_token_ms": -1, "queue_time_ms": 1}, None, None),
        ({"time_to_first_token_ms": True, "queue_time_ms": 1}, None, None),
    ],
)
def test_a_server_s_own_times_count_back_from_the_first_token(
    metrics: dict[str, Any], queued: float | None, scheduled: float | None
) -> None:
    found = taken(*PLAIN, event("stop"), usage(3, 30, **metrics))
    assert (found.queued, found.scheduled) == (queued, scheduled)
    nobody = taken(event("stop"), usage(1, 30, **metrics))
    assert (nobody.queued, nobody.scheduled) == (None, None)  # no text was received


def test_what_a_server_says_is_kept_without_key_and_prompt() -> None:
    key = "sk-ABCdef123"
    assert masked(f"bad {key.upper()}!", key) == "bad ***!"
    assert masked("ends in ABCd and f123", key) == "ends in *** and ***"
    assert "left out" in masked("no: 'my salary of'", secrets=["what of my salary offers"])
    assert masked("no such model", secrets=["what of my salary offers"]) == "no such model"
    assert Page(404, '{"count": 3}').json() is None
    assert Page(200, '{"count": 3}').json() == {"count": 3}


def test_an_order_gives_every_policy_every_place_and_every_neighbour_alike() -> None:
    for count in (2, 3, 4, 5, 6):
        design = williams(count)
        assert len(design) == (count if count % 2 == 0 else 2 * count)
        for column in zip(*design, strict=True):
            assert {column.count(policy) for policy in range(count)} == {len(design) // count}
        pairs = [pair for row in design for pair in itertools.pairwise(row)]
        assert {pairs.count((a, b)) for a in range(count) for b in range(count) if a != b} == {len(design) // count}
        drawn = orders(count, len(design), "latin", seed=3)
        assert all(sorted(row) == list(range(count)) for row in drawn)
        for column in zip(*drawn, strict=True):
            assert {column.count(policy) for policy in range(count)} == {len(design) // count}
        assert orders(count, len(design) + 2, "latin", seed=3)[: len(design)] == drawn
    assert len({str(orders(4, 4, "latin", seed=seed)) for seed in range(9)}) > 5
    assert len({tuple(orders(4, 1, "latin", seed=seed)[0]) for seed in range(60)}) > 16  # of 24: not of one square
    assert len({tuple(row) for row in orders(6, 40, "random", seed=1)}) > 10
    assert len({orders(5, 1, "latin", seed=seed)[0][0] for seed in range(40)}) == 5  # anybody may be the first


def test_runs_of_a_session_follow_the_order_of_its_seed() -> None:
    plans = [CapturePlan(policy=name) for name in ("fifo", "sjf", "priority")]
    for seed in range(4):
        runs = interleaved(Path("out"), plans, 6, "latin", seed)
        expected = [plans[place].policy for round in orders(3, 6, "latin", seed) for place in round]
        assert [run.plan.policy for run in runs] == expected
        turns = [run.plan.turn for run in runs]
        assert [(turn.round, turn.position) for turn in turns if turn] == [
            (n, p) for n in range(1, 7) for p in (1, 2, 3)
        ]
        assert [run.folder.name for run in runs[:3]] == [f"{name}-1" for name in expected[:3]]


# -- telemetry


def monitored(*samples: tuple[float, ...]) -> Monitor:
    monitor = Monitor()
    monitor._samples += [sample + (0.0,) * (len(monitor.columns) - len(sample)) for sample in samples]
    return monitor


def test_loads_are_means_since_the_start_and_only_the_mean_of_others_disturbs() -> None:
    monitor = monitored((9.0, 9.0, 1.0, 8.0, 0.0), (11.0, 1.5, 1.5, 0.0, 0.0), (12.0, 1.25, 0.65, 0.6, 0.25))
    load = monitor.load(10.0)
    assert (load.own_cpu_mean, load.foreign_cpu_mean, load.foreign_cpu_max) == (1.075, 0.3, 0.6)
    assert load.disturbed
    assert monitor.table(10.0)["time_s"].tolist() == [1.0, 2.0]
    assert monitor.latest == 12.0
    limit = FOREIGN_CPU_LIMIT
    calm = monitored((11.0, 1.0, 1.0, 0.0, 0.0), (12.0, 1.0, 1.0, 1.9 * limit, 0.0)).load(10.0)
    assert calm.foreign_cpu_max > limit > calm.foreign_cpu_mean
    assert not calm.disturbed


def test_a_sample_is_cores_since_the_one_before_and_what_is_not_ours_is_foreign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readings of time, everybody's CPU seconds, those stolen, and ours."""
    readings = iter([(10.0, 100.0, 5.0, 50.0), (12.0, 103.0, 5.5, 52.0), (13.0, 103.5, 5.5, 53.0)])
    monitor = monitored()

    def wait(seconds: float) -> bool:
        return len(monitor._samples) == 2

    monkeypatch.setattr(monitor, "_reading", lambda: next(readings))
    monkeypatch.setattr(monitor._stop, "wait", wait)
    seen: list[tuple[float, ...]] = []
    monitor._sink = lambda names, values: seen.append(tuple(values))
    monitor._gpu = None
    monitor._run()
    # 1.5 cores, of which ours 1; then half a core, of which ours, by another clock, 1: nothing is foreign.
    assert [sample[:5] for sample in seen] == [(12.0, 1.5, 1.0, 0.5, 0.25), (13.0, 0.5, 1.0, 0.0, 0.0)]


def test_ours_is_read_before_and_after_everybody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, used = monitored(), iter([10.0, 12.0])
    monkeypatch.setattr(monitor._family, "look_up", lambda: None)
    monkeypatch.setattr(monitor._family, "cpu_s", lambda: next(used))
    monkeypatch.setattr(telemetry, "_busy", lambda: (40.0, 3.0))
    assert monitor._reading()[1:] == (40.0, 3.0, 11.0)


def test_busy_is_what_is_neither_idle_nor_waiting_nor_stolen(monkeypatch: pytest.MonkeyPatch) -> None:
    times = SimpleNamespace(user=1.0, nice=2.0, system=4.0, irq=8.0, softirq=16.0, steal=32.0, idle=64.0, iowait=128.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: times)
    assert telemetry._busy() == (31.0, 32.0)


class Process:
    """A process of a made-up machine: its CPU seconds, and whether it is still there."""

    def __init__(self, pid: int, user: float, system: float, *children: Process) -> None:
        self.pid, self.user, self.system, self.below, self.gone = pid, user, system, children, False

    def cpu_times(self) -> SimpleNamespace:
        if self.gone:
            raise psutil.NoSuchProcess(self.pid)
        return SimpleNamespace(user=self.user, system=self.system)

    def children(self, recursive: bool) -> list[Process]:
        assert recursive
        return list(self.below)


def test_a_family_is_all_below_its_roots_and_keeps_what_those_used_who_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = Process(3, 4.0, 8.0)
    roots = {1: Process(1, 1.0, 2.0, child), 2: Process(2, 16.0, 32.0)}
    monkeypatch.setattr(psutil, "Process", roots.__getitem__)
    family = telemetry._Family((1, 2))
    family.look_up()
    assert family.cpu_s() == 63.0
    child.user = 5.0
    assert family.cpu_s() == 64.0
    child.gone = True
    assert family.cpu_s() == 64.0


def test_a_table_of_no_samples_is_no_load() -> None:
    load = monitored().load(0.0)
    assert (load.own_cpu_mean, load.foreign_cpu_mean, load.disturbed) == (0.0, 0.0, False)
    assert isinstance(monitored().table(0.0), pd.DataFrame)


@pytest.mark.parametrize(("visible", "place"), [("2,1", 2), ("", 0), ("GPU-abc", 0)])
def test_the_gpu_that_is_sampled_is_the_first_that_this_process_may_use(
    visible: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = SimpleNamespace(nvmlDeviceGetHandleByIndex=lambda index: index, NVMLError=KeyError)
    monkeypatch.setattr(telemetry, "_nvml", lambda: nvml)
    found = telemetry.Gpu.first()
    assert found is not None
    assert found._handle == place
