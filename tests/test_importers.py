"""Other people's runs, read strictly: units, clocks and columns are as the mapping says, what lacks is said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.errors import TraceError
from driftsim.formats.imports import import_trace
from driftsim.metrics import e2e, ttft
from driftsim.trace.trace import Trace, read
from driftsim.workloads.replay import replay
from tests.commands import driftsim

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MAPPING = """
model = "llama"
hardware = "RTX"
max_in_flight = 8
[columns]
request_id = "name"
prompt_tokens = "in"
output_tokens = "out"
arrival_s = "at"
scheduled_s = "sched"
[durations]
first_token_s = "ttft"
finish_s = "took"
[units]
all = "ms"
arrival_s = "s"
scheduled_s = "s"
[values]
tier = "premium"
[engine]
version = "0.19.0"
max_num_seqs = 128
kv_blocks = 4000
"""


def import_trace_as(form: str, file: Path, mapping: Path | None = None, **choices: Any) -> Trace:
    return import_trace(file, form, mapping=mapping, **choices)


def table(folder: Path, **changes: Any) -> Path:
    rows = {
        "name": ["b", "a"], "in": [20, 10], "out": [5, 7], "at": [1001.5, 1000.0], "sched": [1001.6, 1000.1],
        "ttft": [200, 150], "took": [900, 1000], "extra": [1, 2],
    }  # fmt: skip
    pd.DataFrame(rows | changes).to_csv(folder / "run.csv", index=False)
    return folder / "run.csv"


def mapping(folder: Path, text: str = MAPPING) -> Path:
    (folder / "map.toml").write_text(text)
    return folder / "map.toml"


def test_a_table_is_read_as_its_mapping_says(tmp_path: Path) -> None:
    trace = import_trace_as("csv", table(tmp_path), mapping(tmp_path))
    rows = trace.requests
    assert list(rows["request_id"]) == ["a", "b"]  # by arrival
    assert list(rows["arrival_s"]) == [0.0, 1.5]
    assert ttft(rows).tolist() == pytest.approx([0.15, 0.2])
    assert e2e(rows).tolist() == pytest.approx([1.0, 0.9])
    assert rows["scheduled_s"].tolist() == pytest.approx([0.1, 1.6])
    assert set(rows["tier"]) == {"premium"}
    header = trace.header
    assert (header.kind, header.model, header.hardware, header.max_in_flight) == ("imported", "llama", "RTX", 8)
    assert (header.engine.max_num_seqs, header.engine.kv_blocks) == (128, 4000)
    assert "max_num_batched_tokens" in header.engine.assumed
    assert "kv_blocks" not in header.engine.assumed
    said = " ".join([*header.caveats, *header.notes])
    assert "not mapped: extra" in said
    assert "max_tokens was not told" in said
    assert "prompt_words" in said


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "json"])
def test_the_same_table_in_another_form_is_the_same_trace(kind: str, tmp_path: Path) -> None:
    source = table(tmp_path)
    rows = pd.read_csv(source)
    other = tmp_path / f"run.{kind}"
    if kind == "parquet":
        rows.to_parquet(other)
    else:
        rows.to_json(other, orient="records", lines=kind == "jsonl")
    one, same = (import_trace_as("csv", file, mapping(tmp_path)).requests for file in (source, other))
    pd.testing.assert_frame_equal(one, same)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (MAPPING.replace('prompt_tokens = "in"', 'prompt_tokens = "inn"'), "column 'inn' of the mapping is not in"),
        (MAPPING.replace("prompt_tokens", "promt_tokens"), "'promt_tokens' is no column of a trace"),
        (MAPPING.replace('all = "ms"', 'all = "hours"'), "units.all"),
        (MAPPING + "[more]\n", "more: unknown key"),
        (MAPPING.replace("kv_blocks = 4000", "blocks = 4000"), "blocks"),
        (MAPPING.replace('output_tokens = "out"', ""), "output_tokens is not mapped"),
        ("[columns", "not readable as TOML"),
    ],
)
def test_a_mapping_that_is_not_understood_is_refused(text: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=what):
        import_trace_as("csv", table(tmp_path), mapping(tmp_path, text))


def test_a_clock_that_goes_far_backwards_costs_the_row(tmp_path: Path) -> None:
    file = table(tmp_path, took=[100, 1000])
    trace = import_trace_as("csv", file, mapping(tmp_path))
    assert list(trace.requests["request_id"]) == ["a"]
    what = r"line 2 \(row 0\): finish_s is 0.1 s before its first_token_s; the clocks do not agree \(column 'took'\)"
    assert re.search(f"1 of 2 rows could not be read and were left out: {what}", trace.header.caveats[0])
    with pytest.raises(TraceError, match=f"run.csv: {what}; correct the row or remove it"):
        import_trace_as("csv", file, mapping(tmp_path), strict=True)


def test_clocks_that_differ_a_little_are_set_equal_and_told(tmp_path: Path) -> None:
    trace = import_trace_as("csv", table(tmp_path, sched=[1001.4999, 1000.1]), mapping(tmp_path))
    assert trace.requests["scheduled_s"].tolist() == pytest.approx([0.1, 1.5])
    assert "1 of 2 rows had times out of order by at most 0.1 ms, which were set equal" in " ".join(
        trace.header.caveats
    )


def test_a_value_that_is_no_number_is_named(tmp_path: Path) -> None:
    file = table(tmp_path, **{"in": [20, "many"]})
    what = r"line 3 \(row 1\): prompt_tokens is 'many', not a number \(column 'in'\)"
    assert re.search(what, import_trace_as("csv", file, mapping(tmp_path)).header.caveats[0])
    with pytest.raises(TraceError, match=what):
        import_trace_as("csv", file, mapping(tmp_path), strict=True)


def bench(folder: Path, **changes: Any) -> Path:
    content = {
        "model_id": "qwen", "input_lens": [10, 20, 30], "output_lens": [3, 4, 0], "start_times": [50.0, 50.5, 51.0],
        "ttfts": [0.1, 0.2, 0.0], "itls": [[0.05, 0.05], [0.1, 0.1, 0.1], []], "errors": ["", "", "timed out"],
    }  # fmt: skip
    file = folder / "bench.json"
    file.write_text(json.dumps({name: value for name, value in (content | changes).items() if value is not None}))
    return file


def test_the_result_of_vllm_bench_is_read(tmp_path: Path) -> None:
    trace = import_trace_as("vllm-bench", bench(tmp_path), None)
    rows = trace.requests
    assert list(rows["arrival_s"]) == [0.0, 0.5, 1.0]
    assert e2e(trace.finished).tolist() == pytest.approx([0.2, 0.5])
    assert list(rows["finish_reason"]) == ["length", "length", "error"]
    assert rows["error"][2] == "timed out"
    assert trace.header.model == "qwen"


def test_a_result_without_start_times_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks 'start_times'"):
        import_trace_as("vllm-bench", bench(tmp_path, start_times=None), None)


def test_a_workload_without_timings_can_be_replayed(tmp_path: Path) -> None:
    file = tmp_path / "azure.csv"
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:15:46.6805900,374,44"]
    file.write_text("\n".join([*lines, "2023-11-16 18:15:50.9951690,396,109"]) + "\n")
    assert driftsim("import", "azure", file, "--out", tmp_path / "t").returncode == 0
    trace = read(tmp_path / "t")
    assert trace.requests["finish_s"].isna().all()
    assert replay(trace).table["offset_s"].tolist() == pytest.approx([0.0, 4.314579])


@pytest.mark.skipif(not DATA.is_dir(), reason="the public traces are not at hand")
def test_public_traces_are_read_as_they_are(tmp_path: Path) -> None:
    azure = import_trace_as("azure", DATA / "azure_llm_2023_conv_first30min.csv", None)
    assert len(azure.requests) == 10_108
    text = """
