"""Whose mistake it is: the user's gets one line and exit 2, a plug-in's is named by file and line, ours says so."""

from __future__ import annotations

import re
import shutil
import stat
from pathlib import Path

import pytest

import driftsim as ds
from driftsim.cli.failure import line_of
from driftsim.errors import InputError, RunError, TraceError
from tests.commands import driftsim
from tests.strategies import engine, profile, workload

BUGGY = """
import numpy as np
from driftsim import Keyed

class Buggy(Keyed):
    def key(self, job):
        return float((np.zeros(3) + np.zeros(4)).sum())
"""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = workload([0.0, 0.0, 0.05, 0.1, 0.1, 0.4] * 8, [5, 9, 3, 30, 2, 7] * 8)
    run = ds.simulate(made, profile=profile(engine(max_num_seqs=2)), steps=True)
    return run.write(tmp_path_factory.mktemp("traces") / "small")


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    (tmp_path / "buggy.py").write_text(BUGGY)
    return f"{tmp_path}/buggy.py:Buggy"


def test_the_tree_has_one_root_for_what_a_user_can_mend() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(TraceError, InputError)
    assert not issubclass(RunError, ValueError)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bug_in_a_plug_in_is_named_by_file_and_line_whoever_ran_it(trace: Path, plugin: str, jobs: int) -> None:
    run = driftsim("compare", trace, "--policies", f"fifo,{plugin}", "--replications", 3, "--jobs", jobs)
    assert run.returncode == 3
    place = plugin.partition(":")[0]
    assert re.search(rf"the plug-in {re.escape(place)} failed at line 7, in key: ValueError: operands", run.stderr)
    assert run.stdout == ""


