"""Whatever stands in a file, a verb ends well: exit 0, 1 or 2, at most one line of error, nothing half written.

`make test` tries some hundred inputs, the same ones each time, and a thousand in the nightly profile; `make fuzz` tries
20,000, others each time. What is found is kept as files, with the line that runs it again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzzing.harness import Findings, Wrong, wrongs
from tests.fuzzing.mutations import changed
from tests.fuzzing.targets import (
    CAPTURE,
    CONFIG,
    TARGETS,
    Answers,
    Target,
    answering,
    baseline,
    config,
    grid,
    prepared,
    scenarios,
    server,
    trace_and_profile,
)

INPUTS = int(os.environ.get("DRIFTSIM_FUZZ", min(1000, 2 * settings().max_examples)))  # in all; `make fuzz`: more
A_FEW = INPUTS <= 1000
PART = 400  # inputs of one test, so that several cores share the work
SHARES = sum(target.share for target in TARGETS)
KEPT = Path(os.environ.get("DRIFTSIM_FUZZ_KEPT", "out/fuzz")).absolute()


def parts() -> Iterator[tuple[Target, int, int]]:
    """Each target with its number of inputs, in parts."""
    for target in TARGETS:
        left, part = max(1, round(INPUTS * target.share / SHARES)), 0
        while left > 0:
            yield target, min(PART, left), part
            left, part = left - PART, part + 1


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a server answers with the files of the input at hand."""
    with answering() as number:
        yield number


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the inputs, beside the one for temporary files."""
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(aside))
    monkeypatch.setenv("TERM", "dumb")
    return tmp_path / "input"


def attempt(target: Target, verb: str, place: Path, port: int) -> tuple[list[Wrong], int | None]:
    """What ``verb`` does wrong with the input in ``place``, nonsense that it accepts included, and its exit."""
    Answers.root = place
    found, run = wrongs(verb.format(port=port), place, may_change=target.may_change)
    if run is not None and run.returncode == 0 and not found:
        found = [Wrong(f"accepted: {sentence}", f"by {verb.split()[0]}") for sentence in target.law(place, run.stdout)]
    return found, None if run is None else run.returncode


@pytest.mark.parametrize(
    ("target", "count", "part"), [pytest.param(*one, id=f"{one[0].name} {one[2]}") for one in parts()]
)
def test_no_file_harms_a_verb(target: Target, count: int, part: int, place: Path, port: int, tmp_path: Path) -> None:
    findings = Findings(KEPT / target.name.replace(" ", "-") if not A_FEW else tmp_path / "found")

    @settings(
        max_examples=count, deadline=None, derandomize=A_FEW, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(data=st.data())
    def tried(data: st.DataObject) -> None:
        prepared(target, place)
        name = data.draw(st.sampled_from(target.files))
        verb = data.draw(st.sampled_from(target.verbs))
        file = place / name
        sound = file.read_bytes()
        wrong = data.draw(changed(sound, file.suffix))
        file.write_bytes(wrong)
        target.seal(place)
        kept = tmp_path / "kept"
        found, code = attempt(target, verb, place, port)
        findings.exits[-1 if code is None else code] += 1
        if found:
            prepared(target, kept)
            (kept / name).write_bytes(wrong)
            target.seal(kept)
            for one in found:
                findings.add(one, kept, verb, len(wrong))

    tried()
    assert not findings.counts, str(findings)


@pytest.mark.parametrize(
    ("target", "verb"),
    [pytest.param(target, verb, id=f"{target.name}, {verb}"[:60]) for target in TARGETS for verb in target.verbs],
)
def test_what_is_sound_is_taken(target: Target, verb: str, place: Path, port: int) -> None:
    prepared(target, place)
    target.seal(place)
    found, code = attempt(target, verb, place, port)
    assert (found, code) == ([], 0)


def cell(file: str, column: str, value: Any, row: int = 3) -> Callable[[Path], None]:
    """A change of one cell of a table, or with row -1 of all of a column."""

    def change(folder: Path) -> None:
        table = pd.read_parquet(folder / file)
        table[column] = [value if place == row or row < 0 else old for place, old in enumerate(table[column])]
        table.to_parquet(folder / file, index=False)

    return change


def times(file: str, column: str, factor: float) -> Callable[[Path], None]:
    """A change of one column's unit."""

    def change(folder: Path) -> None:
        table = pd.read_parquet(folder / file)
        table.assign(**{column: table[column] * factor}).to_parquet(folder / file, index=False)

    return change


