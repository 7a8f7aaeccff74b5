"""Crowds: random requests that share much, on random engines that are short of something, by one seed each."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pandas as pd

from driftsim.simulation.scenario import Scenario
from driftsim.trace.prefixes import stretches
from driftsim.workloads.table import in_order
from driftsim.workloads.workload import Workload
from tests.strategies import engine, profile, workload

VERSIONS = ("0.19.0", "0.23.0", "0.27.0", "0.30.0", "0.32.0", "0.33.0")


def check_same(ours: pd.DataFrame, theirs: pd.DataFrame, what: str = "DataFrame") -> None:
    """Fail unless two tables are the same to the last bit, and tell where they differ, for which pandas takes long."""
    if not ours.equals(theirs):
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True, obj=what)


def crowd(seed: int, most: int = 25) -> tuple[Scenario, Workload, list[tuple[int, int]]]:
    """A scenario, its requests, and who is given up when: rows and ticks.

    Half of the requests go on with what another said, also while that one still talks; limits bind, priorities differ,
    and every version has its turn.
    """
    dice = random.Random(seed)
    chunked, slots = dice.random() < 0.6, dice.randint(2, 6)
    settings = engine(
        version=dice.choice(VERSIONS),
        max_num_seqs=slots,
        max_num_batched_tokens=dice.choice([8, 32, 64, 200]) if chunked else 200,
        max_model_len=dice.choice([64, 140]),
        kv_blocks=dice.choice([dice.randint(2, 24), dice.randint(20, 60)]),
        block_size=dice.choice([4, 16]),
        long_prefill_token_threshold=dice.choice([0, 5, 16]) if chunked else 0,
        enable_chunked_prefill=chunked,
        scheduling_policy=dice.choice(["fcfs", "priority"]),
        async_scheduling=dice.random() < 0.5,
        scheduler_reserve_full_isl=dice.random() < 0.7,
        watermark=dice.choice([0.0, 0.0, 0.1]),
        enable_prefix_caching=dice.random() < 0.7,
        long_prefill_token_threshold_adaptive=dice.random() < 0.4,
        max_num_active_seqs=dice.choice([None, None, 2]),
        max_num_scheduled_tokens=dice.choice([None, None, 7]) if chunked else None,
        prefill_schedule_interval=dice.choice([1, 1, 3, 5]),
    )
    steps = profile(
        settings,
        prefill_token_s=dice.choice([0.0, 1e-4]),
        decode_request_s=dice.choice([0.0, 3e-4]),
        context_token_s=dice.choice([0.0, 1e-6]),
        gap_s=dice.choice([0.0, 3e-5]),
    )
    count = dice.randint(2, most)
    outputs, prompts = ([dice.randint(1, top) for _ in range(count)] for top in (40, 90))
    rows, tokens = [-1], [0]
    for row in range(1, count):
        other = dice.choice([-1, row - 1, dice.randrange(row), dice.randrange(row)])
        longest = min(prompts[row] + outputs[row], prompts[other] + outputs[other]) if other >= 0 else 0
        longest = min(longest, prompts[row]) if dice.random() < 0.5 else longest
        rows.append(other)
        tokens.append(dice.choice([dice.randint(0, longest), longest // 4 * 4, longest]))
    made = workload(
        np.cumsum([dice.choice([0.0, 0.0, 0.001, 0.01, 0.013, 0.2]) for _ in range(count)]).tolist(),
        outputs,
        prompt_tokens=prompts,
        max_tokens=[output + dice.choice([0, 0, 7, 20]) for output in outputs],
        tier=[dice.choice(["premium", "standard", "batch"]) for _ in range(count)],
        stretches=stretches(rows, tokens),
    )
    scenario = Scenario(profile=steps, max_in_flight=dice.choice([None, None, 4]), refill_lag=False)
    given_up = [(dice.randrange(count), dice.randrange(6 * 10**11)) for _ in range(dice.choice([0, 0, 3]))]
    return scenario, made, given_up


def stopping(seed: int) -> tuple[Scenario, Workload, list[tuple[int, int]]]:
    """A crowd, most of which stop strings end."""
    scenario, made, given_up = crowd(seed)
    dice = random.Random(f"stopping {seed}")
    stopped = [int(dice.random() < 0.8) for _ in range(len(made))]
    limits = made.table["output_tokens"] + [dice.choice([0, 9, 20]) for _ in range(len(made))]
    return scenario, replace(made, table=in_order(made.table.assign(stop_string=stopped, max_tokens=limits))), given_up


def twins(seed: int) -> tuple[Scenario, Workload]:
    """A scenario and requests that compute equal blocks side by side, chunk by chunk, where anybody may be a victim."""
    dice = random.Random(seed)
    settings = engine(
        version="0.32.0",
        max_num_seqs=dice.randint(3, 6),
        max_num_batched_tokens=200,
        max_model_len=140,
        kv_blocks=dice.randint(6, 16),
        block_size=4,
        long_prefill_token_threshold=dice.choice([2, 3, 5, 7]),
        scheduling_policy="priority",
        async_scheduling=dice.random() < 0.5,
        enable_prefix_caching=True,
        scheduler_reserve_full_isl=dice.random() < 0.5,
    )
    count, base = dice.randint(3, 12), dice.randint(5, 20)
    prompts = [base + dice.choice([0, 0, 0, 1, 3]) for _ in range(count)]
    outputs = [dice.randint(1, 20) for _ in range(count)]
    rows, tokens = [-1], [0]
    for row in range(1, count):
        other = dice.choice([row - 1, 0, dice.randrange(row), -1])
        longest = min(prompts[row] + outputs[row], prompts[other] + outputs[other]) if other >= 0 else 0
        rows.append(other)
        tokens.append(dice.choice([longest, longest, min(longest, base)]) if other >= 0 else 0)
    made = workload(
        np.cumsum([dice.choice([0.0, 0.0, 0.0, 0.01, 0.02]) for _ in range(count)]).tolist(),
        outputs,
        prompt_tokens=prompts,
        max_tokens=[output + dice.choice([0, 0, 7]) for output in outputs],
        tier=[dice.choice(["premium", "standard", "batch"]) for _ in range(count)],
        stretches=stretches(rows, tokens),
    )
    return Scenario(profile=profile(settings), refill_lag=False), made


def windowed(seed: int) -> tuple[Scenario, Workload]:
    """A crowd, or one of twins, that shares prefixes on a model that looks back a window."""
    dice = random.Random(f"windowed {seed}")
    scenario, made = crowd(seed)[:2] if seed % 2 else twins(seed)
    changed = scenario.profile.engine.changed(
        version=dice.choice(VERSIONS),
        enable_prefix_caching=dice.random() < 0.9,
        sliding_window=dice.choice([1, 2, 5, 9, 17, 30, 70, 200]),
        prefix_cache_retention_interval=dice.choice([0, None, None, 16, 32]),
    )
    return replace(scenario, profile=scenario.profile.changed(engine=changed)), made
