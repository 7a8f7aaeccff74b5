"""The table of all faults: those that were once not seen come first."""

from __future__ import annotations

from tests.mutants import (
    caching,
    conversing,
    dispatching,
    engine,
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
    *conversing.FAULTS,
    *engine.FAULTS,
    *dispatching.FAULTS,
    *measuring.FAULTS,
    *judging.FAULTS,
    *storing.FAULTS,
    *living.FAULTS,
    *importing.FAULTS,
]