model = "Llama-3.1-8B"
hardware = "RTX PRO 6000"
[columns]
request_id = "request_id"
prompt_tokens = "input_toks"
output_tokens = "output_toks"
arrival_s = "queued_ts"
queued_s = "queued_ts"
scheduled_s = "scheduled_ts"
first_token_s = "first_token_ts"
finish_s = "last_token_ts"
[engine]
version = "0.19.0"
max_num_seqs = 128
max_num_batched_tokens = 2048
"""
    run = import_trace_as("csv", DATA / "vllm_rtxpro6000_llama3.1_8b" / "requests.jsonl", mapping(tmp_path, text))
    assert len(run.finished) == 300
    assert np.all(ttft(run.finished) > 0)


def test_results_that_were_cut_short_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="b.json: its lists differ in length"):
        import_trace_as("vllm-bench", bench(tmp_path, ttfts=[0.1]).rename(tmp_path / "b.json"), None)
    (tmp_path / "a.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,2\n")
    with pytest.raises(
        ValueError, match=r"a.csv: line 2 \(row 0\): arrival_s is 'soon', not a time.*column 'TIMESTAMP'"
    ):
        import_trace_as("azure", tmp_path / "a.csv", None)


def test_an_unknown_format_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown format 'xml'; choose one of csv, vllm-bench, azure"):
        import_trace_as("xml", tmp_path / "f", None)


def test_a_mapping_completes_what_a_known_format_leaves_out(tmp_path: Path) -> None:
    text = (
        'hardware = "L4"\ntiers = ["gold"]\n[engine]\nversion = "0.19.0"\nmax_num_seqs = 32\n[values]\ntier = "gold"\n'
    )
    trace = import_trace(bench(tmp_path), mapping=mapping(tmp_path, text))
    header = trace.header
    assert (header.model, header.hardware, header.engine.max_num_seqs) == ("qwen", "L4", 32)
    assert "max_num_seqs" not in header.engine.assumed
    assert set(trace.requests["tier"]) == {"gold"}
    with pytest.raises(ValueError, match="the format vllm-bench has columns of its own"):
        import_trace(bench(tmp_path), "vllm-bench", mapping=mapping(tmp_path))
