"""The readers: for each a sound sample, the files of it that are made wrong, and the verbs that read them."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim.latency.profile import Profile
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.sweeps.store import MARK, VERSION
from driftsim.testing import profile, workload
from driftsim.trace.schema import OFFERED
from driftsim.trace.tables import write_table
from driftsim.trace.trace import Trace
from tests.commands import driftsim
from tests.format_files import EXAMPLES
from tests.fuzzing import laws

LawOf = Callable[[Path, str], Iterator[str]]


@dataclass(frozen=True)
class Target:
    """A reader: how a sound sample is made, which files of it are made wrong, which verbs read them.

    ``law``: what they may not accept. ``seal``: what a file needs besides, once it is changed. ``may_change``: whether
    the verbs are meant to change what they read. ``share``: how often it is tried, against the others.
    """

    name: str
    sample: Callable[[Path], None]
    files: tuple[str, ...]
    verbs: tuple[str, ...]
    law: LawOf = laws.of_printed
    seal: Callable[[Path], None] = field(default=lambda folder: None)
    may_change: bool = False
    share: int = 1


# -- samples


@cache
def a_profile() -> Profile:
    """A profile of everything that a step may take."""
    return profile(
        prefill_token_s=1e-4, decode_request_s=1e-4, context_token_s=1e-7, gap_s=1e-4, graph_sizes=(1, 2, 4),
        intervals={"intercept_s": (0.009, 0.011)},
    )  # fmt: skip


@cache
def a_trace() -> Trace:
    """A short run of three tenants and tiers, with its steps, their requests, and telemetry."""
    count = 24
    made = workload(
        [0.04 * number for number in range(count)],
        [3 + number % 7 for number in range(count)],
        tenant=[("a", "b", "c")[number % 3] for number in range(count)],
        tier=[("premium", "standard", "batch")[number % 3] for number in range(count)],
        prompt_tokens=[5 + (11 * number) % 31 for number in range(count)],
    )
    run = simulate(Scenario(profile=a_profile()), made, record_steps=True)
    telemetry = pd.DataFrame(
        {"time_s": [0.0, 0.5, 1.0], "busy_cpu": 1.0, "own_cpu": 0.5, "foreign_cpu": 0.5, "steal_cpu": 0.0}
    )
    header = run.header.changed(kind="captured", captured_at="2026-01-01T00:00:00")
    return Trace(header, run.requests, run.steps, telemetry)


def trace_and_profile(folder: Path) -> None:
    """A trace ``t`` and a profile ``p.json``."""
    a_trace().write(folder / "t")
    a_profile().save(folder / "p.json")


def journal(folder: Path) -> None:
    """The folder ``t`` of a run that is still recorded, and a profile."""
    trace, here = a_trace(), folder / "t"
    here.mkdir()
    (here / "header.json").write_text(trace.header.changed(ended="recording").as_json())
    write_table(trace.requests, here / "offered.parquet", OFFERED)
    lines: list[dict[str, Any]] = [{"start": 5.0}]
    for row, one in enumerate(trace.requests.to_dict("records")):
        begun = {name: one[name] for name in ("arrival_s", "dispatch_s", "queued_s")}
        ended = {name: one[name] for name in ("scheduled_s", "first_token_s", "finish_s", "output_tokens")}
        lines += [{"row": row, **begun}, {"row": row, **ended, "finish_reason": one["finish_reason"]}]
    (here / "requests.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert trace.steps is not None
    assert trace.telemetry is not None
    trace.steps.assign(start_s=trace.steps["start_s"] + 5).to_csv(here / "steps.csv", index=False)
    trace.telemetry.assign(time_s=trace.telemetry["time_s"] + 5).to_csv(here / "telemetry.csv", index=False)
    a_profile().save(folder / "p.json")


SCENARIO = """
trace = "t"
profile = "p.json"
policy = "sjf"
estimator = "ema"
seed = 3
max_in_flight = 3
rate_scale = 2.0
requests = 9
replication = 1
engine = {kv_blocks = 90}
admission = {clamp_at_max_tokens = true, base_table = {short_qa = 20}}
tiers = [{name = "premium", weight = 4}, {name = "standard", weight = 2}, {name = "batch", weight = 1}]
"""
DRAWN = {
    "profile": "p.json", "seed": 1, "noise": False, "steps": True, "phase": "all",
    "workload": {"kind": "closed", "users": 3, "think_s": 0.1, "requests": 20, "prompt_tokens": 20, "output_tokens": 5},
}  # fmt: skip


def scenarios(folder: Path) -> None:
    """A scenario of a trace in TOML, one of a drawn workload in JSON."""
    trace_and_profile(folder)
    (folder / "s.toml").write_text(SCENARIO)
    (folder / "s.json").write_text(json.dumps(DRAWN))


GRID = """
replications = 2
resamples = "both"
base = {trace = "t", profile = "p.json", "admission.clamp_at_max_tokens" = true}
grid = {policy = ["fifo", "sjf"], seed = [1, 2]}
zip = [{"engine.kv_blocks" = [70, 80], rate_scale = [1.0, 2.0]}]
list = [{policy = "aging"}]
exclude = [{policy = "sjf", seed = 2}]
"""


def grid(folder: Path) -> None:
    """A grid of a trace."""
    trace_and_profile(folder)
    (folder / "g.toml").write_text(GRID)


MAPPING = """
offset = "first"
model = "m"
users = 2
max_in_flight = 4
tiers = ["high", "low"]
hash_tokens = 4
durations = {finish_s = "took", first_token_s = "wait"}
units = {all = "ms", finish_s = "s"}
values = {category = "one"}
maps = {tier = {gold = "high"}}
engine = {block_size = 16, max_num_seqs = 8, version = "0.14"}
[columns]
prompt_tokens = "in"
output_tokens = "out"
arrival_s = "t0"
tenant = "who"
tier = "level"
session = "chat"
parent = "after"
gap_s = "think"
cached_tokens = "hit"
hash_ids = "ids"
"""


def rows() -> list[dict[str, Any]]:
    """A table of somebody else's."""
    return [
        {"in": 10 + number, "out": 5 + number, "t0": 1000.0 * number, "who": "ab"[number % 2],
         "level": ("gold", "low")[number % 2], "wait": 20.0 + number, "took": 1.5 + number, "chat": number % 2,
         "after": [number - 2] if number > 1 else [], "think": 0.5 * number, "hit": number,
         "ids": [1, 2, *range(number)]}
        for number in range(6)
    ]  # fmt: skip


