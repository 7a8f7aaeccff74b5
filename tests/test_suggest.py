"""A mapping that is suggested for an unknown table loads, gives its reasons, and imports the table if it is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftsim.errors import InputError
from driftsim.formats.imports import import_trace, recognised
from driftsim.formats.mapping import load_mapping
from driftsim.formats.suggest import suggestion
from tests.commands import driftsim
from tests.format_files import EXAMPLES, column

SUGGESTED = {
    "short.csv": "sent_ms,input_toks,output_toks,ttft_ms,latency_ms,customer,priority,status\n"
    "0,120,80,45,980,acme,high,ok\n40,300,20,110,420,acme,low,ok\n90,60,150,60,1900,b,normal,failed\n",
    "nested.jsonl": "".join(
        json.dumps({
            "created_at": 1.7e12 + row * 500, "usage": {"prompt_tokens": 20, "completion_tokens": 50}, "user": "u1",
            "timing": {"first_token": 1.7e12 + row * 500 + 45, "end_time": 1.7e12 + row * 500 + 980},
            "model": "llama", "stop_reason": "eos",
        }) + "\n" for row in range(5)
    ),
    "inside.json": json.dumps({"meta": 1, "data": {"runs": [
        {"start": 10 + row, "isl": 10, "osl": 20, "first_token_latency": 0.045, "duration": 0.98}
        for row in range(4)]}}),
    "dated.csv": "start_time,prompt_tokens,completion_tokens,ttft(s),e2e_latency\n"
    "2026-01-01T00:00:00Z,5,40,0.045,980\n2026-01-01T00:00:02Z,6,41,0.045,980\n",
    "bare.csv": "t,in,out,first_token_time,end_ts\n1000,7,50,1045,1980\n3000,8,50,3045,3980\n5000,8,50,5045,5980\n",
}  # fmt: skip


@pytest.mark.parametrize("name", SUGGESTED)
def test_a_suggested_mapping_imports_the_file_it_was_made_for(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(SUGGESTED[name])
    mapping = tmp_path / "m.toml"
    assert driftsim("import", tmp_path / name, "--suggest", "--out", mapping).returncode == 0
    assert driftsim("import", tmp_path / name, "--suggest").stdout == mapping.read_text()
    trace = import_trace(tmp_path / name, mapping=mapping)
    assert column(trace, "first_token_s")[0] == pytest.approx(0.045)
    assert column(trace, "finish_s")[0] == pytest.approx(0.98)
    assert trace.requests["arrival_s"].iloc[-1] < 10  # in the right unit


def test_every_guess_has_its_reason_and_gaps_are_shown(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text(SUGGESTED["short.csv"].replace("failed", "strange"))
    text = suggestion(tmp_path / "short.csv")
    assert 'arrival_s = "sent_ms"  # by its name; its name says ms' in text
    assert '"high" = "premium"' in text
    assert '# "strange" = "stop"' in text
    assert '# model = "..."' in text
    guesses = text.split("[columns]")[1].split("[units]")[0].strip().splitlines()
    assert all("  # " in line for line in guesses if "=" in line)


def test_what_was_not_guessed_stands_as_a_comment_that_loads(tmp_path: Path) -> None:
    (tmp_path / "no.csv").write_text("prompt_tokens,latency_ms\n3,40\n")
    text = suggestion(tmp_path / "no.csv")
    assert "# output_tokens" in text
    assert "# arrival_s" in text
    assert '# finish_s = "latency_ms"' in text  # without an arrival, no duration can be read
    (tmp_path / "m.toml").write_text(text)
    assert load_mapping(tmp_path / "m.toml").columns == {"prompt_tokens": "prompt_tokens"}


def test_a_name_that_its_values_belie_is_no_guess(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("prompt_tokens,input,output,time\nwhat is it,5,7,1\nwho are you,6,7,2\n")
    assert 'prompt_tokens = "input"' in suggestion(tmp_path / "texts.csv")


def test_a_known_format_needs_no_mapping(tmp_path: Path) -> None:
    known = 0
    for number, (name, example) in enumerate(EXAMPLES.items()):
        (folder := tmp_path / str(number)).mkdir()
        file = example.write(folder)
        try:
            form = recognised(file)
        except InputError:  # told with --form alone
            continue
        known += 1
        said = f"looks like the format {form}, which needs no mapping: driftsim import {file.name} --out FOLDER"
        run = driftsim("import", file, "--suggest")
        assert said in run.stdout + run.stderr, name
        assert run.returncode == (0 if run.stdout else 2)
    assert known >= 10


def test_suggest_refuses_what_would_do_nothing(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text(SUGGESTED["short.csv"])
    for options in (("--rate", 3), ("--strict",)):
        run = driftsim("import", tmp_path / "short.csv", "--suggest", *options)
        assert (run.returncode, run.stdout) == (2, "")
        assert f"drop {options[0]}" in run.stderr
    (tmp_path / "empty.csv").write_text("x1,y2\n1,2\n")
    assert "nothing in it looks like a request" in driftsim("import", tmp_path / "empty.csv", "--suggest").stderr


def test_sessions_and_cached_tokens_are_guessed_by_name(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text("".join(
        json.dumps({"start": 10 + row, "conversation_id": f"c{row % 2}", "usage": {
            "prompt_tokens": 40, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 16 * (row > 1)}}})
        + "\n" for row in range(4)
    ))  # fmt: skip
    (tmp_path / "m.toml").write_text(suggestion(file))
    trace = import_trace(file, mapping=tmp_path / "m.toml")
    assert column(trace, "cached_tokens") == [0, 0, 16, 16]
    assert [list(one) for one in trace.requests["parent"]] == [[], [], [0], [1]]
