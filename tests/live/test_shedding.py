"""The limits of the queue: who is turned away is decided as vLLM's own ``AsyncLLM`` does on the same requests."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.live.deciding import Case, ours
from tests.live.serving import Served
from tests.live.test_conformance import FIRST, WORKLOADS, case, choices_case, sharing_case

pytestmark = pytest.mark.live


def limited(made: Case, seed: int) -> Case:
    """The same requests at a server that turns some of them away."""
    dice = random.Random(f"limits {seed}")
    most, tokens = dice.choice([None, 1, 4, 12, 30]), dice.choice([None, 50, 300, 1000, 3000])
    if most is None and tokens is None:
        most = dice.randint(2, 40)
    return Case(made.settings.changed(max_num_queued_reqs=most, max_num_queued_tokens=tokens), made.requests)


@pytest.mark.parametrize("made", [case, sharing_case, choices_case])
def test_who_is_turned_away_is_vllms_choice(made: Callable[[int], Case]) -> None:
    from vllm.v1.engine.async_llm import AsyncLLM

    if not hasattr(AsyncLLM, "check_admission"):
        pytest.skip("this vLLM has no limits of its queue")
    away = kept = 0
    for seed in range(FIRST, FIRST + WORKLOADS // 2):
        one = limited(made(seed), seed)
        engine, theirs = ours(one), Served(one)
        decisions = theirs.run()
        assert engine.rejected == theirs.rejected, f"workload {seed}: {one.settings}"
        assert [(mine.step, mine.tokens) for mine in engine.decisions] == [
            (their.step, their.tokens) for their in decisions
        ]
        away += len(theirs.rejected)
        kept += len(one.requests) - len(theirs.rejected)
    assert min(away, kept) > WORKLOADS
