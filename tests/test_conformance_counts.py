"""What reports say of the engine's conformance rests on runs that can be made again."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import pytest

from driftsim.engine import conformance as told
from driftsim.engine.conformance import conformance, digest, runs
from driftsim.engine.scheduler import MIRRORED_VLLM
from driftsim.engine.versions import NEWEST, OLDEST, numbered
from tests.commands import driftsim
from tests.live.conformance import FIRST, cases, kinds_of
from tests.live.deciding import ours

KEYS = {"workloads", "decisions", "differing", "decisions_of_first"}


def test_the_counts_are_of_versions_that_were_compared_and_nothing_differed() -> None:
    assert ".".join(MIRRORED_VLLM.split(".")[:2]) in runs()
    for name, entry in runs().items():
        number = numbered(entry["version"])
        assert number is not None
        assert OLDEST <= number <= NEWEST
        assert name == ".".join(map(str, number))
        assert set(entry) == {"version", "kinds", "engine"}
        if entry["engine"] == digest():
            assert list(entry["kinds"]) == kinds_of(entry["version"])
        assert set(entry["kinds"]) <= set(kinds_of(entry["version"]))  # it may be older than a kind, and is then stale
        for counts in entry["kinds"].values():
            assert set(counts) == KEYS
            assert counts["differing"] == 0
            assert counts["workloads"] >= FIRST
            assert counts["decisions"] >= counts["decisions_of_first"] > 0


@pytest.mark.parametrize("kind", kinds_of(MIRRORED_VLLM))
def test_the_first_workloads_take_as_many_steps_as_was_written_down(kind: str) -> None:
    """Without vLLM: of a conformant engine, its own steps are as many as vLLM's."""
    entry = runs()[".".join(MIRRORED_VLLM.split(".")[:2])]
    steps = [len(ours(made).decisions) for made in itertools.islice(cases(kind, entry["version"]), FIRST)]
    if entry["engine"] == digest():
        assert sum(steps) == entry["kinds"][kind]["decisions_of_first"]


def test_the_line_says_what_was_run_whether_it_differed_and_whether_it_is_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = {"workloads": 30, "decisions": 12_345, "differing": 0, "decisions_of_first": 9}
    entry: dict[str, Any] = {"version": "0.32.0", "kinds": {"plain": kind, "prefixes": kind}, "engine": digest()}
    monkeypatch.setattr(told, "runs", lambda: {"0.32": entry})
    line = "conformant with vLLM 0.32.0, 60 workloads (24,690 steps, each decided alike)"
    assert conformance("0.32.1") == line
    assert conformance("unknown") == f"{line}; of which version this engine is, nothing tells"
    assert conformance("0.17.0") == "nothing was run against vLLM 0.17"
    entry["engine"] = "of another day"
    assert conformance("0.32.0") == f"{line}; the engine was changed since"
    entry |= {"engine": digest(), "kinds": {"plain": kind | {"differing": 2}}}
    assert conformance("0.32.0") == "in 2 of them not conformant with vLLM 0.32.0, 30 workloads (12,345 steps)"


def test_every_report_has_the_line(tmp_path: Any) -> None:
    line = f"Engine: {conformance(MIRRORED_VLLM)}"
    trace = "traces/smollm2-cpu-drift"
    for command in (
        ["validate", trace, "--steps", "measured"],
        ["compare", trace, "--policies", "fifo,sjf", "--replications", "1"],
    ):
        told = " ".join(driftsim(*command).stdout.split())
        assert line in told, command


def test_the_digest_changes_with_the_engine_alone() -> None:
    code = "from driftsim.engine.conformance import digest; print(digest())"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == digest()
    assert len(digest()) == 16
