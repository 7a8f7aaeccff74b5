"""Where a policy stands: in front of the engine, as the engine's integer priorities, or inside the engine."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence

from driftsim.errors import InputError
from driftsim.request import Job
from driftsim.scheduling.names import Place
from driftsim.scheduling.policies import STOCK, policy_class
from driftsim.scheduling.queues import Policy, why_not_static
from driftsim.tiers import TierRule

SIGN = 0x7FFF_FFFF_FFFF_FFFF


def as_priority(key: float) -> int:
    """``key`` as a 64-bit integer in the same order, for an engine that serves the smallest first; equal ones stay so.

    A double's bits, read as an integer, are in the order of the doubles above 0; below 0 the order is turned about.
    Infinity has a place, too. vLLM takes any integer of 64 bits with a sign (protocol.py, ``priority``; over
    MessagePack in v1/engine/__init__.py), and serves equal ones in order of arrival.

    >>> as_priority(0.0), as_priority(1.0) < as_priority(1.5), as_priority(-1.5) < as_priority(-1.0) < 0
    (0, True, True)
    >>> -(2**63) <= as_priority(float("-inf")) < as_priority(float("inf")) < 2**63
    True
    """
    bits: int = struct.unpack("<q", struct.pack("<d", key))[0]
    return bits if bits >= 0 else -(bits & SIGN)


class Ranked:
    """Everybody goes in at once, in order of arrival, with the policy's key as the job's ``priority``.

    >>> from driftsim.request import Request, Tier
    >>> from driftsim.scheduling.policies import make_policy
    >>> queue = Ranked(make_policy("sjf"))
    >>> for budget in (30, 20):
    ...     queue.push(Job(Request("r", "a", Tier.BATCH, "", 0.0, 9, None, 64), "", 0, budget), now=0.0)
    >>> first, second = queue.pop(0.0), queue.pop(0.0)
    >>> first.budget, first.priority > second.priority
    (30, True)
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._queue = deque[Job]()
        if hasattr(policy, "served"):
            self.served = policy.served

    def push(self, job: Job, now: float) -> None:
        """Take ``job`` in, with its priority for good."""
        key = self.policy.key(job)  # type: ignore[attr-defined]  # see ``check_place``
        if key is None or key != key:
            raise InputError(f"the policy {type(self.policy).__name__} gave {key} as a key; a key is a number")
        job.priority = as_priority(key)
        self._queue.append(job)

    def pop(self, now: float) -> Job:
        """Remove and return the job that came first."""
        return self._queue.popleft()

    def __len__(self) -> int:
        return len(self._queue)


def check_place(
    place: Place,
    policy: str,
    *,
    estimates: str = "frozen",
    max_in_flight: int | None = None,
    tiers: Sequence[TierRule] = (),
    shed: Sequence[object] = (),
) -> None:
    """Raise ``InputError`` for what cannot go together with a policy that does not stand in front of the engine.

    >>> check_place("priority", "vtc")
    Traceback (most recent call last):
    driftsim.errors.InputError: vtc cannot be handed to the engine as a priority: its order follows the service that \
others get meanwhile; take place inside or front
    """
    if place == "front":
        return
    if place == "priority" and policy != STOCK and (why := why_not_static(policy_class(policy))):
        raise InputError(f"{policy} cannot be handed to the engine as a priority: {why}; take place inside or front")
    if place == "priority" and estimates == "refreshed":
        raise InputError("place priority fixes each key when its request comes, so estimates cannot be refreshed")
    alone = f"is of the queue in front of the engine, and with place {place} nobody waits there"
    if max_in_flight is not None:
        raise InputError(f"max_in_flight {alone}; leave one of the two out")
    if any(rule.max_in_flight is not None for rule in tiers):
        raise InputError(f"max_in_flight of a tier {alone}; leave one of the two out")
    if shed:
        raise InputError(f"shed {alone}; leave one of the two out, or let the engine shed (max_num_queued_reqs)")
