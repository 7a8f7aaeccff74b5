"""Single rules of the noise that a fit leaves and of what a step takes by a profile, known by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.calibration.coefficients import joint_uncertainty
from driftsim.calibration.least_squares import Rows, Solution, solve
from driftsim.calibration.noise_fit import FEWEST, _noise_at, _one_part, fit_noise
from driftsim.calibration.residuals import Residuals, noise_covariance
from driftsim.errors import InputError
from driftsim.latency import roofline
from driftsim.latency.noise import Noise, NoisyStepTime
from driftsim.latency.profile import LONGEST_STEP_S, Fit, Profile
from driftsim.latency.roofline import Assumptions, Gpu, Shape, derive, shape_of
from driftsim.latency.service import service_of
from driftsim.latency.steptime import Batch, LinearStepTime, tied_tokens
from driftsim.latency.uncertainty import Uncertainty
from driftsim.testing import engine, profile


def alike(durations: np.ndarray, blocks: int = 10) -> Rows:
    """Steps of nothing but an intercept."""
    count = len(durations)
    block = np.arange(count) * blocks // count
    return Rows(np.ones((count, 1)), durations, block, np.ones(count), block)


def left_of(logs: np.ndarray, *lengths: int) -> Residuals:
    return Residuals(logs, np.ones((len(logs), 1)), np.ones(len(logs)), lengths)


@pytest.mark.parametrize(("spread", "lasting"), [(0.2, 1), (1e-6, 10)])
def test_of_what_blocks_and_noise_say_of_a_coefficient_the_less_sure_stands(spread: float, lasting: int) -> None:
    durations = np.repeat(np.tile([0.99, 1.01], 5), 10)  # the blocks differ, by a mean error of 0.01 / 3
    rows = alike(durations)
    solution = solve(rows)
    left = Residuals.of(rows, solution, [100])
    found = joint_uncertainty(["intercept_s"], rows, solution, left, Noise(spread=spread))
    assert found.covariance[0][0] ** 0.5 == pytest.approx(0.02 if lasting == 1 else 0.01 / 3, rel=0.01)
    assert found.gram[0][0] == pytest.approx(1.0, rel=0.01)  # a mean over the rows
    assert found.freedom == 9


def test_a_mean_is_as_unsure_as_its_noise_says() -> None:
    noise = Noise(spread=0.2, autocorrelation=0.5, slow_spread=0.1, slow_autocorrelation=0.9)
    one, two = left_of(np.zeros(8), 8), left_of(np.zeros(16), 8, 8)
    within = float(noise.variance_of_mean(8))
    assert noise_covariance(one, noise)[0, 0] == pytest.approx(within)
    assert noise_covariance(two, noise)[0, 0] == pytest.approx(within / 2)
    assert noise_covariance(two, noise.changed(run_spread=0.3))[0, 0] == pytest.approx((within + 0.3**2) / 2)


def test_a_step_that_weighs_half_moves_a_coefficient_by_a_quarter() -> None:
    rows = alike(np.ones(2), 2)
    left = Residuals.of(rows, Solution(np.ones(1), np.ones(2), np.array([1.0, 0.5])), [2])
    assert left.gain == pytest.approx(np.array([[0.8, 0.2]]))


def test_the_noise_of_steps_is_around_the_speed_of_their_run() -> None:
    pattern = 0.1 * np.tile([1.0, 1.0, -1.0, -1.0], 25)
    found = _one_part(left_of(np.concatenate([pattern + 0.3, pattern - 0.3]), 100, 100))
    assert (found.spread, found.autocorrelation) == pytest.approx((0.1, 1 / 99))
    assert found.run_spread == pytest.approx(0.3 * 2**0.5, rel=0.01)


def test_the_longest_run_tells_of_slow_noise() -> None:
    random = np.random.default_rng(1)
    for lengths, told in (((FEWEST, 30), 0), ((FEWEST - 1, 30), 1)):
        warnings: list[str] = []
        fit_noise(left_of(random.normal(0, 0.1, sum(lengths)), *lengths), warnings)
        assert len(warnings) == told


def test_the_part_that_lasts_longer_is_the_slow_one() -> None:
    short, long = (np.log(0.2), np.log(2.0)), (np.log(0.1), np.log(100.0))
    for parts in ((short, long), (long, short)):
        found = _noise_at(np.concatenate(parts))
        assert (found.spread, found.slow_spread) == pytest.approx((0.2, 0.1))
        assert found.slow_autocorrelation == pytest.approx(np.exp(-1 / 100))


def test_a_slow_disturbance_goes_on_when_more_factors_are_drawn() -> None:
    lasting = Noise(slow_spread=0.5, slow_autocorrelation=0.999999)
    model = NoisyStepTime(Profile.plain(0.01).step_time(), lasting, np.random.default_rng(3))
    first = model.step(Batch(decode_requests=1))
    assert abs(first / 1e10 - 1) > 0.05
    model.taken(8190)
    before, after = (model.step(Batch(decode_requests=1)) for _ in range(2))
    assert after / before == pytest.approx(1, abs=0.01)  # the 8,193rd is of the second draw


def test_a_launch_is_disturbed_as_its_step_is() -> None:
    model = Profile.plain(0.01).changed(launch_s=0.03).step_time()
    noisy = NoisyStepTime(model, Noise(spread=0.5), np.random.default_rng(3))
    computing, launch = noisy.parts(Batch(prefill_tokens=9))
    assert abs(computing / 1e10 - 1) > 0.05
    assert launch / computing == pytest.approx(3)


def test_a_drawn_coefficient_is_no_longer_than_a_profile_may_have() -> None:
    sure = Uncertainty(terms=("intercept_s",), covariance=((1e8,),), gram=((1.0,),), freedom=9)
    fit = Fit(rows=9, mean_absolute_percentage_error=0.0, r_squared=1.0, bias=0.0, uncertainty=sure)
    drawn = [Profile.plain(9e3).changed(fit=fit).drawn(np.random.default_rng(seed)).intercept_s for seed in range(9)]
    assert max(drawn) == LONGEST_STEP_S


def test_a_launch_is_in_the_digest_and_a_graph_without_one_is_not() -> None:
    plain = Profile.plain(0.01)
    assert plain.changed(graph_tokens=8).digest == plain.digest
    launched = [plain.changed(launch_s=0.02, graph_tokens=tokens).digest for tokens in (8, 9)]
    assert len({plain.digest, plain.changed(launch_s=0.03, graph_tokens=8).digest, *launched}) == 4


def test_an_interval_may_be_one_number_and_graph_sizes_rise() -> None:
    plain = Profile.plain(0.01)
    assert plain.changed(intervals={"intercept_s": (0.01, 0.01)}).intervals["intercept_s"] == (0.01, 0.01)
    for sizes in ((1, 2, 2), (2, 1), (0, 1)):
        with pytest.raises(InputError, match="graph_sizes must rise from 1 or more"):
            plain.changed(graph_sizes=sizes)


def test_a_profile_that_was_not_fitted_shows_the_coefficients_that_it_has() -> None:
    found = Profile.plain(0.01, context_token_s=1e-7).frame()
    assert found["coefficient"].tolist() == ["intercept_s", "context_token_s"]
    assert found[["low_s", "high_s"]].isna().all(axis=None)


def test_launches_take_no_time_beside_what_the_gpu_computes_meanwhile() -> None:
    model = Profile.plain(0.01, prefill_token_s=0.001).changed(launch_s=0.03, graph_tokens=10)
    steps = pd.DataFrame({"prefill_tokens": [10, 11, 40, 0], "decode_requests": [0, 0, 0, 99]})
    steps = steps.assign(context_tokens=0, prefill_attention=0.0)
    assert model.durations(steps) == pytest.approx([0.02, 0.03, 0.05, 0.01])


def test_a_step_without_decodes_is_not_padded_and_no_time_is_below_nothing() -> None:
    model = LinearStepTime(100, 7, 5, 1, graph_sizes=(1, 2, 4))
    assert [model.step(Batch(3, 1, decode_requests=size)) for size in (0, 1, 3)] == [121, 126, 141]
    for name in ("launch", "graph_tokens", "prefill_step"):
        below: Any = {name: -1}
        with pytest.raises(InputError, match="nothing negative"):
            replace(model, **below)


def test_no_tokens_are_hidden_where_tokens_cost_nothing() -> None:
    assert [tied_tokens(*pair) for pair in ((0.012, 4e-5), (0.0, 4e-5), (0.012, 0.0))] == [300, 1, 0]


# -- a roofline by hand
SMALL = Shape("small", layers=2, hidden=8, intermediate=16, heads=4, kv_heads=2, head=2, vocabulary=100, tied=False,
              positions=64)  # fmt: skip
LAYERS, OUTPUT = 2 * (8 * 2 * (2 * 4 + 2 * 2) + 3 * 8 * 16), 8 * 100  # weights
ROOM = 2**20  # bytes beside what vLLM sets aside


def derived(shape: Shape, monkeypatch: pytest.MonkeyPatch, fp8: float | None = 20.0, **assumed: Any) -> Profile:
    """``shape`` on a GPU of 100 GB/s and 10 TFLOP/s in 16 bits that reaches both."""
    gpu = Gpu(bandwidth=100, fp16=10, fp8=fp8, memory=1024 + 1, batched_tokens=2048, source="NVIDIA")
    monkeypatch.setattr(roofline, "gpus", lambda: {"G": gpu})
    ideal = {"bandwidth_efficiency": 1, "compute_efficiency": 1, "step_overhead_s": 0, "memory_fraction": 1}
    return derive("G", shape, Assumptions.of(ideal | assumed))


@pytest.mark.parametrize(
    ("tied", "dtype", "stored"),
    [
        (False, "bf16", 2 * LAYERS + 2 * 2 * OUTPUT),
        (True, "bf16", 2 * LAYERS + 2 * OUTPUT),
        (False, "fp8", LAYERS + 2 * 2 * OUTPUT),  # embeddings stay in 16 bits
    ],
)
def test_the_cache_gets_what_weights_and_activations_leave(
    tied: bool, dtype: str, stored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = derived(replace(SMALL, tied=tied), monkeypatch, dtype=dtype)
    assert made.engine.kv_blocks == (ROOM - stored) // (16 * 2 * 2 * 2 * 2 * 2)
    assert made.intercept_s == pytest.approx(((1 if dtype == "fp8" else 2) * LAYERS + 2 * OUTPUT) / 100e9)


@pytest.mark.parametrize(("dtype", "fp8", "speed"), [("bf16", 20.0, 10e12), ("fp8", 20.0, 20e12), ("fp8", None, 10e12)])
def test_weights_are_multiplied_in_their_type_and_attention_in_16_bits(
    dtype: str, fp8: float | None, speed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = derived(SMALL, monkeypatch, fp8, dtype=dtype)
    assert made.prefill_token_s == pytest.approx(2 * LAYERS / speed)
    assert made.prefill_attention_s == pytest.approx(4 * 2 * 4 * 2 / 10e12)


def test_a_step_has_room_for_a_token_of_every_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    assert derived(SMALL, monkeypatch).engine.max_num_batched_tokens == 2048
    assert derived(SMALL, monkeypatch, max_num_seqs=4096).engine.max_num_batched_tokens == 4096


def test_a_head_may_be_wider_than_its_part_of_the_model(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 4}
    config["vocab_size"] = 9
    for more, head in (({}, 2), ({"head_dim": 16}, 16)):
        (tmp_path / "config.json").write_text(json.dumps(config | more))
        assert shape_of(str(tmp_path / "config.json")).head == head


# -- what a request takes
def a_job(prompt: int, output: float, stretches: tuple[tuple[int, int], ...] = ()) -> Any:
    return SimpleNamespace(request=SimpleNamespace(prompt_tokens=prompt, stretches=stretches), estimate=output)


def test_an_engine_that_schedules_ahead_hides_its_gaps() -> None:
    for ahead, step in ((False, 0.015), (True, 0.010)):
        made = profile(engine(max_num_seqs=1, async_scheduling=ahead), gap_s=0.005)
        assert service_of(made)(a_job(8, 20)) == pytest.approx(20 * step)


def test_an_answer_has_a_token_at_least() -> None:
    service = service_of(profile(engine(max_num_seqs=1)))
    assert service(a_job(8, 0.2)) == service(a_job(8, 20), 0.3) == service(a_job(8, 1))


def test_the_last_token_of_a_prompt_is_computed_and_attends_to_what_was_cached() -> None:
    settings = engine(max_num_seqs=1, enable_prefix_caching=True, block_size=16, max_num_batched_tokens=200)
    service = service_of(profile(settings, prefill_token_s=1.0))
    assert service(a_job(64, 1, ((0, 64), (1, 64)))) == pytest.approx(16.01)
    attention = service_of(profile(settings, prefill_attention_s=1.0))
    assert attention(a_job(100, 1, ((0, 50), (1, 100)))) == pytest.approx(sum(range(49, 101)) + 0.01)
