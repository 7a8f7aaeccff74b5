"""What comes from others is data: it runs no code, learns no key, and nothing that was recorded is replaced."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copy, copytree
from types import SimpleNamespace

import pytest

import driftsim as ds
from driftsim.live.answer import Answer
from driftsim.live.http import KEY
from driftsim.live.masking import masked
from driftsim.scheduling import plugins
from driftsim.trace.trace import read
from tests.commands import driftsim

SHIPPED = Path(__file__).parent.parent / "traces" / "smollm2-cpu-small-kv"
EVIL = "from pathlib import Path\nPath('PWNED').write_text('code of the trace ran')\nimport driftsim as ds\n\
class X(ds.Keyed):\n    def key(self, job):\n        return job.request.arrival\n"


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of another run."""
    file = tmp_path_factory.mktemp("profile") / "p.json"
    assert driftsim("calibrate", SHIPPED.parent / "smollm2-cpu-low-load", "--out", file).returncode == 0
    return file


@pytest.fixture
def place(tmp_path: Path, profile: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a profile and a trace that names code, in which the commands run."""
    copy(profile, tmp_path / "p.json")
    copytree(SHIPPED, tmp_path / "t")
    (tmp_path / "t" / "evil.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_named", set())
    monkeypatch.setattr(plugins, "_allowed", set())
    plugins._loaded.cache_clear()
    return tmp_path


def name_code(place: Path, key: str, name: str) -> None:
    header = json.loads((place / "t" / "header.json").read_text())
    header["admission"][key] = name
    (place / "t" / "header.json").write_text(json.dumps(header))


@pytest.mark.parametrize("key", ["policy", "estimator"])
@pytest.mark.parametrize("name", ["t/evil.py:X", "t.evil:X", "./t/../t/evil.py:X"])
@pytest.mark.parametrize("verb", ["validate", "calibrate"])
def test_no_verb_runs_the_code_that_a_trace_names(place: Path, verb: str, name: str, key: str) -> None:
    name_code(place, key, name)
    if verb == "calibrate":  # without steps the run is simulated
        (place / "t" / "steps.parquet").unlink()
    asked = ("--profile", "p.json") if verb == "validate" else ("--out", "q.json")
    run = driftsim(verb, "t", *asked)
    assert not (place / "PWNED").exists()
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert f"the trace names the plug-in {name!r}" in run.stderr
    assert "--allow-plugins DIR" in run.stderr


def test_the_folder_that_is_allowed_is_trusted_and_no_other(place: Path) -> None:
    name_code(place, "policy", "t/evil.py:X")
    (place / "other").mkdir()
    asked = ("validate", "t", "--profile", "p.json", "--json")
    assert driftsim(*asked, "--allow-plugins", "other").returncode == 2
    assert not (place / "PWNED").exists()
    assert driftsim(*asked, "--allow-plugins", "nowhere").returncode == 2
    assert driftsim(*asked, "--allow-plugins", "t").returncode == 0
    assert (place / "PWNED").exists()  # asked for


def test_a_comparison_answers_without_the_code_that_its_trace_names(place: Path) -> None:
    name_code(place, "policy", "t/evil.py:X")
    run = driftsim("compare", "t", "--profile", "p.json", "--policies", "fifo", "--replications", 1, "--json")
    assert run.returncode == 0, run.stderr
    assert not (place / "PWNED").exists()
    assert "code that data names is not run" in json.loads(run.stdout)["checks"][0]["failed"]


def test_a_baseline_names_no_code_that_is_run(place: Path) -> None:
    (place / "g.toml").write_text("[base]\ntrace = 't'\nprofile = 'p.json'\nrequests = 9\n")
    assert driftsim("check", "g.toml", "--baseline", "b.json", "--update", "--reason", "new").returncode == 0
    baseline = json.loads((place / "b.json").read_text())
    baseline["runs"][0]["scenario"]["policy"] = "t/evil.py:X"
    (place / "b.json").write_text(json.dumps(baseline))
    run = driftsim("check", "--baseline", "b.json")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "names the plug-in" in run.stderr
    assert not (place / "PWNED").exists()


def test_code_that_the_user_names_is_run(place: Path) -> None:
    run = driftsim("compare", "t", "--profile", "p.json", "--policies", "t/evil.py:X", "--replications", 1, "--json")
    assert run.returncode == 0, run.stderr
    assert (place / "PWNED").exists()


# -- a key stays with the host that it was given for


class Server(BaseHTTPRequestHandler):
    """Sends whoever asks for one of ``away`` to ``other``, and notes who showed which key."""

    away: tuple[str, ...] = ()
    other = ""
    seen: list[str]

    def do_GET(self) -> None:
        """Answer or send away."""
        self.seen.append(self.headers.get("Authorization", ""))
        if self.other and self.path.startswith(self.away):
            self.send_response(307)
            self.send_header("Location", self.other + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}], "count": 3}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Likewise."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hosts() -> Iterator[tuple[type[Server], str, type[Server]]]:
    """The server that was asked for, its address, and the one that it sends people to."""
    kinds: list[type[Server]] = [type("First", (Server,), {"seen": []}), type("Second", (Server,), {"seen": []})]
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in kinds]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    kinds[0].other = f"http://127.0.0.1:{servers[1].server_port}"
    yield kinds[0], f"http://127.0.0.1:{servers[0].server_port}/v1", kinds[1]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "away",
    [("/metrics", "/version", "/tokenize"), ("/v1/chat",), ("/v1/completions",), ("/v1/models",), ("/",)],
    ids=lambda away: away[0],
)
def test_a_redirect_learns_no_key(
    hosts: tuple[type[Server], str, type[Server]], away: tuple[str, ...], tmp_path: Path
) -> None:
    first, address, second = hosts
    first.away = away
    (tmp_path / "q.jsonl").write_text('{"prompt": "x", "max_tokens": 8}\n')
    asked = ("capture", "--out", tmp_path / "o", "--engine", "openai", "--base-url", address)
    driftsim(*asked, "--prompts", tmp_path / "q.jsonl", "--timeout", 5, **{KEY: "sk-SECRET"})
    assert "Bearer sk-SECRET" in first.seen
    assert second.seen == []


@pytest.mark.parametrize("key", ["sk-SECRETSECRET\n", "  sk-SECRETSECRET ", "\tsk-SECRETSECRET\r\n"])
def test_blanks_around_a_key_are_no_part_of_it(
    hosts: tuple[type[Server], str, type[Server]], key: str, tmp_path: Path
) -> None:
    first, address, _ = hosts
    first.other = ""
    (tmp_path / "q.jsonl").write_text('{"prompt": "x", "max_tokens": 8}\n')
    asked = ("capture", "--out", tmp_path / "o", "--engine", "openai", "--base-url", address)
    run = driftsim(*asked, "--prompts", tmp_path / "q.jsonl", "--timeout", 5, **{KEY: key})
    assert set(first.seen) == {"Bearer sk-SECRETSECRET"}
    assert "SECRET" not in run.stdout + run.stderr


@pytest.mark.parametrize("key", ["sk-SECRET\nSECRET", "sk-SECRET SECRET", "sk-SECRET\u00e9", "sk-SECRET\x07"])
def test_no_part_of_a_key_that_no_header_takes_is_printed(key: str, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"prompt": "x", "max_tokens": 8}\n')
    asked = ("capture", "--out", tmp_path / "o", "--engine", "openai", "--base-url", "http://127.0.0.1:9/v1")
    run = driftsim(*asked, "--prompts", tmp_path / "q.jsonl", **{KEY: key})
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert KEY in run.stderr
    assert "SECRET" not in run.stdout + run.stderr


@pytest.mark.parametrize(
    "told", ["{}", "null", "[]", '{"data": [{"id": 5}]}', '{"data": [null]}', '{"data": 3}', "<html>", '{"data": [[]]}']
)
def test_a_list_of_models_that_is_none_is_one_line(told: str, tmp_path: Path) -> None:
    class Weird(Server):
        seen: list[str] = []

        def do_GET(self) -> None:
            """Say ``told`` whatever is asked."""
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Weird)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "q.jsonl").write_text('{"prompt": "x", "max_tokens": 8}\n')
    address = f"http://127.0.0.1:{server.server_port}/v1"
    run = driftsim(
        "capture",
        "--out",
        tmp_path / "o",
        "--engine",
        "openai",
        "--base-url",
        address,
        "--prompts",
        tmp_path / "q.jsonl",
    )
    server.shutdown()
    server.server_close()
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("prompt", [10**20, 5 * 10**9, 10**30, 5000, 0, -1])
def test_a_number_of_tokens_that_no_context_holds_is_the_error_of_its_row(prompt: int) -> None:
    request = ds.Request("r", "a", ds.Tier.STANDARD, "x", 0.0, 8, None, 64)
    answer = Answer(ds.Job(request, "short_qa", estimate=64, budget=72), sent=0.0, longest=4096)
    answer.reason, answer.usage = "stop", SimpleNamespace(prompt_tokens=prompt, completion_tokens=3)
    outcome = answer.outcome()
    assert outcome.finish_reason == "error"
    assert "wrong usage" in str(outcome.error)
    assert max(map(len, re.findall(r"\d+", str(outcome.error)))) <= 10  # a longer number may say anything
    answer.usage.prompt_tokens = 8
    assert answer.outcome().finish_reason == "stop"


SAID = "Tell me how long the divorce will take"


@pytest.mark.parametrize(
    "echo",
    [SAID, f"invalid: {SAID}!", SAID[5:25], f"{SAID}\n" * 50, "Bearer sk-SECRET", "x" * 100_000, "model sk-SECRET"],
    ids=lambda text: text[:9],
)
def test_what_a_server_echoes_is_not_kept(echo: str) -> None:
    kept = masked(echo, "sk-SECRET", [SAID, ""])
    assert "SECRET" not in kept
    assert "divorce" not in kept
    assert SAID[5:20] not in kept
    assert len(kept) <= 300
    assert "\n" not in kept


def test_what_a_server_says_of_its_own_is_kept() -> None:
    assert masked("HTTP 400: this model's maximum context is 4096 tokens", "none", [SAID]).endswith("4096 tokens")
    assert masked("none of it", "", [SAID]) == "none of it"


# -- what was recorded stays


@pytest.mark.parametrize("out", ["runs", "runs/mine", "runs/mine/inside"])
def test_a_verb_that_reads_a_trace_leaves_it_as_it_is(place: Path, out: str) -> None:
    copytree(SHIPPED, place / "runs" / "mine")
    before = {file.name: file.read_bytes() for file in (place / "runs" / "mine").iterdir()}
    run = driftsim("validate", "runs/mine", "--profile", "p.json", "--out", out)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert {file.name: file.read_bytes() for file in (place / "runs" / "mine").iterdir()} == before
    assert read(place / "runs" / "mine").header.kind == "captured"


@pytest.mark.parametrize(
    "asked",
    [
        ("compare", "t", "--profile", "p.json", "--policies", "fifo", "--replications", 1, "--out", "t/report"),
        ("view", "t", "--out", "t/view.json"),
        ("export", "t", "mooncake", "--out", "t/m.jsonl"),
        ("calibrate", "t", "--out", "t/p.json"),
    ],
    ids=lambda asked: asked[0],
)
def test_no_output_lies_in_the_trace_that_is_read(place: Path, asked: tuple[object, ...]) -> None:
    before = sorted((place / "t").rglob("*"))
    run = driftsim(*asked)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "lies in the trace t, which is only read" in run.stderr
    assert sorted((place / "t").rglob("*")) == before


def test_a_simulation_replaces_a_simulation_and_no_recorded_run(place: Path) -> None:
    for _ in range(2):
        assert driftsim("validate", "t", "--profile", "p.json", "--out", "made").returncode == 0
    copytree(SHIPPED, place / "made" / "kept")
    simulated = read(place / "made" / "t")
    with pytest.raises(ValueError, match="holds a captured run, which a simulated one does not replace"):
        simulated.write(place / "made" / "kept", overwrite=True)