ANSWERS = """import driftsim as ds


class NoKey(ds.Keyed):
    def key(self, job):
        return None


class NanKey(ds.Keyed):
    def key(self, job):
        return float("nan")


class NoJob(ds.Keyed):
    def key(self, job):
        return 0.0

    def pop(self, now):
        super().pop(now)


class Nothing:
    def __init__(self, admission):
        pass

    def estimate(self, request, category, now):
        return None

    def observe(self, job, output_length, censored, now):
        pass


class Fraction(Nothing):
    def estimate(self, request, category, now):
        return ds.Estimate(3.7, 1.0)


class Negative(Nothing):
    def estimate(self, request, category, now):
        return ds.Estimate(-3, 1.0)


class NanBias(Nothing):
    def estimate(self, request, category, now):
        return ds.Estimate(3, float("nan"))


class NoAdmission(Nothing):
    def __init__(self):
        pass
"""


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("NoKey", 2, "the policy NoKey gave None as a key"),
        ("NanKey", 2, "the policy NanKey gave nan as a key"),
        ("NoJob", 3, "NoJob had returned; check that plug-in first"),
        ("Nothing", 3, "Nothing had returned; check that plug-in first"),
        ("Fraction", 3, "Fraction had returned; check that plug-in first"),
        ("Negative", 2, "the estimator Negative gave Estimate(length=-3, bias=1.0)"),
        ("NanBias", 2, "the estimator NanBias gave Estimate(length=3, bias=nan)"),
        ("NoAdmission", 2, "NoAdmission: its constructor must take the admission alone"),
    ],
)
def test_a_wrong_answer_of_a_plug_in_is_told_as_its_own(
    trace: Path, tmp_path: Path, name: str, code: int, message: str
) -> None:
    (tmp_path / "answers.py").write_text(ANSWERS)
    own = f"{tmp_path}/answers.py:{name}"
    policies, estimators = (own, "static") if name.endswith(("Key", "Job")) else ("fifo", own)
    run = driftsim("compare", trace, "--policies", policies, "--estimators", estimators, "--replications", 1)
    assert run.returncode == code, run.stderr
    assert message in run.stderr
    assert "mistake in driftsim" not in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_mistake_of_ours_says_so_and_keeps_its_traceback(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftsim.inputs.load_profile", None)
    run = driftsim("compare", trace, "--profile", "p.json")
    assert run.returncode == 3
    ours = "driftsim: this is a mistake in driftsim, not in your input: TypeError: 'NoneType' object is not callable"
    assert run.stderr.startswith(f"{ours} (driftsim/inputs.py:")
    [place] = re.findall(r"The traceback is in (\S+);", run.stderr)
    kept = Path(place)
    assert "Traceback (most recent call last)" in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kept.unlink()
    assert len(run.stderr.splitlines()) == 1


def test_debug_prints_the_traceback_instead(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftsim.inputs.replay", lambda *_: 1 / 0)
    run = driftsim("--debug", "compare", trace)
    assert run.returncode == 3
    assert "Traceback (most recent call last)" in run.stderr
    assert "ZeroDivisionError" in run.stderr
    assert "The traceback is in" not in run.stderr


def test_a_missing_file_of_ours_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    ours = Path(ds.__file__).parent / "latency" / "absent.toml"
    assert line_of(FileNotFoundError(2, "No such file or directory", str(ours))) is None
    theirs = line_of(FileNotFoundError(2, "No such file or directory", str(tmp_path / "mine.toml")))
    assert theirs == f"{tmp_path}/mine.toml: No such file or directory"
    assert line_of(OSError(28, "No space left on device")) == "No space left on device"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["compare", "{trace}", "--measured", "--policies", "nonsense"], "--policies"),
        (["compare", "{trace}", "--measured", "--out", "x"], "--out"),
        (["compare", "{trace}", "--measured", "--rate-scale", "9"], "--rate-scale"),
        (["compare", "{trace}", "--engine", "barrier", "--no-refill-lag"], "refill lag"),
        (["compare", "{trace}", "--base-fit-n", "5"], "--base-fit-n"),
        (["compare", "{trace}", "--router", "random"], "--router"),
        (["compare", "{trace}", "--replicas", "1", "--router-place", "front"], "--router-place"),
        (["capture", "--out", "x", "--think", "5"], "--think"),
        (["capture", "--out", "x", "--cv", "9"], "--cv"),
        (["capture", "--out", "x", "--arrivals", "poisson", "--rate", "1", "--cv", "9"], "--cv"),
        (["capture", "--out", "x", "--arrivals", "poisson", "--rate", "1", "--think", "5"], "--think"),
        (["capture", "--out", "x", "--arrivals", "backlog", "--arrival-setting", "burst_s=1"], "--arrival-setting"),
        (["capture", "--out", "x", "--timeout", "5"], "--timeout"),
        (["capture", "--out", "x", "--max-tokens", "5"], "--max-tokens"),
        (["capture", "--out", "x", "--replay", "{trace}", "--workload", "reference"], "--workload"),
        (["check", "{trace}/grid.toml", "--baseline", "{trace}/b.json"], "grid.toml"),
        (["check", "--baseline", "{trace}/b.json", "--reason", "why"], "--reason"),
        (["check", "--baseline", "{trace}/b.json", "--tolerance", "0.1"], "--tolerance"),
        (["check", "--baseline", "{trace}/b.json", "--update", "--reason", "w", "--junit", "j.xml"], "--junit"),
        (["sweep", "{trace}/g.toml", "--store", "s", "--dry-run", "--keep-traces"], "--keep-traces"),
        (["show", "{trace}", "--paired", "policy=fifo/policy=sjf", "--best", "mae"], "--best"),
        (["show", "{trace}", "--where", "failed=True", "--pivot", "a,b"], "--pivot"),
        (["validate", "{trace}", "--steps", "measured", "--seeds", "3"], "--seeds"),
        (["validate", "{trace}", "--steps", "measured", "--json", "--by-tenant"], "--by-tenant"),
        (["demo", "--path", "--out", "x"], "--out"),
    ],
)
def test_an_option_that_does_nothing_in_this_call_is_an_error(
    trace: Path, arguments: list[str], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = driftsim(*(argument.format(trace=trace) for argument in arguments))
    assert run.returncode == 2, run.stderr
    assert option in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_gate_on_captures_needs_captured_runs_in_its_baseline(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(f'[base]\ntrace = "{trace}"\npolicy = "fifo"\n')
    baseline = tmp_path / "b.json"
    made = driftsim("check", tmp_path / "g.toml", "--baseline", baseline, "--update", "--reason", "x", "--jobs", 1)
    assert made.returncode == 0, made.stderr
    run = driftsim("check", "--baseline", baseline, "--captured", trace)
    assert run.returncode == 2
    assert "holds no captured runs" in run.stderr


def test_a_base_that_is_to_be_fitted_is_not_taken_for_another(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(f'trace = "{trace}"\n[admission]\nbase = "fit"\n')
    run = driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / "out")
    assert run.returncode == 2
    assert "needs the table that was fitted" in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_a_plug_in_lacks_is_the_plug_ins_mistake(trace: Path, tmp_path: Path) -> None:
    lines = ["from driftsim import Keyed", "", "class Lost(Keyed):", "    def key(self, job):", "        open('/nope')"]
    (tmp_path / "lost.py").write_text("\n".join(lines))
    run = driftsim("compare", trace, "--policies", f"fifo,{tmp_path}/lost.py:Lost", "--replications", 1)
    assert run.returncode == 3
    assert "lost.py failed at line 5, in key: FileNotFoundError" in run.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,p,o\n", "no request in runs.csv"),
        ("a,p,o\nlater,5,5\n", "line 2 (row 0): arrival_s is 'later', not a time"),
    ],
)
def test_a_table_that_is_no_run_gets_one_line(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "runs.csv").write_text(content)
    (tmp_path / "m.toml").write_text('[columns]\narrival_s = "a"\nprompt_tokens = "p"\noutput_tokens = "o"\n')
    run = driftsim("import", "csv", tmp_path / "runs.csv", "--mapping", tmp_path / "m.toml", "--out", tmp_path / "t")
    assert run.returncode == 2
    assert told in run.stderr


