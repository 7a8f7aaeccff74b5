"""A trace goes out in other tools' formats and comes in again; what a format cannot hold is said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import driftsim as ds
from driftsim.errors import InputError
from driftsim.formats.exports import EXPORTS, check_export, export_trace
from driftsim.formats.hashing import hash_ids
from driftsim.formats.imports import import_trace
from driftsim.trace.trace import Trace
from tests import format_files as files
from tests.commands import driftsim
from tests.format_files import EXAMPLES, brought, column, said
from tests.strategies import engine, profile, workload
from tests.test_relations import Chat, Chats, bailian, imported, shared_by


def run_of(rows: int = 30) -> Trace:
    made = workload([0.1234567 * row for row in range(rows)], [5 + row % 7 for row in range(rows)])
    return ds.simulate(made, profile=profile(engine(max_num_seqs=4)))


@pytest.mark.parametrize(("form", "step_s"), [("timed-trace", 1e-6), ("mooncake", 1e-3), ("blis", 1e-6)])
def test_what_goes_out_comes_in_again(form: str, step_s: float, tmp_path: Path) -> None:
    trace = run_of()
    file = tmp_path / f"out{EXPORTS[form].suffix}"
    export_trace(trace, form, file)
    back = import_trace(file)
    original = trace.requests.sort_values("arrival_s", kind="stable").reset_index(drop=True)
    shift = original["arrival_s"][0]
    np.testing.assert_allclose(back.requests["arrival_s"], original["arrival_s"] - shift, atol=1.01 * step_s)
    for name in ("prompt_tokens", "output_tokens"):
        assert back.requests[name].tolist() == original[name].tolist()
    assert "shared prefixes" not in said(back)
    if form == "blis":
        for name in ("tenant", "tier", "finish_reason"):
            assert back.requests[name].tolist() == original[name].tolist()
        for name in ("first_token_s", "finish_s"):
            np.testing.assert_allclose(back.requests[name], original[name] - shift, atol=1e-5)


def prefixes_of(trace: Trace) -> tuple[list[int], list[int]]:
    rows = trace.requests
    return rows["prefix_row"].fillna(-1).tolist(), rows["prefix_tokens"].fillna(0).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_shared_beginnings_and_sessions_survive_the_round(seed: int, tmp_path: Path) -> None:
    chats = Chats(seed, 16)
    trace = imported(tmp_path, bailian(chats, chats.made(50)))
    export_trace(trace, "bailian", tmp_path / "b.jsonl")
    again = import_trace(tmp_path / "b.jsonl")
    assert prefixes_of(again) == prefixes_of(trace)
    for name in ("parent", "gap_s"):
        assert again.requests[name].map(str).tolist() == trace.requests[name].map(str).tolist()
    export_trace(again, "bailian", tmp_path / "c.jsonl")
    assert (tmp_path / "c.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()


def wide(made: list[Chat], chats: Chats) -> list[dict[str, Any]]:
    """Chats of long prompts, as Bailian's traces tell them: a hash is of 16 tokens."""
    fine = Chats(0, 16)
    return [row | {"hash_ids": fine.ids(chat.prompt)} for row, chat in zip(bailian(chats, made), made, strict=True)]


