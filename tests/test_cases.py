"""Files that people have: each kind that once crashed, or was answered wrongly in silence, with what is right.

Our own small files stand for the kinds; the folder of the reported ones, where it is at hand, is run as it is.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from driftsim.metrics import e2e, ttft
from driftsim.trace.trace import Trace, read
from tests.commands import Run, driftsim

REPORTED = Path(__file__).resolve().parents[2] / "shared" / "cases"
COLUMNS = '[columns]\narrival_s = "t"\nprompt_tokens = "p"\noutput_tokens = "o"\n'


def brought_in(folder: Path, name: str, text: str, mapping: str = COLUMNS, *options: object) -> Run:
    (folder / name).write_text(text)
    (folder / "map.toml").write_text(mapping)
    shutil.rmtree(folder / "t", ignore_errors=True)
    return driftsim("import", folder / name, "--mapping", folder / "map.toml", "--out", folder / "t", *options)


@pytest.mark.parametrize(
    ("cells", "tenants"),
    [
        (["17", "4"], ["17", "4"]),
        (["17.0", ""], ["17.0", "default"]),
        (["true", "2026-03-29"], ["true", "2026-03-29"]),
        (["[1, 2]", "inf"], ["[1, 2]", "inf"]),
    ],
)
def test_a_tenant_may_be_anything(cells: list[str], tenants: list[str], tmp_path: Path) -> None:
    rows = "\n".join(f'{second},"{cell}",100,20' for second, cell in enumerate(cells))
    run = brought_in(tmp_path, "r.csv", f"t,user,p,o\n{rows}\n", COLUMNS + 'tenant = "user"\n')
    assert run.returncode == 0, run.stderr
    assert list(read(tmp_path / "t").requests["tenant"]) == tenants


@pytest.mark.parametrize("cell", [17, 17.0, True, None, [1], {"a": 1}, "x", ""])
def test_a_tenant_of_json_may_be_anything(cell: object, tmp_path: Path) -> None:
    lines = [json.dumps({"t": second, "user": cell, "p": 9, "o": 5}) for second in range(2)]
    run = brought_in(tmp_path, "r.jsonl", "\n".join(lines), COLUMNS + 'tenant = "user"\n')
    missing = cell is None or cell == ""
    assert run.returncode == 0 or (missing and run.returncode == 2), run.stderr
    if run.returncode == 0:
        assert len(set(read(tmp_path / "t").requests["tenant"])) == 1


def test_times_may_be_dates_with_zones(tmp_path: Path) -> None:
    run = brought_in(tmp_path, "r.csv", "t,p,o\n2026-03-29T01:59:59+01:00,9,5\n2026-03-29T01:00:00Z,9,5\n")
    assert run.returncode == 0
    assert read(tmp_path / "t").requests["arrival_s"].tolist() == [0.0, 1.0]


def test_an_end_less_how_long_it_took_is_an_arrival(tmp_path: Path) -> None:
    mapping = (
        '[columns]\nfinish_s = "end"\nprompt_tokens = "p"\noutput_tokens = "o"\n'
        '[durations]\nfinish_s = "took"\n[units]\nall = "ms"\n'
    )
    run = brought_in(tmp_path, "r.csv", "end,took,p,o\n1500,500,9,5\n3000,750,9,5\n", mapping)
    assert run.returncode == 0, run.stderr
    rows = read(tmp_path / "t").requests
    assert rows["arrival_s"].tolist() == pytest.approx([0.0, 1.25])
    assert e2e(rows).tolist() == pytest.approx([0.5, 0.75])


def test_failures_are_failures_however_they_are_written(tmp_path: Path) -> None:
    mapping = COLUMNS + 'error = "error"\n[durations]\nfirst_token_s = "ttft"\nfinish_s = "took"\n'
    rows = "t,p,o,ttft,took,error\n0,300,40,0.2,1.1,\n1,310,1,0,0,Too Many Requests\n2,320,40,0.2,1.1,\n"
    assert brought_in(tmp_path, "r.csv", rows, mapping).returncode == 0
    trace = read(tmp_path / "t")
    assert list(trace.requests["finish_reason"]) == ["length", "error", "length"]
    assert e2e(trace.finished).mean() == pytest.approx(1.1)
    silent = brought_in(tmp_path, "r.csv", rows.replace("error\n", "e\n", 1), mapping.replace('error = "error"\n', ""))
    assert "were answered in no time, which no engine does: they count as failed" in silent.stderr
    assert len(read(tmp_path / "t").finished) == 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("200", "length"),
        ("ok", "length"),
        ("cancelled", "abort"),
        ("timeout", "timeout"),
        ("timed_out", "timeout"),
        ("429", "rejected"),
        ("500", "error"),
    ],
)
def test_the_words_of_others_for_an_ending_are_known(status: str, reason: str, tmp_path: Path) -> None:
    mapping = COLUMNS + 'finish_reason = "status"\nfinish_s = "end"\n'
    brought_in(tmp_path, "r.csv", f"t,p,o,end,status\n0,9,5,1,{status}\n1,9,5,2,ok\n", mapping)
    assert read(tmp_path / "t").requests["finish_reason"][0] == reason


def test_a_word_that_nobody_knows_costs_its_row_and_is_mapped_by_hand(tmp_path: Path) -> None:
    mapping = COLUMNS + 'finish_reason = "status"\n'
    rows = "t,p,o,status\n0,9,5,blue\n1,9,5,ok\n"
    run = brought_in(tmp_path, "r.csv", rows, mapping)
    assert "1 of 2 rows could not be read and were left out: line 2 (row 0): finish_reason is 'blue'" in run.stderr
    assert "[maps.finish_reason] 'blue' = \"stop\"" in run.stderr
    assert brought_in(tmp_path, "r.csv", rows, mapping + '[maps.finish_reason]\nblue = "stop"\n').returncode == 0
    assert list(read(tmp_path / "t").requests["finish_reason"]) == ["stop", "length"]


def test_records_are_reached_by_paths_and_by_their_ids(tmp_path: Path) -> None:
    mapping = 'records = "runs.0.requests"\n[columns]\nrequest_id = "$key"\narrival_s = "at.ns"\n' + (
        'prompt_tokens = "n.0"\noutput_tokens = "n.1"\n[units]\narrival_s = "ns"\n'
    )
    document = {
        "runs": [
            {"requests": {"a": {"at": {"ns": 10**18}, "n": [9, 5]}, "b": {"at": {"ns": 10**18 + 10**9}, "n": [8, 4]}}}
        ]
    }
    run = brought_in(tmp_path, "r.json", json.dumps(document), mapping)
    assert run.returncode == 0, run.stderr
    rows = read(tmp_path / "t").requests
    assert list(rows["request_id"]) == ["a", "b"]
    assert rows["arrival_s"].tolist() == pytest.approx([0.0, 1.0])
    wrong = brought_in(tmp_path, "r.json", json.dumps(document), mapping.replace("runs.0", "runs.1"))
    assert wrong.returncode == 2
    assert "nothing is at 'runs.1.requests'" in wrong.stderr


@pytest.mark.parametrize("text", ["", "t,p,o\n", "t,p,o\n0,inf,5\n", "t,p,o\n,,\n", "t,p,o\nx,y,z\n", "t,p\n1,2\n"])
def test_a_file_with_no_request_that_can_be_read_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    run = brought_in(tmp_path, "r.csv", text)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "r.csv" in run.stderr
    assert not (tmp_path / "t").exists()


def test_one_bad_row_costs_that_row_and_strict_refuses_the_file(tmp_path: Path) -> None:
    text = "t,p,o\n" + "".join(f"{second},9,{'many' if second in (2, 5, 7, 9) else 5}\n" for second in range(12))
    run = brought_in(tmp_path, "r.csv", text)
    assert run.returncode == 0
    assert "4 of 12 rows could not be read and were left out: line 4 (row 2): output_tokens is 'many'" in run.stderr
    assert "line 7 (row 5)" in run.stderr
    assert "line 9 (row 7)" in run.stderr
    assert "line 11" not in run.stderr  # three are named
    assert len(read(tmp_path / "t").requests) == 8
    strict = brought_in(tmp_path, "r.csv", text, COLUMNS, "--strict")
    assert strict.returncode == 2
    assert "(and 3 more rows)" in strict.stderr


def test_what_an_import_changed_is_said_by_every_verb(tmp_path: Path) -> None:
    mapping = COLUMNS + 'first_token_s = "f"\nfinish_s = "e"\n'
    rows = "".join(f"{at},{40 + at},20,{at + 0.11},{at + 1.3}\n" for at in range(40))
    said = "1 of 41 rows could not be read and were left out"
    assert said in brought_in(tmp_path, "r.csv", f"t,p,o,f,e\n{rows}40,many,5,41,42\n", mapping).stderr
    trace, profile, store = tmp_path / "t", tmp_path / "p.json", tmp_path / "s"
    (tmp_path / "s.toml").write_text('trace = "t"\nprofile = "p.json"\n')
    (tmp_path / "g.toml").write_text('base = { trace = "t", profile = "p.json" }\n')
    runs = [
        driftsim("calibrate", trace, "--out", profile),
        driftsim("validate", trace, "--profile", profile),
        driftsim("compare", trace, "--policies", "fifo", "--replications", 1, "--profile", profile),
        driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / "o"),
        driftsim("sweep", tmp_path / "g.toml", "--store", store, "--jobs", 1),
    ]
    for run in runs:
        assert run.returncode == 0, run.stderr
        assert said in " ".join((run.stdout + run.stderr).split())


# -- the reported ones, as they are
def reported(name: str, tmp_path: Path) -> Path:
    if not REPORTED.is_dir():
        pytest.skip("the folder of reported cases is not at hand")
    [folder] = REPORTED.glob(f"{name}-*")
    shutil.copytree(folder, tmp_path / "case")
    return tmp_path / "case"


def imported(folder: Path, file: str, name: str = "t") -> Trace:
    mapping = ("--mapping", folder / "map.toml") if (folder / "map.toml").exists() else ()
    run = driftsim("import", folder / file, *mapping, "--out", folder / name)
    assert run.returncode == 0, run.stderr
    return read(folder / name)


def test_a_benchmark_with_32_users_answers_the_question_of_16_slots(tmp_path: Path) -> None:
    folder = reported("c01", tmp_path)
    assert imported(folder, "bench.json").header.workload.phases[0].users == 32
    run = driftsim("simulate", folder / "half.toml", "--out", folder / "o")
    assert "E2E mean 4.938 s" in run.stdout
    assert ttft(read(folder / "o").finished).mean() == pytest.approx(2.64, abs=0.01)


def test_a_profile_5_percent_slow_is_5_percent_off_a_closed_loop(tmp_path: Path) -> None:
    folder = reported("c02", tmp_path)
    imported(folder, "bench.json")
    run = driftsim("validate", folder / "t", "--profile", folder / "profile_5pct_slower.json", "--json")
    errors = {(row["metric"], row["stat"]): row["error"] for row in json.loads(run.stdout)["rows"]}
    for cell in (("e2e", "mean"), ("tpot", "mean"), ("makespan", "mean")):
        assert errors[cell] == pytest.approx(0.05, abs=0.001)


OPEN = pytest.param(("control_open_rate2", "control_open_rate4.5"), marks=pytest.mark.nightly)


@pytest.mark.parametrize("loads", [("bench_c8", "bench_c32"), OPEN])
def test_two_loads_give_back_the_coefficients(loads: tuple[str, str], tmp_path: Path) -> None:
    folder = reported("c03", tmp_path)
    for load in loads:
        imported(folder, f"{load}.json", load)
    assert driftsim("calibrate", *(folder / load for load in loads), "--out", folder / "p.json").returncode == 0
    fitted, truth = (json.loads((folder / name).read_text()) for name in ("p.json", "true_profile.json"))
    for name in ("intercept_s", "prefill_token_s", "context_token_s"):
        assert fitted[name] == pytest.approx(truth[name], rel=0.05)


def test_time_outs_of_which_nothing_is_known_are_told_by_their_share(tmp_path: Path) -> None:
    folder = reported("c05", tmp_path)
    imported(folder, "client.csv")
    said = "58 of 192 requests (30 %) have no known output and are not simulated: load and latency are too low"
    validated = driftsim("validate", folder / "t", "--profile", folder / "profile.json")
    calibrated = driftsim("calibrate", folder / "t", "--out", folder / "p.json")
    for run in (validated, calibrated):
        assert said in " ".join((run.stdout + run.stderr).split())


def test_characters_in_place_of_tokens_are_refused(tmp_path: Path) -> None:
    folder = reported("c19", tmp_path)
    imported(folder, "runs.csv")
    run = driftsim("calibrate", folder / "t", "--out", folder / "p.json")
    assert run.returncode == 2
    assert "output_tokens may be characters or words" in run.stderr
    assert not (folder / "p.json").exists()


def test_an_engine_that_vllm_would_not_start_is_refused(tmp_path: Path) -> None:
    folder = reported("c21", tmp_path)
    run = driftsim("profile", "--gpu", "L4", "--model", folder / "config.json", "--out", folder / "l4.json")
    assert run.returncode == 2
    assert "lower max_model_len to at most 35,104" in run.stderr
    imported(folder, "trace.csv")
    simulated = driftsim("simulate", folder / "s.toml", "--out", folder / "o")
    assert simulated.returncode == 2
    assert "vLLM would not start this engine" in simulated.stderr


@pytest.mark.parametrize("name", sorted(os.listdir(REPORTED)) if REPORTED.is_dir() else [])
def test_no_reported_file_gives_a_traceback(name: str, tmp_path: Path) -> None:
    if not (REPORTED / name).is_dir():
        pytest.skip("no case")
    folder = reported(name.partition("-")[0], tmp_path)
    files = [file for kind in ("*.json", "*.jsonl", "*.csv") for file in folder.glob(kind)]
    mapping = ("--mapping", folder / "map.toml") if (folder / "map.toml").exists() else ()
    for file in files:
        for options in {(), mapping}:
            shutil.rmtree(folder / "t", ignore_errors=True)
            run = driftsim("import", file, *options, "--out", folder / "t")
            assert run.returncode in (0, 2), (file, run.stderr)
            if run.returncode == 2:
                assert run.stderr.count("\n") == 1
                assert str(file) in run.stderr
