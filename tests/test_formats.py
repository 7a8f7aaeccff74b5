"""Files of other tools: each is known by what is in it, read as its writer means it, and what it lacks is said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import driftsim as ds
from driftsim.errors import InputError
from driftsim.formats.imports import FORMATS, import_trace, recognised
from driftsim.trace.trace import Trace, read
from tests import format_files as files
from tests.commands import driftsim
from tests.format_files import EXAMPLES, Example, brought, column, said


def ends(trace: Trace) -> list[str]:
    return trace.requests["finish_reason"].tolist()


# -- recognising


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda example: example.name)
def test_a_file_is_known_by_what_is_in_it(example: Example, tmp_path: Path) -> None:
    file = example.write(tmp_path)
    assert recognised(file) == example.form
    renamed = file.rename(tmp_path / f"some{file.suffix}")
    assert recognised(renamed) == example.form
    fitting = [name for name, form in FORMATS.items() if form.fits(files.head(renamed))]
    assert fitting == [example.form]  # and by nothing else


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda example: example.name)
def test_every_example_is_read_and_replayed(example: Example, tmp_path: Path) -> None:
    trace = import_trace(example.write(tmp_path), **example.choices)
    assert trace.header.kind == "imported"
    assert ds.replay(trace)
    assert len(read(trace.write(tmp_path / "t")).requests) == len(trace.requests)


def test_a_table_that_nobody_knows_is_told_what_begins_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("a,b\n1,2\n")
    run = driftsim("import", tmp_path / "runs.csv", "--out", tmp_path / "t")
    assert run.returncode == 2
    assert "it is a table with a, b" in run.stderr
    assert "--suggest" in run.stderr
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("name", ["chunk-3-trace.csv", "chunk-3-dataset.json"])
def test_a_generator_is_no_trace(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("0,1.3,8.5,Weibull,0.3,0.4\n600,0,0,,0,0\n" if name.endswith("csv") else '{"0": {}}')
    with pytest.raises(InputError, match="part of ServeGen, which tells rates and distributions"):
        import_trace(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("vllm_bench", {"rate": 2.0}, "--rate says nothing about the format vllm-bench; drop it"),
        ("vllm_bench", {"unit": "ms"}, "--unit says nothing"),
        ("bailian", {"users": 3}, "--users says nothing about the format bailian"),
        ("aiperf", {"result": 1}, "--result says nothing about the format aiperf"),
        ("sglang", {"rate": 0.0}, "rate must be a number above 0"),
        ("sglang", {"rate": math.nan}, "rate must be a number above 0"),
        ("sglang", {"users": 0}, "users must be at least 1"),
        ("sglang", {"users": True}, "users must be a whole number"),
        ("mooncake", {"unit": "h"}, "unknown unit 'h'; choose one of s, ms"),
        ("sglang", {"rate": 1.0, "users": 2}, "give one of the two"),
    ],
)
def test_a_choice_that_says_nothing_is_refused(
    name: str, choices: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        brought(tmp_path, name, **choices)


# -- vLLM's benchmark


def test_what_the_server_measured_is_counted_back_from_the_first_token(tmp_path: Path) -> None:
    trace = brought(tmp_path, "vllm_bench")
    assert column(trace, "scheduled_s")[:2] == [0.04, 0.6]  # 0.1 - 0.06, and 0.5 + 0.2 - 0.1
    assert column(trace, "queued_s")[:2] == [0.03, 0.55]
    assert np.isnan(trace.requests["scheduled_s"][2])
    late = brought(tmp_path, "vllm_bench", files.vllm_bench(server_ttfts=[9.0, 0.1, None, 0.25]))
    assert column(late, "scheduled_s")[0] == 0.0  # never before the request was sent


def test_a_request_that_its_client_held_back_counts_from_when_it_was_sent(tmp_path: Path) -> None:
    capped = files.vllm_bench(max_concurrency=1, queue_times=[0.0, 0.3, 0.0, 0.001])
    trace = brought(tmp_path, "vllm_bench", capped)
    assert column(trace, "arrival_s") == [0.0, 0.5, 1.0, 1.5]
    assert "the client held back 1 of 4 requests, at most for 0.3 s (queue_times)" in said(trace)
    closed = brought(tmp_path, "vllm_bench", capped | {"request_rate": "inf"})
    assert "held back" not in said(closed)  # there, waiting is what a user does


@pytest.mark.parametrize("drop", ["latencies", "queue_times", "server_queue_times", "server_ttfts", "errors"])
def test_older_results_lack_what_newer_ones_have(drop: str, tmp_path: Path) -> None:
    trace = brought(tmp_path, "vllm_bench", files.vllm_bench(**{drop: ...}))
    assert column(trace, "finish_s")[:2] == [0.2, 1.0]
    assert ends(trace) == ["length", "length", "error", "length"]


def test_a_fork_calls_latencies_e2els(tmp_path: Path) -> None:
    content = files.vllm_bench(latencies=..., e2els=[0.25, 0.5, 0.0, 0.34])
    assert column(brought(tmp_path, "vllm_bench", content), "finish_s")[0] == 0.25


# -- SGLang and LLMPerf: start times are lost


def test_a_closed_loop_is_rebuilt_from_what_the_file_says(tmp_path: Path) -> None:
    trace = brought(tmp_path, "sglang")
    assert column(trace, "arrival_s") == [0.0, 0.0, 0.3, 0.5, 0.5]  # two users; the failed one is over at once
    assert column(trace, "finish_s")[:3] == [0.3, 0.5, 0.6]
    phase = trace.header.workload.phases[0]
    assert (phase.kind, phase.users) == ("closed", 2)
    assert "rebuilt as a closed loop of 2 users, as the file says" in said(trace)
    assert ends(trace) == ["length", "length", "length", "error", "length"]
    assert trace.header.model == "meta/llama"


def test_a_user_may_tell_the_users(tmp_path: Path) -> None:
    trace = brought(tmp_path, "sglang", files.sglang(request_rate=4.0, max_concurrency=None), users=1)
    took = [0.3, 0.5, 0.3, 0.0, 0.6]
    assert column(trace, "arrival_s") == [round(sum(took[:row]), 6) for row in range(5)]
    assert "closed loop of 1 users, as you say" in said(trace)


def test_all_at_once_is_a_backlog(tmp_path: Path) -> None:
    trace = brought(tmp_path, "sglang", files.sglang(max_concurrency=None))
    assert column(trace, "arrival_s") == [0.0] * 5
    assert trace.header.workload.phases[0].kind == "backlog"


def test_drawn_arrivals_are_told_and_the_same_every_time(tmp_path: Path) -> None:
    content = files.sglang(request_rate=4.0, max_concurrency=None)
    one, again = (brought(tmp_path, "sglang", content, rate=4.0) for _ in range(2))
    assert column(one, "arrival_s") == column(again, "arrival_s")
    assert len(set(column(one, "arrival_s"))) == 5
    assert "arrivals were drawn, 4 requests a second (Poisson, seed 0)" in said(one)
    many = files.sglang(
        **{name: files.sglang()[name] * 400 for name in ("input_lens", "output_lens", "ttfts", "itls", "errors")}
    )
    drawn = brought(tmp_path, "sglang", many, rate=10.0)
    assert drawn.requests["arrival_s"].max() == pytest.approx(2000 / 10, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"request_rate": 4.0, "max_concurrency": 8}, "it says: 4 requests a second, at most 8 at once"),
        ({"request_rate": "trace", "max_concurrency": None}, "tells no start times; import it with --rate R"),
        ({"request_rate": ..., "max_concurrency": 8}, "it says: at most 8 at once"),
    ],
)
def test_lost_start_times_are_asked_for(changes: Mapping[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        brought(tmp_path, "sglang", files.sglang(**changes))


def test_one_of_appended_results_is_chosen(tmp_path: Path) -> None:
    runs = [files.sglang(), files.sglang(input_lens=[1, 2, 3, 4, 5])]
    with pytest.raises(InputError, match="holds 2 results; choose one with --result 1 to --result 2"):
        brought(tmp_path, "sglang", runs)
    assert sorted(brought(tmp_path, "sglang", runs, result=2).requests["prompt_tokens"]) == [1, 2, 3, 4, 5]
    with pytest.raises(InputError, match="there is no result 3"):
        brought(tmp_path, "sglang", runs, result=3)


def test_appended_results_without_details_are_known_all_the_same(tmp_path: Path) -> None:
    bare = files.sglang(
        **dict.fromkeys(("input_lens", "output_lens", "ttfts", "itls", "errors", "generated_texts"), ...)
    )
    with pytest.raises(InputError, match=r"lacks 'input_lens'; run bench_serving with --output-details"):
        brought(tmp_path, "sglang", [bare, bare], result=1)


def test_a_result_without_details_says_which_option_saves_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks 'itls'; run bench_serving with --output-details"):
        brought(tmp_path, "sglang", files.sglang(itls=...), form="sglang")


def test_llmperf_takes_its_users_from_the_summary_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "m_550_150_individual_responses.json"
    file.write_text(json.dumps(files.llmperf()))
    with pytest.raises(InputError, match="tells no start times; import it with --rate R .* or --users N"):
        import_trace(file)
    (tmp_path / "m_550_150_summary.json").write_text(json.dumps({"num_concurrent_requests": 2, "model": "yi"}))
    trace = import_trace(file)
    assert (trace.header.model, trace.header.workload.phases[0].users) == ("yi", 2)
    assert column(trace, "arrival_s") == [0.0, 0.0, 0.5, 0.6, 1.2, 1.4]
    assert trace.requests["error"][5] == "slow down"
    assert "as they were collected" in said(trace)


# -- guidellm


@pytest.mark.parametrize(
    ("strategy", "kind", "users"),
    [
        ({"type_": "concurrent", "streams": 2}, "closed", 2),
        ({"type_": "throughput", "max_concurrency": 2}, "closed", 2),
        ({"type_": "constant", "rate": 3.3, "max_concurrency": 512}, "open", 0),
        ({"type_": "poisson", "rate": 3.3}, "open", 0),
        ({"type_": "replay"}, "open", 0),
    ],
)
def test_the_strategy_tells_the_loop(strategy: Mapping[str, Any], kind: str, users: int, tmp_path: Path) -> None:
    phase = brought(tmp_path, "guidellm", files.guidellm(strategy)).header.workload.phases[0]
    assert (phase.kind, phase.users) == (kind, users)


def test_synchronous_is_one_user(tmp_path: Path) -> None:
    requests = [files.guidellm_request(number, 10.0 + 0.63 * number) for number in range(4)]
    content = files.guidellm({"type_": "synchronous"}, successful=requests, errored=[], incomplete=[])
    phase = brought(tmp_path, "guidellm", content).header.workload.phases[0]
    assert (phase.kind, phase.users) == ("closed", 1)


def test_errored_and_incomplete_requests_keep_what_they_had(tmp_path: Path) -> None:
    trace = brought(tmp_path, "guidellm")
    assert ends(trace) == ["length"] * 6 + ["error", "abort"]
    assert trace.requests["error"][6] == "HTTP 500"
    assert trace.requests["output_tokens"][7] == 3
    assert column(trace, "first_token_s")[0] == 0.2
    assert column(trace, "finish_s")[0] == 0.6  # the last token, not the end of the connection


def test_all_layouts_of_guidellm_are_one(tmp_path: Path) -> None:
    new, old = brought(tmp_path, "guidellm"), brought(tmp_path, "guidellm_old")
    assert (new.header.model, old.header.model) == ("llama", "old-llama")
    assert column(old, "arrival_s") == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert column(old, "first_token_s")[1] == 1.1
    assert column(old, "finish_s")[1] == 1.4
    assert "the report lists 5 of the 9 requests" in said(old)
    bare = [{"prompt_tokens": 9, "output_tokens": 2, "request_start_time": 1.0 + row, "request_end_time": 1.4 + row,
             "time_to_first_token_ms": 100.0} for row in range(3)]  # fmt: skip
    flat = brought(tmp_path, "guidellm", files.guidellm(successful=bare, errored=[], incomplete=[]))
    assert column(flat, "first_token_s") == [0.1, 1.1, 2.1]
    middle = [{"prompt_tokens": 9, "output_tokens": 2, "scheduler_info": {"request_timings": {
        "request_start": 5.0, "first_iteration": 5.2, "last_iteration": 5.9, "request_end": 6.0}}}]  # fmt: skip
    of_04 = brought(tmp_path, "guidellm", files.guidellm(successful=middle, errored=[], incomplete=[]))
    assert (column(of_04, "first_token_s"), column(of_04, "finish_s")) == ([0.2], [0.9])


def test_one_benchmark_of_a_sweep_is_chosen(tmp_path: Path) -> None:
    sweep = files.guidellm()
    slow = files.guidellm({"type_": "constant", "rate": 0.5})["benchmarks"][0]
    sweep["benchmarks"].append(slow)
    with pytest.raises(
        InputError, match=r"holds 2 benchmarks \(1: concurrent 2, 2: constant 0.5\); choose one with --result"
    ):
        brought(tmp_path, "guidellm", sweep)
    assert brought(tmp_path, "guidellm", sweep, result=2).header.workload.phases[0].kind == "open"


def test_later_turns_are_told(tmp_path: Path) -> None:
    content = files.guidellm()
    for number, request in enumerate(content["benchmarks"][0]["requests"]["successful"]):
        request["info"] |= {"conversation_id": "c", "turn_index": number}
    assert "5 of 8 requests are later turns of a session" in said(brought(tmp_path, "guidellm", content))


# -- inference-perf, AIPerf


def test_the_servers_count_goes_before_the_clients(tmp_path: Path) -> None:
    trace = brought(tmp_path, "inference_perf")
    assert trace.requests["output_tokens"].tolist()[:5] == [4] * 5
    assert column(trace, "first_token_s")[1] == 1.1
    assert column(trace, "finish_s")[1] == 1.3
    assert ends(trace) == ["length"] * 5 + ["error"]
    assert trace.requests["error"][5] == "HTTP Error 500: no"


def test_the_older_layout_of_inference_perf_is_read(tmp_path: Path) -> None:
    rows = [
        {"start_time": 5.0 + row, "end_time": 5.6 + row, "request": "", "response": "", "error": None,
         "info": {"input_tokens": 7, "output_tokens": 3, "output_token_times": [5.1 + row, 5.5 + row]}}
        for row in range(3)
    ]  # fmt: skip
    trace = brought(tmp_path, "inference_perf", rows)
    assert (column(trace, "first_token_s"), column(trace, "finish_s")) == ([0.1, 1.1, 2.1], [0.5, 1.5, 2.5])


def test_an_answer_that_was_not_streamed_ends_when_it_came(tmp_path: Path) -> None:
    rows = files.inference_perf()[:3]
    for row in rows:
        row["info"]["response_metrics"] = {"output_tokens": 3}
    trace = brought(tmp_path, "inference_perf", rows)
    assert trace.requests["first_token_s"].isna().all()
    assert column(trace, "finish_s") == [0.5, 1.5, 2.5]


def test_aiperf_brings_its_units(tmp_path: Path) -> None:
    trace = brought(tmp_path, "aiperf")
    assert column(trace, "first_token_s")[:2] == [0.1205, 0.3705]  # ms
    assert column(trace, "finish_s")[:2] == [0.4, 0.65]  # us
    rows = files.aiperf()[1:3]
    rows[0]["metrics"]["time_to_first_token"] = {"value": 120_500_000, "unit": "ns"}
    rows[1]["metrics"]["time_to_first_token"] = {"value": 0.1205, "unit": "sec"}
    assert column(brought(tmp_path, "aiperf", rows), "first_token_s") == [0.1205, 0.3705]


def test_the_warm_up_is_no_part_of_the_run(tmp_path: Path) -> None:
    trace = brought(tmp_path, "aiperf")
    assert trace.requests["request_id"].tolist() == [f"x{number}" for number in range(1, 8)]
    assert "1 of 8 requests are of the warm-up and were left out" in said(trace)
    with pytest.raises(InputError, match="all its 1 requests are of the warm-up"):
        brought(tmp_path, "aiperf", files.aiperf()[:1])


def test_cancelled_is_given_up_and_an_error_failed(tmp_path: Path) -> None:
    trace = brought(tmp_path, "aiperf")
    assert ends(trace) == ["length"] * 5 + ["abort", "error"]
    assert column(trace, "finish_s")[5] == 1.45  # when it was cancelled
    assert trace.requests["error"][6] == "HTTPError: gone"


# -- traces of arrivals and lengths


def test_burstgpt_keeps_its_kinds_and_counts_failures(tmp_path: Path) -> None:
    trace = brought(tmp_path, "burstgpt")
    assert column(trace, "arrival_s") == [0.0, 40.0, 113.0, 180.0, 185.0]
    assert set(trace.requests["category"]) == {"Conversation log"}
    assert ends(trace)[-1] == "error"
    assert "it mixes the models ChatGPT, GPT-4" in said(trace)


def test_newer_burstgpt_tells_sessions_and_ends(tmp_path: Path) -> None:
    rows = [
        row | {"Session ID": place // 2, "Elapsed time": 3 * place} for place, row in enumerate(files.burstgpt()[:4])
    ]
    trace = brought(tmp_path, "burstgpt", rows)
    assert column(trace, "finish_s") == [0.5, 43.0, 119.0, 189.0]
    assert "1 of 4 requests took 0 whole seconds, which counts as 0.5 s" in said(trace)
    assert "2 of 4 requests are later turns" in said(trace)


def test_bailian_tells_its_turns_and_prefixes(tmp_path: Path) -> None:
    trace = brought(tmp_path, "bailian")
    assert column(trace, "arrival_s") == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert set(trace.requests["category"]) == {"text", "search"}
    assert trace.requests["request_id"].tolist() == [str(row) for row in range(6)]
    assert "3 of 6 requests are later turns" in said(trace)
    assert "5 of 6 prompts begin as an earlier request, with 160 of 240 prompt tokens (hash_ids)" in said(trace)


def timed(rows: int, gap: float, length: int = 100, block: int | None = None) -> list[dict[str, Any]]:
    made = [{"timestamp": row * gap, "input_length": length, "output_length": 5} for row in range(rows)]
    return [row | ({"hash_ids": list(range(-(-length // block)))} if block else {}) for row in made]


@pytest.mark.parametrize(
    ("rows", "unit", "why"),
    [
        (timed(8, 150, 1200, 512), "ms", "a hash id stands for 512 tokens, as in the traces of Mooncake"),
        (timed(8, 2, 100, 16), "s", "a hash id stands for 16 tokens"),
        (timed(8, 0.7), "s", "they have fractions"),
        (timed(8, 3000), "ms", "a mean gap of 3e+03 s between requests would be long"),
        (timed(8, 5), "s", "nothing in the file tells their unit"),
        (timed(1, 5), "s", "nothing in the file tells their unit"),
    ],
)
def test_the_numbers_tell_the_unit_and_how_is_said(
    rows: list[dict[str, Any]], unit: str, why: str, tmp_path: Path
) -> None:
    trace = brought(tmp_path, "mooncake", rows)
    assert f"its times count as {unit}: {why}" in said(trace)
    scale = 1e-3 if unit == "ms" else 1.0
    assert column(trace, "arrival_s") == pytest.approx([row["timestamp"] * scale for row in rows])


def test_a_unit_that_is_given_decides(tmp_path: Path) -> None:
    for form in (None, "mooncake", "timed-trace"):
        trace = brought(tmp_path, "mooncake", form=form, unit="s")
        assert column(trace, "arrival_s")[:2] == [0.0, 150.0]
        assert "its times count" not in said(trace)
    assert column(brought(tmp_path, "mooncake", timed(3, 7), form="mooncake"), "arrival_s") == [0.0, 0.007, 0.014]


def test_hashes_that_no_two_prompts_share_are_no_shared_prefix(tmp_path: Path) -> None:
    rows = [row | {"hash_ids": [10 * place]} for place, row in enumerate(timed(4, 2))]
    assert "shared prefixes" not in said(brought(tmp_path, "mooncake", rows))


def test_blis_counts_from_when_a_request_was_sent(tmp_path: Path) -> None:
    trace = brought(tmp_path, "blis")
    assert column(trace, "arrival_s")[:2] == [0.0, 0.04]
    assert column(trace, "first_token_s")[0] == pytest.approx(0.02999)
    assert ends(trace) == ["length", "stop", "length", "stop", "length", "timeout"]
    assert trace.requests["tier"].tolist()[:3] == ["premium", "batch", "standard"]
    assert trace.requests["tenant"].tolist()[:2] == ["default", "acme"]
    assert trace.requests["prompt_tokens"][0] == 104  # the server's count
    assert "critical as premium" in said(trace)
    rows = files.blis()
    rows[1]["send_time_us"] += 500_000
    rows[1]["first_chunk_time_us"] += 600_000
    rows[1]["last_chunk_time_us"] += 600_000
    assert "held back 1 of 6 requests, at most for 0.5 s (send_time_us)" in said(brought(tmp_path, "blis", rows))


def test_a_prefix_of_blis_is_part_of_the_prompt(tmp_path: Path) -> None:
    rows = [row | {"prefix_group": "g", "prefix_length": 32, "server_input_tokens": 0} for row in files.blis()]
    trace = brought(tmp_path, "blis", rows)
    assert set(trace.requests["prompt_tokens"]) == {132}
    assert trace.requests["prefix_row"].fillna(-1).tolist() == [-1, 0, 0, 0, 0, 0]
    assert trace.requests["prefix_tokens"].fillna(0).tolist() == [0, 32, 32, 32, 32, 32]
    assert trace.header.prefixes is not None
    assert (trace.header.prefixes.block_size, trace.header.prefixes.source) == (1, "generated")


def test_the_header_beside_a_trace_of_blis_tells_the_engine(tmp_path: Path) -> None:
    header = "trace_version: 2\ntime_unit: microseconds\nmode: generated\nserver:\n  type: vllm\n  model: 'llama-8b'\n"
    (tmp_path / "blis.yaml").write_text(header + "  max_num_seqs: 64\n  block_size: 32\n")
    trace = brought(tmp_path, "blis")
    assert (trace.header.model, trace.header.engine.max_num_seqs, trace.header.engine.block_size) == (
        "llama-8b",
        64,
        32,
    )
    assert "max_num_seqs" not in trace.header.engine.assumed
    assert np.isnan(trace.requests["output_tokens"].astype(float)[5])  # planned, and never produced


# -- what every reader must bear


NULLED: dict[str, Callable[[Any], Any]] = {
    "inference_perf": lambda rows: rows[:1] + [row | {"info": None, "error": {"error_type": "x"}} for row in rows[1:2]],
    "aiperf": lambda rows: [*rows[1:3], rows[3] | {"metrics": {}, "error": {"message": "no"}}],
    "bailian": lambda rows: [*rows[:3], rows[3] | {"output_length": None}],
    "burstgpt": lambda rows: [*rows[:3], rows[3] | {"Response tokens": ""}],
    "blis": lambda rows: [*rows[:3], rows[3] | {"output_tokens": "", "status": "error", "finish_reason": ""}],
}


@pytest.mark.parametrize("name", NULLED)
def test_a_row_that_lacks_what_failed_requests_lack_is_a_failure(name: str, tmp_path: Path) -> None:
    trace = brought(tmp_path, name, NULLED[name](EXAMPLES[name].content))
    assert ends(trace).count("error") == 1
    assert len(trace.finished) >= 1


@pytest.mark.parametrize("name", ["aiperf", "bailian", "mooncake", "burstgpt", "blis", "inference_perf"])
def test_numbers_may_be_texts(name: str, tmp_path: Path) -> None:
    def texted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: texted(one) for key, one in value.items()}
        if isinstance(value, list):
            return [texted(one) for one in value]
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    content = EXAMPLES[name].content
    if name == "aiperf":  # the flag and the value without a number stay what they are
        content = content[:6]
    choices = {"unit": "ms"} if name == "mooncake" else {}
    plain, written = (brought(tmp_path, name, one, **choices) for one in (content, texted(content)))
    for each in ("arrival_s", "finish_s"):
        np.testing.assert_allclose(plain.requests[each].astype(float), written.requests[each].astype(float))
    assert plain.requests["output_tokens"].equals(written.requests["output_tokens"])


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda example: example.name)
@pytest.mark.parametrize("text", ["", "\n", "[]", "{}", "null", "3"])
def test_an_empty_file_is_refused_in_one_line(text: str, example: Example, tmp_path: Path) -> None:
    file = tmp_path / example.name
    file.write_text(text)
    for form in (None, example.form):
        with pytest.raises(InputError) as error:
            import_trace(file, form, **(example.choices if form else {}))
        assert example.name in str(error.value)
        assert "\n" not in str(error.value)