def tables(folder: Path) -> None:
    """The same table in four forms, with its mapping."""
    table = pd.DataFrame(rows())
    (folder / "m.toml").write_text(MAPPING)
    (folder / "rows.csv").write_text(table.to_csv(index=False))
    (folder / "rows.json").write_text(json.dumps(rows()))
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows()))
    table.to_parquet(folder / "rows.parquet", index=False)


def files_of_tools(folder: Path) -> None:
    """A file of each tool."""
    for example in EXAMPLES.values():
        example.write(folder)


def imports_of_tools() -> tuple[str, ...]:
    """The verb for each of these files."""
    made = []
    for example in EXAMPLES.values():
        choices = " ".join(f"--{name} {value}" for name, value in example.choices.items())
        made.append(f"import {example.form} {example.name} --out out {choices}".strip())
    return tuple(made)


PROMPTS = [
    {"prompt": "one two", "id": "p1", "tenant": "a", "tier": "premium", "category": "x", "max_tokens": 5},
    {"turns": ["three"], "question_id": 7, "app": "b"},
]
ANSWERS: dict[str, Any] = {
    "models.json": {"object": "list", "data": [{"id": "small", "object": "model", "max_model_len": 2048}]},
    "version.json": {"version": "0.32.0"},
    "tokenize.json": {"count": 31, "max_model_len": 2048},
    "metrics.txt": '# HELP x\nvllm:cache_config_info{block_size="32",enable_prefix_caching="False",'
    'num_gpu_blocks="728"} 1\n',
}
EVENTS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "finish_reason": None, "delta": {"content": "word "}}]},
    {"choices": [{"index": 0, "finish_reason": None, "delta": {"content": "word "}}]},
    {"choices": [{"index": 0, "finish_reason": "stop", "delta": {}}]},
    {"choices": [], "usage": {"prompt_tokens": 31, "completion_tokens": 2, "total_tokens": 33},
     "metrics": {"time_to_first_token_ms": 0.5, "queue_time_ms": 0.1}},
]  # fmt: skip