def entry(file: str, way: str, value: Any) -> Callable[[Path], None]:
    """A change of one value of a JSON document, at ``way``, names and places joined by dots."""

    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        *steps, last = (int(part) if part.isdigit() else part for part in way.split("."))
        place = content
        for step in steps:
            place = place[step]
        place[last] = value
        (folder / file).write_text(json.dumps(content))

    return change


def said(file: str, old: str, new: str) -> Callable[[Path], None]:
    """A change of a text."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return change


NAN, INF = float("nan"), float("inf")
REQUESTS, STEPS, SAMPLES, HEADER = "t/requests.parquet", "t/steps.parquet", "t/telemetry.parquet", "t/header.json"
TRACE, PROFILE = "view t --out out.json", "validate t --profile p.json --json"
NONSENSE: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], str]] = {
    "a prompt of negative length": (trace_and_profile, cell(REQUESTS, "prompt_tokens", -5), TRACE),
    "an output of no token": (trace_and_profile, cell(REQUESTS, "output_tokens", 0), TRACE),
    "an output above its limit": (trace_and_profile, cell(REQUESTS, "output_tokens", 500), TRACE),
    "half a token": (trace_and_profile, cell(REQUESTS, "prompt_tokens", 7.5), TRACE),
    "an arrival that is NaN": (trace_and_profile, cell(REQUESTS, "arrival_s", NAN), TRACE),
    "an arrival before the run": (trace_and_profile, cell(REQUESTS, "arrival_s", -1.0), TRACE),
    "a finish that is infinite": (trace_and_profile, cell(REQUESTS, "finish_s", INF), TRACE),
    "a finish before the start": (trace_and_profile, cell(REQUESTS, "finish_s", 0.001, 9), TRACE),
    "a first token before the schedule": (trace_and_profile, cell(REQUESTS, "first_token_s", 0.001, 9), TRACE),
    "a finish that is missing": (trace_and_profile, cell(REQUESTS, "finish_s", NAN), TRACE),
    "times in milliseconds": (trace_and_profile, times(REQUESTS, "finish_s", 1e12), TRACE),
    "two requests of one name": (trace_and_profile, cell(REQUESTS, "request_id", "r0"), TRACE),
    "a request of no tenant": (trace_and_profile, cell(REQUESTS, "tenant", ""), TRACE),
    "a tenant for a tier": (trace_and_profile, cell(REQUESTS, "tier", "a\nb"), TRACE),
    "a correction by nothing": (trace_and_profile, cell(REQUESTS, "bias", 0.0), TRACE),
    "an estimate below 0": (trace_and_profile, cell(REQUESTS, "estimate", -7), TRACE),
    "a step of negative length": (trace_and_profile, cell(STEPS, "duration_s", -0.01), PROFILE),
    "a step that takes no time": (trace_and_profile, cell(STEPS, "duration_s", 0.0), PROFILE),
    "durations in milliseconds": (trace_and_profile, times(STEPS, "duration_s", 1000), PROFILE),
    "steps out of order": (trace_and_profile, cell(STEPS, "start_s", 0.0, 9), PROFILE),
    "a billion requests in a step": (trace_and_profile, cell(STEPS, "decode_requests", 10**9), PROFILE),
    "a billion requests running": (trace_and_profile, cell(STEPS, "running", 10**9), PROFILE),
    "prompt tokens of no prompt": (trace_and_profile, cell(STEPS, "prefill_requests", 0, -1), PROFILE),
    "a load that is NaN": (trace_and_profile, cell(SAMPLES, "own_cpu", NAN, 1), TRACE),
    "a load below 0": (trace_and_profile, cell(SAMPLES, "foreign_cpu", -1.0, 1), TRACE),
    "a load in words": (trace_and_profile, cell(SAMPLES, "busy_cpu", "much", -1), TRACE),
    "samples out of order": (trace_and_profile, cell(SAMPLES, "time_s", 9.0, 1), TRACE),
    "an engine of no slot": (trace_and_profile, entry(HEADER, "engine.max_num_seqs", 0), TRACE),
    "blocks of a billion tokens": (trace_and_profile, entry(HEADER, "engine.block_size", 10**9), TRACE),
    "ten billion users": (trace_and_profile, entry(HEADER, "workload.phases.0.users", 10**10), TRACE),
    "a pause that never ends": (trace_and_profile, entry(HEADER, "workload.phases.0.pause_s", 1e300), TRACE),
    "a limit in flight below 0": (trace_and_profile, entry(HEADER, "max_in_flight", -1), TRACE),
    "a phase of other requests": (trace_and_profile, entry(HEADER, "workload.phases.0.requests", 5), TRACE),
    "a coefficient below 0": (trace_and_profile, entry("p.json", "prefill_token_s", -1e-6), PROFILE),
    "a coefficient that is NaN": (trace_and_profile, entry("p.json", "decode_request_s", NAN), PROFILE),
    "a gap that never ends": (trace_and_profile, entry("p.json", "gap_s", 1e300), PROFILE),
    "sizes of graphs out of order": (trace_and_profile, entry("p.json", "graph_sizes", [4, 1]), PROFILE),
    "a size of graphs below 0": (trace_and_profile, entry("p.json", "graph_sizes", [-1, 4]), PROFILE),
    "an interval the wrong way round": (
        trace_and_profile, entry("p.json", "intervals.intercept_s", [0.02, 0.01]), PROFILE,
    ),
    "a grid of more runs than anybody waits for": (
        grid, said("g.toml", "replications = 2", "replications = 999999999"), "sweep g.toml --store out --dry-run",
    ),
    "a policy that is none": (grid, said("g.toml", '"fifo"', '"fofi"'), "sweep g.toml --store out --dry-run"),
    "requests faster than any clock": (
        scenarios, said("s.toml", "rate_scale = 2.0", "rate_scale = inf"), "simulate s.toml --out out",
    ),
    "a seed below 0": (scenarios, said("s.toml", "seed = 3", "seed = -3"), "simulate s.toml --out out"),
    "no request": (scenarios, said("s.toml", "requests = 9", "requests = 0"), "simulate s.toml --out out"),
    "a tolerance below 0": (baseline, entry("b.json", "tolerance", -1), "check --baseline b.json --jobs 1"),
    "a metric that is none": (
        baseline, entry("b.json", "runs.0.metrics", {"speed": 1.0}), "check --baseline b.json --jobs 1",
    ),
    "a latency below 0": (
        baseline, entry("b.json", "runs.0.metrics.e2e_mean_s", -1.0), "check --baseline b.json --jobs 1",
    ),
    "repeats that took no time": (
        baseline, entry("b.json", "captured.0.metrics.e2e_mean_s", [0.0]),
        "check --baseline b.json --captured t --jobs 1",
    ),
    "more heads than there is to share": (
        config, said("config.json", json.dumps(CONFIG), json.dumps({**CONFIG, "head_dim": None, "hidden_size": 4})),
        "profile --gpu L4 --model config.json --out out.json",
    ),
    "a prompt's name of two lines": (server, said("q.jsonl", '"p1"', '"p\\n1"'), CAPTURE),
    "a prompt of nothing": (server, said("q.jsonl", '"one two"', '""'), CAPTURE),
}  # fmt: skip


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused(what: str, place: Path, port: int) -> None:
    make, change, verb = NONSENSE[what]
    target = Target(what, make, (), (verb,))
    prepared(target, place)
    change(place)
    found, code = attempt(target, verb, place, port)
    assert (found, code) == ([], 2)
