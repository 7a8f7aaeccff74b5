"""One step-time model, in integers for the engine and in arrays for the fit."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.latency.profile import Profile
from driftsim.latency.steptime import TICKS_PER_SECOND, Batch

SECONDS = st.floats(0.0, 0.01)


@given(
    coefficients=st.tuples(SECONDS, SECONDS, SECONDS, SECONDS, SECONDS),
    hidden=st.sampled_from([0, 1, 64, 300]),
    graphs=st.sampled_from([(), (1, 2, 4, 8, 16)]),
    batch=st.tuples(st.integers(0, 512), st.integers(0, 40), st.integers(0, 9000), st.floats(0, 1e5)),
)
def test_a_step_lasts_as_long_in_arrays_as_in_ticks(
    coefficients: tuple[float, ...], hidden: int, graphs: tuple[int, ...], batch: tuple[int, int, int, float]
) -> None:
    names = ("prefill_token_s", "decode_request_s", "context_token_s", "prefill_attention_s", "prefill_step_s")
    profile = Profile.plain(intercept_s=0.01).changed(
        **dict(zip(names, coefficients, strict=True)), hidden_tokens=hidden, graph_sizes=graphs
    )
    tokens, decodes, context, attention = batch
    attention = attention if tokens else 0.0
    step = Batch(tokens, int(tokens > 0), attention, decodes, context)
    row = pd.DataFrame(
        {
            "prefill_tokens": [tokens],
            "decode_requests": [decodes],
            "context_tokens": [context],
            "prefill_attention": [attention],
        }
    )
    exact = profile.step_time().step(step) / TICKS_PER_SECOND
    assert float(profile.durations(row)[0]) == pytest.approx(exact, rel=1e-6, abs=1e-6)


def test_a_step_that_is_no_graph_takes_as_long_as_its_launch() -> None:
    model = Profile.plain(intercept_s=0.01).changed(launch_s=0.03, graph_tokens=10).step_time()
    prefill, graph, large = Batch(20, 1, 0.0, 0, 0), Batch(4, 1, 0.0, 6, 90), Batch(4, 1, 0.0, 7, 90)
    assert [model.step(one) / TICKS_PER_SECOND for one in (prefill, graph, large)] == [0.03, 0.01, 0.03]
    slow = Profile.plain(intercept_s=0.05).changed(launch_s=0.03, graph_tokens=10).step_time()
    assert slow.step(prefill) == slow.step(graph)  # the GPU is the slower of the two
