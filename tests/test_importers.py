"""Other people's runs, read strictly: units, clocks and columns are as the mapping says, what lacks is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.errors import TraceError
from driftsim.metrics import e2e, ttft
from driftsim.trace.importers import import_trace
from driftsim.trace.trace import read
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
    trace = import_trace("csv", table(tmp_path), mapping(tmp_path))
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
    said = " ".join(header.notes)
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
    one, same = (import_trace("csv", file, mapping(tmp_path)).requests for file in (source, other))
    pd.testing.assert_frame_equal(one, same)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (MAPPING.replace('prompt_tokens = "in"', 'prompt_tokens = "inn"'), "column 'inn' of the mapping is not in"),
        (MAPPING.replace("prompt_tokens", "promt_tokens"), "'promt_tokens' is no column of a trace"),
        (MAPPING.replace('all = "ms"', 'all = "hours"'), "units.all"),
        (MAPPING + "[more]\n", "more: Extra inputs"),
        (MAPPING.replace("kv_blocks = 4000", "blocks = 4000"), "blocks"),
        (MAPPING.replace('output_tokens = "out"', ""), "output_tokens is not mapped"),
        ("[columns", "not readable as TOML"),
    ],
)
def test_a_mapping_that_is_not_understood_is_refused(text: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=what):
        import_trace("csv", table(tmp_path), mapping(tmp_path, text))


def test_a_clock_that_goes_backwards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="finish_s is .* before its first_token_s"):
        import_trace("csv", table(tmp_path, took=[100, 1000]), mapping(tmp_path))


def test_a_value_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="row 1: prompt_tokens is 'many', not a number"):
        import_trace("csv", table(tmp_path, **{"in": [20, "many"]}), mapping(tmp_path))


def bench(folder: Path, **changes: Any) -> Path:
    content = {
        "model_id": "qwen", "input_lens": [10, 20, 30], "output_lens": [3, 4, 0], "start_times": [50.0, 50.5, 51.0],
        "ttfts": [0.1, 0.2, 0.0], "itls": [[0.05, 0.05], [0.1, 0.1, 0.1], []], "errors": ["", "", "timed out"],
    }  # fmt: skip
    file = folder / "bench.json"
    file.write_text(json.dumps({name: value for name, value in (content | changes).items() if value is not None}))
    return file


def test_the_result_of_vllm_bench_is_read(tmp_path: Path) -> None:
    trace = import_trace("vllm-bench", bench(tmp_path), None)
    rows = trace.requests
    assert list(rows["arrival_s"]) == [0.0, 0.5, 1.0]
    assert e2e(trace.finished).tolist() == pytest.approx([0.2, 0.5])
    assert list(rows["finish_reason"]) == ["length", "length", "error"]
    assert rows["error"][2] == "timed out"
    assert trace.header.model == "qwen"


def test_a_result_without_start_times_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks 'start_times'"):
        import_trace("vllm-bench", bench(tmp_path, start_times=None), None)


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
    azure = import_trace("azure", DATA / "azure_llm_2023_conv_first30min.csv", None)
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
    run = import_trace("csv", DATA / "vllm_rtxpro6000_llama3.1_8b" / "requests.jsonl", mapping(tmp_path, text))
    assert len(run.finished) == 300
    assert np.all(ttft(run.finished) > 0)


def test_results_that_were_cut_short_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="b.json: its lists differ in length"):
        import_trace("vllm-bench", bench(tmp_path, ttfts=[0.1]).rename(tmp_path / "b.json"), None)
    (tmp_path / "a.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,2\n")
    with pytest.raises(ValueError, match="a.csv: row 0: TIMESTAMP is 'soon'"):
        import_trace("azure", tmp_path / "a.csv", None)


def test_an_unknown_format_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown format 'xml'; choose one of csv, vllm-bench, azure"):
        import_trace("xml", tmp_path / "f", None)