def test_names_are_shown_as_they_are_whatever_brackets_they_have(trace: Path, tmp_path: Path) -> None:
    names = ["[/b]", "[prod]", "[red]x", "a[0]", "\\[b]"]
    recorded = ds.read(trace)
    own = [names[row % len(names)] for row in range(len(recorded.requests))]
    table = recorded.requests.assign(tenant=own, tier=own)
    place = ds.Trace(recorded.header, table, recorded.steps).write(tmp_path / "t")
    profile = tmp_path / "p.json"
    assert driftsim("calibrate", place, "--out", profile).returncode == 0
    by_tenant = driftsim("validate", place, "--profile", profile, "--by-tenant")
    assert by_tenant.returncode == 0, by_tenant.stderr
    assert [name for name in names if name not in by_tenant.stdout] == []
    options = ("--replications", 1, "--policies", "fifo,priority", "--profile", profile, "--out", tmp_path / "r")
    compared = driftsim("compare", place, "--tiers", ",".join(names), *options)
    assert compared.returncode == 0, compared.stderr


@pytest.mark.parametrize("file", ["s.json", "s.toml", "map.toml", "p.jsonl"])
def test_a_file_that_is_nested_without_end_gets_one_line(file: str, trace: Path, tmp_path: Path) -> None:
    deep = "[" * 100_000
    (tmp_path / file).write_text(f"a = {deep}" if file.endswith("toml") else deep)
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    calls = {
        "s.json": ("simulate", tmp_path / file, "--out", tmp_path / "o"),
        "s.toml": ("simulate", tmp_path / file, "--out", tmp_path / "o"),
        "map.toml": ("import", tmp_path / "r.csv", "--mapping", tmp_path / file, "--out", tmp_path / "o"),
        "p.jsonl": ("import", tmp_path / file, "--out", tmp_path / "o"),
    }
    run = driftsim(*calls[file])
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert file in run.stderr
    model = driftsim("profile", "--gpu", "L4", "--model", tmp_path / "s.json", "--out", tmp_path / "q.json")
    assert model.returncode == 2
    broken = tmp_path / "broken"
    shutil.copytree(trace, broken)
    (broken / "header.json").write_text(deep)
    assert "nested too deep" in driftsim("compare", broken).stderr
