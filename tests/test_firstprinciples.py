"""Profiles from a datasheet: counted by hand, ordered as the hardware is, judged on real runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from driftsim.latency.profile import load_profile
from driftsim.latency.roofline import BANDWIDTH_EFFICIENCY, COMPUTE_EFFICIENCY, Assumptions, derive, gpus, shape_of
from driftsim.latency.steptime import Batch
from experiments import first_principles
from tests.commands import driftsim

QWEN = {
    "model_type": "qwen2", "num_hidden_layers": 28, "hidden_size": 3584, "intermediate_size": 18944,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
    "max_position_embeddings": 32768,
}  # fmt: skip
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN))
    return file


def test_weights_and_cache_are_counted_as_the_model_card_counts_them(config: Path) -> None:
    shape = shape_of(str(config))
    assert shape.stored_weights == pytest.approx(7.61e9, rel=0.005)  # Qwen2.5-7B: 7.61 B parameters, 6.53 B without
    assert shape.layer_weights == pytest.approx(6.53e9, rel=0.005)
    assert shape.kv_bytes == 2 * 28 * 4 * 128 * 2


def test_a_step_is_bound_by_memory_until_the_roofline_bends(config: Path) -> None:
    made = derive("L4", shape_of(str(config)), Assumptions(bandwidth_efficiency=1, compute_efficiency=1))
    step = made.step_time().step
    weights = (shape_of(str(config)).layer_weights + shape_of(str(config)).output_weights) * 2 / 300e9
    assert step(Batch(decode_requests=1)) / 1e12 == pytest.approx(weights + 1e-3, rel=1e-6)
    bend = made.hidden_tokens
    assert step(Batch(prefill_tokens=bend)) == step(Batch(prefill_tokens=1))
    assert step(Batch(prefill_tokens=bend + 1000)) > step(Batch(prefill_tokens=bend))
    assert step(Batch(decode_requests=bend + 10)) > step(Batch(decode_requests=bend))
    both = step(Batch(prefill_tokens=bend, decode_requests=10))
    assert both == step(Batch(prefill_tokens=bend + 10))  # ten more tokens, whoever they belong to


def test_faster_hardware_is_faster_and_every_figure_has_a_source(config: Path) -> None:
    shape = shape_of(str(config))
    made = {name: derive(name, shape, Assumptions()) for name in gpus() if name != "T4"}
    assert made["H200"].intercept_s < made["H100"].intercept_s < made["L40S"].intercept_s < made["L4"].intercept_s
    assert made["H200"].engine.kv_blocks > made["H100"].engine.kv_blocks > made["L4"].engine.kv_blocks
    assert set(gpus()) == {"T4", "L4", "A10G", "L40S", "A100", "H100", "H200", "RTX 4090"}
    assert all("NVIDIA" in gpu.source for gpu in gpus().values())


def test_the_command_writes_a_profile_that_says_it_is_derived(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.json"
    run = driftsim("profile", "--gpu", "L4", "--model", config, "--dtype", "fp8", "--out", out)
    assert run.returncode == 0, run.stderr
    assert "derived, not measured" in run.stdout
    made = load_profile(out)
    assert made.derived["dtype"] == "fp8"
    assert any("not measured" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ("--gpu", "L5"), "unknown GPU 'L5'; choose one of T4, L4"),
        ({}, ("--gpu", "T4"), "leaves a T4 no room for a KV cache; try --dtype fp8"),
        ({"num_local_experts": 8}, ("--gpu", "L4"), "is a mixture of experts"),
        ({"hidden_size": None}, ("--gpu", "L4"), "has no 'hidden_size'"),
        ({"num_attention_heads": 0}, ("--gpu", "L4"), "num_attention_heads is 0, not a whole number from 1 to 1e+09"),
        ({"num_hidden_layers": 10**400}, ("--gpu", "L4"), "not a whole number from 1 to 1e+09"),
        ({"head_dim": "x"}, ("--gpu", "L4"), "head_dim is 'x', not a whole number from 1 to 1e+09"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_2(
    tmp_path: Path, changes: dict[str, object], arguments: tuple[str, ...], message: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN | changes))
    run = driftsim("profile", "--model", file, "--out", tmp_path / "p.json", *arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "p.json").exists()


def test_a_file_that_is_no_configuration_is_said(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("[1]")
    run = driftsim("profile", "--gpu", "L4", "--model", tmp_path / "c.json", "--out", tmp_path / "p.json")
    assert run.returncode == 2
    assert "is no configuration of a model" in run.stderr


def test_a_model_that_is_not_here_is_said(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    run = driftsim(
        "profile", "--gpu", "L4", "--model", "nobody/nothing", "--out", tmp_path / "p.json", HF_HUB_OFFLINE="1"
    )
    assert run.returncode == 2
    assert "nobody/nothing: no configuration of a model there or in the local cache" in run.stderr


def test_the_default_efficiencies_are_the_fitted_ones() -> None:
    stored = json.loads(first_principles.STORED.read_text())
    assert pytest.approx(stored["bandwidth_efficiency"], abs=0.005) == BANDWIDTH_EFFICIENCY
    assert pytest.approx(stored["compute_efficiency"], abs=0.005) == COMPUTE_EFFICIENCY


@pytest.mark.skipif(not DATA.is_dir(), reason="the measured medians are not at hand")
def test_the_stored_predictions_are_what_the_experiment_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "DRIFTSIM_DATA", str(DATA))
    file = first_principles.data()
    assert file is not None
    stored = json.loads(first_principles.STORED.read_text())
    now = first_principles.rows(json.loads(file.read_text()))
    assert [row["error"] for row in now["rows"]] == pytest.approx([row["error"] for row in stored["rows"]], abs=1e-6)
