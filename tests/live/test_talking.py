"""Real vLLM in a conversation: each turn repeats what was really answered, and the cache finds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftsim.trace import trace as traces
from driftsim.validation.validation import on_measured_steps
from tests.live.test_capture import printed

pytestmark = pytest.mark.live


def test_turns_repeat_answers_and_find_them_in_the_cache(tmp_path: Path) -> None:
    texts = ("Tell me of the river and the mill.", "And of the bridge?", "Go on.")
    lines = [
        {"session": name, "prompt": f"{name}: {text}", "max_tokens": 40, "gap_s": 0.2}
        for text in texts
        for name in ("one", "two", "three")
    ]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(map(json.dumps, lines)))
    options = ("--prefix-caching", "--engine-arg", "block_size=32", "--policy", "stock")
    printed("capture", "--out", tmp_path / "t", "--prompts", prompts, *options)
    trace = traces.read(tmp_path / "t")
    rows = trace.requests
    assert rows["parent"].map(list).tolist() == [[]] * 3 + [[row] for row in range(6)]
    before = rows["prompt_tokens"] + rows["output_tokens"]
    assert (rows["prompt_tokens"][3:].to_numpy() > before[:6].to_numpy()).all()
    assert rows["prefix_row"][3:].tolist() == list(range(6))
    assert (rows["cached_tokens"][3:].to_numpy() > rows["prompt_tokens"][:6].to_numpy() - 32).all()
    gaps = rows["arrival_s"][3:].to_numpy() - rows["finish_s"][:6].to_numpy()
    assert (gaps >= 0.2).all()
    assert on_measured_steps("t", trace).steps_alike == 1.0
