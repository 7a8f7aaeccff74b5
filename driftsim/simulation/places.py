"""An engine with a policy inside, made of any other engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from driftsim.engine.inside import InsideEngine, inside
from driftsim.engine.sequence import Sequence
from driftsim.scheduling.dispatcher import Departure, Engine
from driftsim.scheduling.inside import Inside


def engine_with(
    place: Inside, kind: Callable[..., Engine], departure: Callable[[Sequence], Departure]
) -> Callable[..., InsideEngine]:
    """An engine of ``kind`` that asks the policy in ``place``, which learns what ``departure`` tells."""
    assert isinstance(kind, type)  # no barrier's worker: see ``Scenario``
    return partial(inside(kind), place, departure)
