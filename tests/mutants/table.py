"""The table of all faults: those that were once not seen come first."""

from __future__ import annotations

from tests.mutants import (
    caching,
    dispatching,
    engine,
    estimating,
    importing,
    judging,
    living,
    measuring,
    storing,
    survivors,
)

FAULTS = [
    *survivors.FAULTS,
    *caching.FAULTS,
    *engine.FAULTS,
    *dispatching.FAULTS,
    *estimating.FAULTS,
    *measuring.FAULTS,
    *judging.FAULTS,
    *storing.FAULTS,
    *living.FAULTS,
    *importing.FAULTS,
]
