"""How a workload is drawn several times: a recorded day with resamples of it, or independent draws."""

from __future__ import annotations

from typing import Any, TypeAlias

from driftsim.simulation.spec import ScenarioSpec

WARM_UP, COOL_DOWN = 0.1, 0.05  # shares of the requests that do not count, the first and the last to arrive
Draw: TypeAlias = tuple[str, dict[str, Any]]


def draws_of(spec: ScenarioSpec, replications: int) -> list[Draw]:
    """The kind of each replication of ``spec``, and the keys of a scenario that draw it.

    Of a workload, independent draws; of a trace, the recorded day and one less resamples of either kind.

    >>> [kind for kind, _ in draws_of(ScenarioSpec(trace="run"), 3)]
    ['recorded', 'local', 'local', 'circular', 'circular']
    """
    numbers = range(1, replications)
    if spec.workload is not None:
        return [("drawn", {"replication": number}) for number in (0, *numbers)]
    kinds = [(kind, number) for kind in ("local", "circular") for number in numbers]
    return [
        ("recorded", {"replication": 0}),
        *((kind, {"replication": number, "resampling": kind}) for kind, number in kinds),
    ]
