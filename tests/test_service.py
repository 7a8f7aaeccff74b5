"""The size of a request in seconds: what an engine would take for it."""

from __future__ import annotations

import pytest

from driftsim.latency.service import service_of
from driftsim.request import Job, Request, Tier
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from tests.strategies import engine, profile, workload

COSTS = {
    "prefill_token_s": 1e-3, "decode_request_s": 2e-3, "context_token_s": 1e-5, "prefill_attention_s": 1e-7,
    "prefill_step_s": 1e-3,
}  # fmt: skip


def a_job(prompt: int, estimate: int, stretches: tuple[tuple[int, int], ...] = ()) -> Job:
    request = Request("r", "a", Tier.BATCH, "", 0.0, prompt, None, 512, stretches=stretches)
    return Job(request, "short_qa", estimate, prompt + estimate)


@pytest.mark.parametrize(("prompt", "output"), [(8, 1), (8, 2), (8, 10), (100, 20)])
@pytest.mark.parametrize("launch", [0.0, 0.02, 0.5])
def test_on_one_slot_it_is_the_time_that_the_request_takes_alone(prompt: int, output: int, launch: float) -> None:
    one = profile(engine(max_num_seqs=1), **COSTS, launch_s=launch, graph_tokens=8)
    run = simulate(Scenario(profile=one), workload([0.0], [output], prompt_tokens=prompt)).requests
    assert service_of(one)(a_job(prompt, output)) == pytest.approx(run["finish_s"][0] - run["scheduled_s"][0], 1e-12)


def test_a_full_engine_shares_what_every_step_takes() -> None:
    shared = service_of(profile(engine(max_num_seqs=4)))  # 10 ms a step and nothing else
    assert shared(a_job(8, 20)) == pytest.approx(20 * 0.010 / 4)
    assert shared(a_job(8, 20), 40) == pytest.approx(40 * 0.010 / 4)


def test_tokens_that_an_earlier_request_had_count_as_cached_in_whole_blocks() -> None:
    caching = profile(engine(max_num_seqs=1, enable_prefix_caching=True, block_size=16), prefill_token_s=1.0)
    new, shared = a_job(100, 1), a_job(100, 1, ((0, 50), (1, 100)))
    assert service_of(caching)(new) - service_of(caching)(shared) == pytest.approx(48.0 + 0.01)  # a step less, too
    without = profile(engine(max_num_seqs=1, block_size=16), prefill_token_s=1.0)
    assert service_of(without)(new) == service_of(without)(shared)


def test_an_estimate_in_words_is_turned_into_tokens() -> None:
    one = profile(engine(max_num_seqs=1))
    assert service_of(one, 0.5)(a_job(8, 10)) == service_of(one)(a_job(8, 20))
