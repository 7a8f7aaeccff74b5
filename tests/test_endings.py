"""Stop strings: the client has its end, and the engine keeps the slot and the blocks until it hears of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from driftsim.clients import Clients, Retries, Timeout
from driftsim.errors import TraceError
from driftsim.gateway.events import whole
from driftsim.live.answer import Answer
from driftsim.request import Job, Request, Tier
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace, read
from driftsim.validation.validation import on_measured_steps
from driftsim.workloads.replay import replay
from tests.strategies import engine, profile, workload

STEP = 0.01


def served(outputs: list[int], stopped: list[int], limits: list[int] | None = None, **changes: Any) -> Trace:
    """One slot, steps of 10 ms: who comes second is scheduled when the first has left."""
    columns: dict[str, Any] = {"stop_string": stopped, "max_tokens": limits or [64] * len(outputs)}
    made = profile(engine(max_num_seqs=1, **changes), intercept_s=STEP)
    work = workload([0.0] * len(outputs), outputs, **columns)
    trace = simulate(Scenario(profile=made, policy="stock", refill_lag=False), work, record_steps=True)
    trace.check("simulated")
    return trace


def off(trace: Trace) -> int:
    """How many requests of ``trace`` are not reproduced on its own steps."""
    found = on_measured_steps("t", trace).exceptions
    assert found is not None
    return len(found)


@pytest.mark.parametrize(("is_async", "steps"), [(False, 1), (True, 2)])
def test_a_stop_string_is_heard_a_step_later_and_with_async_scheduling_two(is_async: bool, steps: int) -> None:
    """An end of its own costs a step with async scheduling, too."""
    plain, stopped = (served([3, 3], [told, 0], async_scheduling=is_async).requests for told in (0, 1))
    assert stopped["finish_s"][0] == plain["finish_s"][0] == pytest.approx(3 * STEP)
    assert stopped["output_tokens"].tolist() == [3, 3]
    assert stopped["finish_reason"].tolist() == ["stop", "stop"]
    assert stopped["scheduled_s"][1] - plain["scheduled_s"][1] == pytest.approx(STEP)
    assert stopped["first_token_s"][1] == pytest.approx((3 + steps + 1) * STEP)
    assert stopped["stop_string"].tolist() == [1, 0]


def test_a_limit_at_the_same_token_ends_it_at_once() -> None:
    rows = served([3, 3], [1, 0], limits=[3, 9]).requests
    assert rows["scheduled_s"][1] == pytest.approx(3 * STEP)
    limited = served([5, 3], [1, 0], limits=[4, 9]).requests  # the string would have come later
    assert (limited["finish_reason"][0], limited["stop_string"][0]) == ("length", 0)


def test_a_client_that_is_done_sends_its_next_request_at_once() -> None:
    made = profile(engine(max_num_seqs=2), intercept_s=STEP)
    work = workload([0.0, 0.0, 0.0], [3, 9, 3], stop_string=[1, 0, 0])
    trace = simulate(Scenario(profile=made, policy="fifo", max_in_flight=2, refill_lag=False), work, record_steps=True)
    rows = trace.requests
    assert rows["dispatch_s"][2] == rows["finish_s"][0] == pytest.approx(3 * STEP)
    assert rows["scheduled_s"][2] == pytest.approx(4 * STEP)  # the engine's slot is free a step later


def test_who_sends_again_is_stopped_again() -> None:
    made = profile(engine(max_num_seqs=1), intercept_s=STEP)
    clients = Clients(timeouts=(Timeout(after_s=0.08),), retries=Retries(most=1, first_s=0.2, jitter=0.0))
    work = workload([0.0, 0.0, 0.29], [7, 3, 3], stop_string=[0, 1, 0])
    rows = simulate(Scenario(profile=made, clients=clients, refill_lag=False), work).requests.set_index("request_id")
    assert rows["finish_reason"][["r1", "r1#2"]].tolist() == ["timeout", "stop"]
    assert rows["stop_string"].to_dict() == {"r0": 0, "r1": 0, "r2": 0, "r1#2": 1}
    assert rows["scheduled_s"]["r2"] == pytest.approx(0.28 + 4 * STEP)


def test_the_column_is_written_read_replayed_and_needed(tmp_path: Path) -> None:
    trace = served([4, 6, 5, 3], [1, 0, 1, 0])
    again = read(trace.write(tmp_path / "t"))
    assert again.requests["stop_string"].tolist() == [1, 0, 1, 0]
    assert replay(again).table["stop_string"].tolist() == [1, 0, 1, 0]
    assert off(again) == 0
    blind = Trace(again.header, again.requests.drop(columns="stop_string"), again.steps)
    assert off(blind) > 0
    for wrong, why in ((2, "neither 0 nor 1"), (1, "its finish_reason is not stop")):
        odd = again.requests.assign(stop_string=wrong, finish_reason="length" if wrong == 1 else "stop")
        with pytest.raises(TraceError, match=why):
            Trace(again.header, odd, again.steps).check("t")


@pytest.mark.parametrize(("reason", "told"), [("\n\n", True), ("", True), (2, False), (None, False)])
def test_a_server_tells_which_string_stopped_an_answer_and_by_its_number_which_token(reason: Any, told: bool) -> None:
    job = Job(Request("r", "a", Tier.STANDARD, "", 0.0, 9, None, 64), "", 0, 0)
    choice = {"text": "word", "finish_reason": "stop", "stop_reason": reason}
    usage = {"completion_tokens": 3, "prompt_tokens": 9}
    answer = Answer(job, 0.0)
    answer.take({"choices": [choice], "usage": usage}, 1.0)
    assert answer.outcome().stop_string is told
    of_client = Answer(job, 0.0)
    of_client.take(SimpleNamespace(choices=[SimpleNamespace(**choice)], usage=SimpleNamespace(**usage)), 1.0)
    assert of_client.outcome().stop_string is told
    body = str({"choices": [choice], "usage": usage}).replace("'", '"').replace("None", "null").encode()
    assert whole(Answer(job, 0.0), body, 1.0).stop_string is told
