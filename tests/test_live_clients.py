"""Clients that give up and send again, and a queue with limits, in front of a live engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from driftsim.clients import Clients, Retries, clients_of
from driftsim.errors import InputError
from driftsim.live.engine import Outcome
from driftsim.live.plan import CapturePlan
from driftsim.live.recorder import record
from driftsim.live.waiting import as_seen
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.shedding import shed_rules
from driftsim.testing import Echo
from driftsim.trace.attempts import fates, per_request
from driftsim.trace.trace import Trace, read
from driftsim.workloads.prompts import prompt_workload, read_prompts
from driftsim.workloads.workload import Workload
from tests.strategies import workload
from tests.test_http import Server, run


def recorded(made: Workload, folder: Path, echo: Echo | None = None, **plan: Any) -> Trace:
    trace = asyncio.run(record(made, echo or Echo(), CapturePlan(**plan), folder))
    read(folder).check("back")
    return trace


def test_a_client_gives_up_in_the_engine_and_in_the_queue_and_the_slot_is_free_once(tmp_path: Path) -> None:
    # An answer takes a millisecond a token: the first never ends, the second waits behind it, the third comes later.
    made = workload([0.0, 0.0, 0.3], [1, 1, 1], prompt_tokens=[60_000, 50, 5], max_tokens=[90_000] * 3)
    trace = recorded(made, tmp_path / "t", max_in_flight=1, clients=clients_of("200ms"))
    rows = trace.requests
    assert rows["finish_reason"].tolist() == ["timeout", "timeout", "stop"]
    assert rows["finish_s"][:2].tolist() == pytest.approx([0.2, 0.2])
    assert rows["dispatch_s"].isna().tolist() == [False, True, False]
    assert rows["timeout_s"].tolist() == [0.2] * 3
    assert trace.header.clients == clients_of("200ms")


def test_a_client_sends_again_and_every_attempt_is_a_row(tmp_path: Path) -> None:
    made = workload([0.0, 0.05], [1, 1], prompt_tokens=[60_000, 5], max_tokens=[90_000] * 2)
    clients = Clients(timeouts=clients_of("100ms").timeouts, retries=Retries(most=2, first_s=0.05, jitter=0.0))
    trace = recorded(made, tmp_path / "t", clients=clients)
    rows = trace.requests
    assert rows["request_id"].tolist() == ["r0", "r1", "r0#2", "r0#3"]
    assert rows["attempt"].tolist() == [1, 1, 2, 3]
    assert rows["finish_reason"].tolist() == ["timeout", "stop", "timeout", "timeout"]
    late = rows["arrival_s"].tolist()
    assert late[2] >= 0.15
    assert late[3] >= late[2] + 0.2  # 0.1 s until it times out, then a wait of 0.1 s
    assert fates(trace)["attempts"] == 4
    assert per_request(trace).requests["finish_reason"].tolist() == ["timeout", "stop"]


def test_an_error_is_sent_again_and_a_full_queue_turns_away(tmp_path: Path) -> None:
    made = workload([0.0, 0.01], [1, 1], prompt_tokens=[5, 5], max_tokens=[Echo.unlucky, 50])
    trace = recorded(made, tmp_path / "a", clients=clients_of((), 1))
    assert trace.requests["finish_reason"].tolist() == ["error", "stop", "error"]
    full = workload([0.0] * 4, [1] * 4, prompt_tokens=[40] * 4)
    trace = recorded(full, tmp_path / "b", max_in_flight=1, shed=shed_rules("requests=2"))
    assert trace.requests["finish_reason"].tolist() == ["stop", "stop", "rejected", "rejected"]
    assert trace.requests["error"][2] == "2 wait, of at most 2 requests"
    assert trace.header.admission["shed"] == ["requests=2"]


def test_a_timeout_of_nobody_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"timeout 'gold:1s': no request has the tenant or tier 'gold'"):
        recorded(workload([0.0], [1]), tmp_path / "t", clients=clients_of("gold:1s"))
    assert not (tmp_path / "t").exists()


def test_a_file_of_prompts_says_how_long_its_clients_wait(tmp_path: Path) -> None:
    lines = ['{"prompt": "a b c", "timeout_s": 0.2}', '{"prompt": "d", "deadline_s": 5}', '{"prompt": "e"}']
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    made = prompt_workload(read_prompts(tmp_path / "q.jsonl"), None, 90_000, "asked", lambda text: 60_000)
    assert made.table["timeout_s"].isna().tolist() == [False, True, True]
    assert made.table["deadline_s"].isna().tolist() == [True, False, True]
    rows = recorded(made, tmp_path / "t", max_in_flight=3, clients=clients_of("1s")).requests
    assert rows["timeout_s"].tolist() == [1.0] * 3  # what is given goes before the file
    waited = (rows["finish_s"] - rows["arrival_s"]).round(6).tolist()
    assert waited == [1.0] * 3
    (tmp_path / "q.jsonl").write_text('{"prompt": "a", "timeout_s": 0}')
    with pytest.raises(InputError, match="line 1: timeout_s"):
        read_prompts(tmp_path / "q.jsonl")


class Watching(Server):
    """Notes which answers could not be sent to their end."""

    dropped: list[float] = []

    def answer(self, what: str, more: list[str], prompt: int) -> None:
        try:
            super().answer(what, more, prompt)
        except (BrokenPipeError, ConnectionResetError):
            self.dropped.append(time.monotonic())
            raise


@pytest.fixture
def url() -> Iterator[str]:
    Server.seen, Server.vllm, Server.over, Watching.dropped = [], True, threading.Event(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Watching)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    Server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_over_http_the_connection_is_really_dropped(url: str, tmp_path: Path) -> None:
    trace = run(url, tmp_path / "t", "drip", "ok 5", max_tokens=50_000, clients=clients_of("500ms", 1))
    rows = trace.requests.set_index("request_id")
    ends = rows["finish_reason"]
    drips = [name for name in ends.index if name.startswith("r00000") or ends[name] == "timeout"]
    assert ends[drips].tolist() == ["timeout", "timeout"]
    assert ends.drop(drips).tolist() == ["stop"]
    waited = (rows["finish_s"] - rows["arrival_s"])[drips]
    assert waited.tolist() == pytest.approx([0.5, 0.5])
    assert rows["first_token_s"].notna().all()
    deadline = time.monotonic() + 20
    while len(Watching.dropped) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(Watching.dropped) == 2
    assert pd.isna(rows.loc[drips[0], "error"])


def test_what_came_after_a_client_had_gone_it_has_not_seen() -> None:
    job = Job(Request("r", "a", Tier.STANDARD, "", 0.0, 9, None, 64), "", 0, 0)
    whole = Outcome(job, "stop", queued=1.0, scheduled=2.0, first_token=3.0, finish=4.0, output_tokens=9)
    early, late = as_seen(whole, 2.5), as_seen(whole, 3.5)
    assert (early.scheduled, early.first_token, early.output_tokens, early.finish) == (2.0, None, 0, 2.5)
    assert (late.first_token, late.output_tokens, late.finish_reason) == (3.0, 9, "timeout")
