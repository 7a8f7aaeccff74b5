"""Models whose attention looks back a window: which blocks are kept, and which prefixes can be found again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from driftsim.errors import InputError
from driftsim.live.pages import Page
from driftsim.live.told import cache_settings
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.prefixes import ENDLESS
from driftsim.workloads.workload import Workload
from tests.crowds import windowed
from tests.stepwise import StepwiseAsyncEngine, StepwiseEngine
from tests.strategies import engine, profile, workload
from tests.test_oracle import CROWDS, run


def test_a_sliding_window_frees_what_lies_behind_it() -> None:
    """Two requests of 200 tokens, of which the KV of 199 is stored: 13 blocks of 16 each, or 3 for a window of 32."""
    made = workload([0.0, 0.0], [100, 100], prompt_tokens=100)
    used = {}
    for window in (None, 32, 600):
        settings = engine(sliding_window=window, kv_blocks=30, max_num_batched_tokens=32)
        trace = simulate(Scenario(profile=profile(settings)), made, record_steps=True)
        assert trace.requests["output_tokens"].tolist() == [100, 100]
        assert trace.steps is not None
        used[window] = trace.steps["kv_blocks_used"].max(), trace.steps["kv_blocks_used"].iloc[-20:].max()
    assert used[None] == used[600] == (26, 26)
    assert used[32][0] <= 2 * engine(sliding_window=32, max_num_batched_tokens=32).window_blocks() == 10
    assert used[32][1] == 6
    assert "sliding_window" not in simulate(Scenario(profile=profile(engine())), made).header.as_json()


def test_a_prompt_that_its_window_makes_fit_is_served() -> None:
    made = workload([0.0], [20], prompt_tokens=300)
    for window, reason in ((None, "rejected"), (32, "stop")):
        settings = engine(sliding_window=window, kv_blocks=9, max_num_batched_tokens=32)
        assert settings.why_not_started == "" or window is None
        assert simulate(Scenario(profile=profile(settings)), made).requests["finish_reason"][0] == reason


def alike(prompts: list[int], shared: list[int], output: int = 20) -> Workload:
    """Requests a second apart, of which so many tokens are equal to the first one's."""
    made = workload(list(range(len(prompts))), [output] * len(prompts), prompt_tokens=prompts)
    own = [((row, ENDLESS),) for row in range(len(prompts))]
    stretches: Any = [((0, end), *one) if end else one for end, one in zip(shared, own, strict=True)]
    return replace(made, table=made.table.assign(stretches=stretches))


def after(prompts: list[int], shared: list[int], **settings: Any) -> list[int]:
    """How many tokens of their ``prompts`` such requests find, each alone."""
    settings = {"sliding_window": 32, "enable_prefix_caching": True, "kv_blocks": 100} | settings
    scenario = Scenario(profile=profile(engine(max_num_batched_tokens=512, **settings)), refill_lag=False)
    return simulate(scenario, alike(prompts, shared)).requests["cached_tokens"].tolist()


def test_a_prefix_is_found_where_the_blocks_of_a_window_are_there() -> None:
    """A window of 32 tokens looks back 31: two blocks of 16. Of 100 tokens, those from 64 to 96 are kept."""
    prompts = [100, 100, 200, 100, 97, 96]
    shared = [0, 100, 100, 90, 97, 96]
    assert after(prompts, shared) == [0, 96, 96, 0, 96, 0]
    assert after(prompts, shared, prefix_cache_retention_interval=None) == [0, 96, 96, 80, 96, 80]
    assert after(prompts, shared, version="0.28.0") == [0, 96, 96, 80, 96, 80]  # before 0.29 every block was kept


def test_what_is_kept_between_the_ends_of_prompts_is_a_window_at_each_interval() -> None:
    shared = [0, 64, 79, 80, 128]
    assert after([200] * 5, shared, prefix_cache_retention_interval=64) == [0, 64, 64, 64, 128]
    assert after([200] * 5, shared, prefix_cache_retention_interval=16) == [0, 64, 64, 80, 128]
    assert after([200] * 5, shared, prefix_cache_retention_interval=0) == [0] * 5
    with pytest.raises(InputError, match="prefix_cache_retention_interval 24 is no multiple of block_size 16"):
        engine(prefix_cache_retention_interval=24)


def test_at_its_beginning_a_prompt_finds_fewer_blocks_than_a_window() -> None:
    assert after([100, 100, 100], [0, 16, 31], prefix_cache_retention_interval=None) == [0, 16, 16]
    assert after([20, 100], [0, 20]) == [0, 16]


def test_a_window_of_one_token_keeps_nothing_since_0_23() -> None:
    settings = {"sliding_window": 1, "prefix_cache_retention_interval": None}
    assert after([100, 100], [0, 100], **settings) == [0, 0]
    assert after([100, 100], [0, 100], version="0.22.0", **settings) == [0, 96]


def test_found_blocks_behind_the_window_are_not_held() -> None:
    """Of 96 found tokens two blocks are held, and one is taken for the rest of the prompt."""
    settings = engine(enable_prefix_caching=True, sliding_window=32, max_num_batched_tokens=512, kv_blocks=30)
    scenario = Scenario(profile=profile(settings), refill_lag=False)
    trace = simulate(scenario, alike([100, 100], [0, 100], output=1), record_steps=True)
    assert trace.steps is not None
    assert trace.steps["kv_blocks_used"].tolist() == [7, 3]


@pytest.mark.parametrize(
    ("label", "told"),
    [("None", {"prefix_cache_retention_interval": None}), ("64", {"prefix_cache_retention_interval": 64})]
    + [(odd, {}) for odd in ("24", "-16", "1e3", "", "9" * 400)],
)
def test_a_server_tells_which_blocks_it_keeps(label: str, told: dict[str, Any]) -> None:
    page = (
        f'vllm:cache_config_info{{block_size="16",prefix_cache_retention_interval="{label}",sliding_window="32"}} 1.0'
    )
    assert cache_settings(Page(200, page)) == {"block_size": 16, "sliding_window": 32} | told


# By seed: a block is freed after those that were taken before its turn (263), and from 0.23 on to the front (198);
# some of what the window asks for is found (371).
@pytest.mark.parametrize("first", range(0, CROWDS, CROWDS // 4))
def test_the_engine_equals_the_engine_that_steps(first: int) -> None:
    found = 0
    for seed in (198, 263, 371, *range(first, first + CROWDS // 4)):
        scenario, made = windowed(seed)
        settings = scenario.profile.engine
        oracle = StepwiseAsyncEngine if settings.async_scheduling else StepwiseEngine
        slow, fast = (run(scenario, made, kind, True) for kind in (oracle, None))
        pd.testing.assert_frame_equal(fast.requests, slow.requests, check_exact=True, obj=f"crowd {seed}")
        assert fast.steps is not None
        assert slow.steps is not None
        pd.testing.assert_frame_equal(fast.steps, slow.steps, check_exact=True, obj=f"steps of crowd {seed}")
        found += int(slow.requests["cached_tokens"].sum()) if "cached_tokens" in slow.requests else 0
    assert found > CROWDS
