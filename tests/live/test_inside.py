"""Conformance of a policy inside: the simulated engine decides as vLLM's own scheduler with the same policy in it.

PLACED_WORKLOADS sets how many random workloads are compared, PLACED_SEED the first.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from typing import Any

import pytest

from tests.live.deciding import Case, Theirs, ours
from tests.live.placing import OWN, POLICIES, RANKED, TheirsInside, TheirsRanked, placed, ranked
from tests.live.test_conformance import case, sharing_case, windowed_case

pytestmark = pytest.mark.live
WORKLOADS = int(os.environ.get("PLACED_WORKLOADS", "100"))
FIRST = int(os.environ.get("PLACED_SEED", "0"))
KINDS = (case, sharing_case, case, windowed_case)


def decided_alike(made: Case, theirs: type[Theirs], counts: Counter[Any]) -> None:
    """Raise unless all decisions on ``made`` are the same; ``counts`` says how much was seen."""
    mine, wanted = ours(made).decisions, theirs(made).run()
    for number, (our, their) in enumerate(itertools.zip_longest(mine, wanted)):
        if our is not None and their is not None:  # of those who go on decoding nobody asks
            their.computed = {name: their.computed[name] for name in our.computed if name in their.computed}
        assert our == their, f"step {number} of {made}"
    counts["steps"] += len(wanted)
    counts["preempted"] += sum(len(decision.preempted) for decision in wanted)
    counts[made.settings.async_scheduling] += 1


def test_with_a_policy_inside_every_decision_is_vllms() -> None:
    counts: dict[str, Counter[Any]] = {policy: Counter() for policy in POLICIES}
    for number in range(FIRST, FIRST + WORKLOADS):
        policy, kind = POLICIES[number % len(POLICIES)], KINDS[number // len(POLICIES) % len(KINDS)]
        decided_alike(placed(kind(number), number, policy), TheirsInside, counts[policy])
    if WORKLOADS >= 100:
        assert all(seen[False] and seen[True] for seen in counts.values())
        assert all(seen["steps"] > 1000 for seen in counts.values())
        assert min(counts[policy]["preempted"] for policy in ("srpt", OWN)) > 100


def test_with_the_key_as_priority_every_decision_is_vllms() -> None:
    counts: Counter[Any] = Counter()
    for number in range(FIRST, FIRST + WORKLOADS // 4):
        decided_alike(ranked(KINDS[number % 4](number), RANKED[number % len(RANKED)]), TheirsRanked, counts)
    assert counts["steps"] > 1000


def test_the_running_order_is_asked_for_nothing_without_these_methods() -> None:
    """A policy that only orders costs vLLM no more than the queue."""
    from driftsim.live.scheduler import InsideScheduler

    place = placed(case(0), 0, "sjf").place()
    assert not place.preempting
    assert not place.chooses_victim
    assert InsideScheduler.__mro__[1].__name__ == "Traced"