def server(folder: Path) -> None:
    """Prompts, and what a server answers."""
    (folder / "q.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in PROMPTS))
    for name, content in ANSWERS.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    whole = [{"id": "x", "object": "chunk", "created": 0, "model": "small", **event} for event in EVENTS]
    (folder / "events.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in whole))


class Answers(BaseHTTPRequestHandler):
    """Answers with the files of the folder ``root``, whatever they hold."""

    root = Path()
    protocol_version = "HTTP/1.0"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        names = {"/v1/models": "models.json", "/version": "version.json", "/metrics": "metrics.txt"}
        self.page(names.get(self.path, ""), "application/json")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        streamed = self.path.endswith("completions")
        self.page("events.jsonl" if streamed else "tokenize.json", "text/event-stream" if streamed else "text/json")

    def page(self, name: str, kind: str) -> None:
        file = self.root / name
        self.send_response(200 if file.is_file() else 404)
        self.send_header("Content-Type", kind)
        self.end_headers()
        content = file.read_bytes() if file.is_file() else b""
        if name == "events.jsonl":
            content = (
                b"".join(b"data: " + line + b"\n\n" for line in content.split(b"\n") if line) + b"data: [DONE]\n\n"
            )
        with suppress(OSError):
            self.wfile.write(content)


@contextmanager
def answering() -> Iterator[int]:
    """A server that answers with the files of ``Answers.root``; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield listener.server_address[1]
        listener.shutdown()


def _kept(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """``make``, whose result is made once and copied from then on."""

    @cache
    def whole() -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as aside:
            make(Path(aside))
            return {
                str(file.relative_to(aside)): file.read_bytes() for file in Path(aside).rglob("*") if file.is_file()
            }

    def copied(folder: Path) -> None:
        for name, content in whole().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return copied


def _ran(folder: Path, command: str) -> None:
    with contextlib.chdir(folder):
        run = driftsim(*command.split())
    assert run.returncode == 0, (command, run.stderr)


def baseline(folder: Path) -> None:
    """A baseline of two simulated runs and of captured ones."""
    trace_and_profile(folder)
    (folder / "g.toml").write_text('base = {trace = "t", profile = "p.json"}\ngrid = {policy = ["fifo", "sjf"]}\n')
    _ran(folder, "check g.toml --baseline b.json --update --reason r --captured t --jobs 1")


def store(folder: Path) -> None:
    """A store of a small sweep, whose rows are both in Parquet and in a journal."""
    grid(folder)
    _ran(folder, "sweep g.toml --store S --jobs 1")
    done = pd.read_parquet(next((folder / "S").glob("rows-*.parquet")))
    for file in (folder / "S").glob("rows-*.parquet"):
        file.rename(folder / "S" / "rows-a.parquet")
    (folder / "S" / MARK).write_text(json.dumps({"version": VERSION}))
    more = [{**row, "key": f"{number:032x}"} for number, row in enumerate(done.head(3).to_dict("records"))]
    more[2] |= {"failed": True, "error": "no room"}
    (folder / "S" / "journal-a.jsonl").write_text("".join(f"{json.dumps(row, default=str)}\n" for row in more))


def sealed(folder: Path) -> None:
    """Before each line of the store's journal the sum that says it is whole, and its key."""
    file = folder / "S" / "journal-a.jsonl"
    lines = []
    for line in file.read_bytes().split(b"\n"):
        if line:
            with suppress(ValueError, RecursionError):
                row = json.loads(line)
                key = str(row.get("key", "k") if isinstance(row, dict) else "k").encode("utf-8", "replace")
                line = f"{zlib.crc32(line):08x} ".encode() + key + b" " + line
            lines.append(line + b"\n")
    file.write_bytes(b"".join(lines))


CONFIG = {
    "_name_or_path": "small", "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
    "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip


def config(folder: Path) -> None:
    """A model's configuration."""
    (folder / "config.json").write_text(json.dumps(CONFIG))


# -- targets

READS_TRACE = (
    "export t blis --out out.csv",
    "export t timed-trace --out out.jsonl",
    "view t --out out.json",
    "calibrate t --out out.json",
    "validate t --profile p.json --json",
    "compare t --profile p.json --policies fifo,sjf --estimators static --replications 2 --jobs 1 --json",
    "compare t --policies fifo --estimators ema --replications 1 --jobs 1",
)
CAPTURE = "capture --engine openai --base-url http://127.0.0.1:{port}/v1 --prompts q.jsonl --out out --timeout 60"
IMPORTS = tuple(f"import csv rows.{form} --mapping m.toml --out out" for form in ("csv", "json", "jsonl", "parquet"))
SUGGESTS = tuple(f"import rows.{form} --suggest" for form in ("csv", "json", "jsonl", "parquet"))

TARGETS = (
    Target("header", trace_and_profile, ("t/header.json",), READS_TRACE, laws.of_trace("t"), share=2),
    Target("requests", trace_and_profile, ("t/requests.parquet",), READS_TRACE, laws.of_trace("t"), share=3),
    Target("steps", trace_and_profile, ("t/steps.parquet",), READS_TRACE, laws.of_trace("t"), share=2),
    Target("telemetry", trace_and_profile, ("t/telemetry.parquet",), READS_TRACE[2:3], laws.of_trace("t")),
    Target(
        "journal", journal,
        ("t/requests.jsonl", "t/steps.csv", "t/telemetry.csv", "t/offered.parquet", "t/header.json"),
        READS_TRACE[:3], laws.of_trace("t"), share=2,
    ),
    Target(
        "profile", trace_and_profile, ("p.json",),
        ("validate t --profile p.json --json", READS_TRACE[5]), laws.of_profile("p.json"), share=2,
    ),
    Target("model", config, ("config.json",), ("profile --gpu L4 --model config.json --out out.json",),
           laws.of_profile("out.json")),
    Target("scenario", scenarios, ("s.toml",), ("scenario s.toml", "simulate s.toml --out out"), laws.of_trace("out"),
           share=2),
    Target("workload", scenarios, ("s.json",), ("scenario s.json", "simulate s.json --out out"), laws.of_trace("out")),
    Target("grid", grid, ("g.toml",), ("sweep g.toml --store out --dry-run",)),
    Target("mapping", tables, ("m.toml",), IMPORTS, laws.of_trace("out")),
    Target("table csv", tables, ("rows.csv",), (IMPORTS[0], SUGGESTS[0]), laws.of_trace("out")),
    Target("table json", tables, ("rows.json",), (IMPORTS[1], SUGGESTS[1]), laws.of_trace("out")),
    Target("table jsonl", tables, ("rows.jsonl",), (IMPORTS[2], SUGGESTS[2]), laws.of_trace("out")),
    Target("table parquet", tables, ("rows.parquet",), (IMPORTS[3], SUGGESTS[3]), laws.of_trace("out")),
    *(
        Target(f"tool {name}", files_of_tools, (example.name,), (verb,), laws.of_trace("out"))
        for (name, example), verb in zip(EXAMPLES.items(), imports_of_tools(), strict=True)
    ),
    Target("prompts", server, ("q.jsonl",), (CAPTURE,), laws.of_trace("out")),
    Target("pages of a server", server, tuple(ANSWERS), (CAPTURE,), laws.of_trace("out")),
    Target("answers of a server", server, ("events.jsonl",), (CAPTURE,), laws.of_trace("out"), share=2),
    Target("baseline", baseline, ("b.json",),
           ("check --baseline b.json --jobs 1 --json", "check --baseline b.json --captured t --jobs 1"), share=2),
    Target(
        "store", store, (f"S/{MARK}", "S/rows-a.parquet", "S/journal-a.jsonl"),
        ("show S --json", "show S", "show S --best e2e_mean_s", "show S --csv out.csv",
         "show S --paired policy=fifo/policy=sjf", "show S --where failed=True"),
        seal=sealed, share=3,
    ),
    Target("store that goes on", store, ("S/rows-a.parquet", "S/journal-a.jsonl", "S/" + MARK),
           ("sweep g.toml --store S --jobs 1", "sweep g.toml --store out --merge S --jobs 1"),
           seal=sealed, may_change=True),
)  # fmt: skip

SAMPLES = {target.sample: _kept(target.sample) for target in TARGETS}


def prepared(target: Target, folder: Path) -> None:
    """The sound sample of ``target`` in ``folder``, which is made empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    SAMPLES[target.sample](folder)
