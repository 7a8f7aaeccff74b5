"""Advice is a comparison against what ran, on the last of what was recorded, in one trace or in several in a row."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftsim import advice
from driftsim.advice import Advice, advise, asked_of
from driftsim.cli.app import app
from driftsim.comparison.plan import Setting
from driftsim.errors import InputError, TraceError
from driftsim.inputs import sample
from driftsim.trace.segments import is_recording, segments, window, within
from driftsim.trace.trace import Trace, read
from tests.commands import driftsim

DRIFT = Path("traces/smollm2-cpu-drift")


@pytest.fixture(scope="module")
def found() -> Advice:
    return advise(DRIFT, policies=["fifo", "sjf", "priority"], estimators=["static"], replications=4, jobs=1)


def test_changes_are_against_what_ran(found: Advice) -> None:
    assert found.ran == Setting("fifo", "static")
    assert found.ran not in found.others
    (row,) = (row for row in found.rows() if row["policy"] == "sjf")
    paired = found.comparison.change(Setting("sjf", "static"), found.ran, "e2e_mean_s")
    assert row["e2e_mean_change"] == pytest.approx(paired.value)
    assert row["e2e_mean_low"] <= row["e2e_mean_change"] <= row["e2e_mean_high"]
    assert set(row["tiers"]) == {"premium", "standard", "batch"}
    assert [one.policy for one in found.others] == ["sjf", "priority"]  # the lowest mean first
    assert all(row[name] >= -1 for name in row if name.endswith("_low"))


def test_how_far_to_trust_it_is_measured(found: Advice) -> None:
    rows = {row["metric"]: row for row in found.agreement()}
    mean = rows["e2e_mean_s"]
    rows_of = sample().finished
    assert mean["measured"] == pytest.approx(float((rows_of["finish_s"] - rows_of["arrival_s"]).mean()))
    assert mean["error"] == pytest.approx(mean["simulated"] / mean["measured"] - 1)
    assert f"{100 * mean['error']:+.0f} %" in found.lines()[-1]


def test_the_document_has_what_the_text_says(found: Advice) -> None:
    document = found.document()
    assert document["lines"] == found.lines()
    assert "sjf/static would have changed the mean by" in document["lines"][1]
    assert document["profile"]["step_s"] > 0
    assert len(found.frame()) == len(found.others)
    assert "Simulated, against fifo/static" in str(found)


def test_a_window_is_the_end_of_a_trace() -> None:
    trace = read(DRIFT)
    last = within(trace, 100.0)
    kept = trace.requests[trace.requests["arrival_s"] >= trace.requests["arrival_s"].max() - 100.0]
    assert last.requests["request_id"].tolist() == kept["request_id"].tolist()
    assert last.requests["arrival_s"].min() == 0.0
    shift = kept["arrival_s"].min()
    assert last.requests["finish_s"].to_numpy() == pytest.approx((kept["finish_s"] - shift).to_numpy())
    last.check("window")


def in_rows(trace: Trace, folder: Path, cuts: list[float]) -> None:
    """``trace`` as a recording of several traces, cut at these times."""
    rows = trace.requests
    for number, (begin, end) in enumerate(zip([0.0, *cuts], [*cuts, 1e9], strict=True)):
        own = rows[(rows["arrival_s"] >= begin) & (rows["arrival_s"] < end)].reset_index(drop=True)
        times = {name: own[name] - begin for name in map(str, own) if name.endswith("_s")}
        phases = tuple(
            phase.changed(requests=int((own["phase"] == phase.name).sum()), start_s=None)
            for phase in trace.header.workload.phases
            if (own["phase"] == phase.name).any()
        )
        minutes, seconds = divmod(begin, 60)
        header = trace.header.changed(
            workload=trace.header.workload.changed(phases=phases),
            captured_at=f"2026-11-26T10:{int(minutes):02}:{seconds:09.6f}+00:00",
        )
        Trace(header, own.assign(**times)).write(folder / f"2026-{number}")


def test_traces_in_a_row_are_one(tmp_path: Path) -> None:
    trace = read(DRIFT)
    in_rows(trace, tmp_path / "r", [120.0, 200.5, 301.25])
    assert is_recording(tmp_path / "r")
    assert len(segments(tmp_path / "r")) == 4
    for last_s in (50.0, 150.0, 250.0, 1e6):
        one, whole = window(tmp_path / "r", last_s), within(trace, last_s)
        assert one.requests["request_id"].tolist() == whole.requests["request_id"].tolist()
        for name in ("arrival_s", "dispatch_s", "finish_s"):
            assert one.requests[name].to_numpy() == pytest.approx(whole.requests[name].to_numpy(), abs=1e-5)
        one.check("window")


def test_an_empty_recording_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds no trace with a request"):
        window(tmp_path, 10.0)
    with pytest.raises(InputError, match="must be above 0"):
        advise(DRIFT, last_s=0.0)


def test_the_command_prints_one_document(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    told = CliRunner().invoke(app, [
        "advise", str(DRIFT), "--policies", "sjf", "--estimators", "static", "--replications", "1", "--jobs", "1",
        "--json", "--save-profile", str(profile),
    ])  # fmt: skip
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert document["rows"][0]["policy"] == "sjf"
    assert document["rows"][0]["e2e_mean_low"] is None  # one replication makes no interval
    assert profile.is_file()


OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "no gateway answers there"),
        (b"no such protocol\r\n\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "LineTooLong"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "IncompleteRead"),
        (OK + b"[" * 100_000, "nested too deep"),
        (OK + b"\xff", "can't decode"),
        (OK + b'{"lines": 7}', "no gateway of driftsim"),
        (OK + b"x", "no whole answer within 0.3 s"),
    ],
)
def test_a_gateway_that_means_harm_costs_a_line_and_no_time(
    said: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "ASK_S", 0.3)
    over = threading.Event()

    def answer() -> None:
        one, _ = listener.accept()
        with one:
            one.recv(65536)
            one.sendall(said)
            for _ in range(150 if said == OK + b"x" else 0):  # a byte at a time, for far too long
                if not over.wait(0.02):
                    one.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(InputError, match=why):
            asked_of(f"http://127.0.0.1:{listener.getsockname()[1]}")
    over.set()


@pytest.mark.parametrize(
    "url", ["http://me:pw@host", "http://host/?key=pw", "http://host:pw", "http://[::pw", "http://p w"]
)
def test_a_url_of_a_gateway_that_is_none_is_not_repeated(url: str) -> None:
    run = driftsim("advise", url)
    assert (run.returncode, len(run.stderr.splitlines())) == (2, 1)
    assert "pw" not in run.stderr


class Page(BaseHTTPRequestHandler):
    """A gateway that has found something, for who has the key."""

    asked: list[str] = []

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        key = self.headers.get("Authorization")
        self.send_response(200 if key == "Bearer boss" else 401)
        self.end_headers()
        self.wfile.write(b'{"lines": ["sjf would have"], "rows": []}')


def test_a_gateway_is_asked_for_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.raises(InputError, match="an operator's key is needed"):
            asked_of(url)
        monkeypatch.setenv("DRIFTSIM_OPERATOR_KEY", "boss")
        assert asked_of(f"{url}/ui")["lines"] == ["sjf would have"]
        assert Page.asked == ["/ui/advice", "/ui/advice"]
        told = CliRunner().invoke(app, ["advise", url])
        assert told.stdout == "sjf would have\n"
    finally:
        server.shutdown()
    with pytest.raises(InputError, match="no gateway answers there"):
        asked_of("http://127.0.0.1:9")
