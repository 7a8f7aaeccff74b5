"""The table of all faults: those that were once not seen come first."""

from __future__ import annotations

from tests.mutants import (
    caching,
    conversing,
    dispatching,
    edges,
    engine,
    estimating,
    fitting,
    fronting,
    importing,
    judging,
    living,
    measuring,
    ordering,
    placing,
    searching,
    serving,
    sizing,
    storing,
    survivors,
    valuing,
)

FAULTS = [
    *survivors.FAULTS,
    *edges.FAULTS,
    *caching.FAULTS,
    *conversing.FAULTS,
    *engine.FAULTS,
    *dispatching.FAULTS,
    *ordering.FAULTS,
    *placing.FAULTS,
    *searching.FAULTS,
    *estimating.FAULTS,
    *fitting.FAULTS,
    *measuring.FAULTS,
    *serving.FAULTS,
    *judging.FAULTS,
    *sizing.FAULTS,
    *valuing.FAULTS,
    *storing.FAULTS,
    *living.FAULTS,
    *importing.FAULTS,
    *fronting.FAULTS,
]