@pytest.mark.parametrize(("form", "block"), [("timed-trace", 16), ("mooncake", 512)])
def test_prompts_share_as_many_full_blocks_after_the_round(form: str, block: int, tmp_path: Path) -> None:
    chats = Chats(4, 400)
    trace = imported(tmp_path, wide(chats.made(25), chats))
    lost = export_trace(trace, form, tmp_path / "o.jsonl")
    assert any("no place for" in one and "session" in one for one in lost)
    again = import_trace(tmp_path / "o.jsonl", form)
    prompts = trace.requests["prompt_tokens"].tolist()
    before, after = shared_by(trace), shared_by(again)
    for (earlier, later), tokens in before.items():
        most = min(prompts[earlier], prompts[later])
        assert min(after[earlier, later], most // block * block) == min(tokens, most) // block * block


def test_a_last_part_of_a_block_is_equal_to_one_of_its_length_alone() -> None:
    whose = [((0, 99),), ((0, 36), (1, 99)), ((0, 40), (2, 99))]
    assert hash_ids(whose, [40, 36, 40], 16) == [[0, 1, 2], [0, 1, 3], [0, 1, 2]]


def test_an_export_that_shares_blocks_is_known_for_ours(tmp_path: Path) -> None:
    chats = Chats(0, 16)
    trace = imported(tmp_path, bailian(chats, chats.made(20)))
    for _ in range(2):
        check_export(tmp_path / "o.jsonl", "mooncake")
        export_trace(trace, "mooncake", tmp_path / "o.jsonl")
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    assert ["written_by" in json.loads(line) for line in lines] == [True] + [False] * 19
    (tmp_path / "o.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(InputError, match="is no export of driftsim"):
        check_export(tmp_path / "o.jsonl", "mooncake")


@pytest.mark.parametrize("name", ["blis", "mooncake"])
def test_a_file_of_another_tool_survives_the_round(name: str, tmp_path: Path) -> None:
    trace = brought(tmp_path, name)
    form = EXAMPLES[name].form
    file = tmp_path / f"again{EXPORTS[form].suffix}"
    export_trace(trace, form, file)
    again = import_trace(file)
    known = trace.requests["output_tokens"] >= 1
    assert column(again, "arrival_s") == pytest.approx(
        [one for one, keep in zip(column(trace, "arrival_s"), known, strict=True) if keep]
    )
    assert again.requests["prompt_tokens"].tolist() == trace.requests["prompt_tokens"][known].tolist()


def test_a_prompt_that_vllm_builds_is_as_long_as_it_was(tmp_path: Path) -> None:
    """vLLM makes a prompt from its hashes alone: too few of them, and it is cut (TimedTrace._expand_prompt)."""
    for form, block in (("timed-trace", 16), ("mooncake", 512)):
        export_trace(run_of(), form, tmp_path / "t.jsonl")
        lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
        assert all(len(line["hash_ids"]) == math.ceil(line["input_length"] / block) for line in lines)
        ids = [one for line in lines for one in line["hash_ids"]]
        assert len(set(ids)) == len(ids)


def test_the_header_of_a_trace_for_blis_has_the_keys_that_it_knows(tmp_path: Path) -> None:
    export_trace(run_of(), "blis", tmp_path / "t.csv")
    lines = (tmp_path / "t.yaml").read_text().splitlines()
    keys = [line.split(":")[0].strip() for line in lines if not line.startswith("#")]
    known = {"trace_version", "time_unit", "created_at", "mode", "warm_up_requests", "server", "type", "model",
             "max_num_seqs", "block_size", "max_model_len"}  # fmt: skip
    assert {*keys} <= known
    assert {"trace_version", "time_unit", "mode", "server"} <= {*keys}


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    trace = brought(tmp_path, "guidellm").write(tmp_path / "t")
    run = driftsim("export", trace, "timed-trace", "--out", tmp_path / "out.jsonl")
    assert run.returncode == 0
    assert "1 of 8 requests have no output and were left out" in run.stderr
    assert "1 requests did not finish" in run.stderr
    assert "no place for max_tokens, first_token_s, finish_s" in run.stderr
    assert "written as they were recorded, not as closed" in run.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("form", "name", "message"),
    [
        ("xml", "o.xml", "unknown format 'xml'; choose one of timed-trace, mooncake, bailian, blis"),
        ("blis", "o.jsonl", "blis is written as .csv; name it o.csv"),
        ("mooncake", "o", "mooncake is written as .jsonl; name it o.jsonl"),
    ],
)
def test_an_export_that_nobody_could_read_is_refused(form: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_trace(run_of(3), form, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(OSError, match=r"t\.csv"):
        export_trace(run_of(3), "blis", tmp_path / "t.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]  # no header alone
    assert driftsim("export", tmp_path / "nowhere", "blis", "--out", tmp_path / "x.csv").returncode == 2


def test_a_trace_without_an_output_cannot_go_out(tmp_path: Path) -> None:
    rows = [row | {"Response tokens": 0} for row in files.burstgpt()]
    with pytest.raises(InputError, match="no request with an output to write"):
        export_trace(brought(tmp_path, "burstgpt", rows), "mooncake", tmp_path / "o.jsonl")
