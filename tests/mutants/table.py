"""The table of all faults: those that were once not seen come first."""

from __future__ import annotations

from tests.mutants import dispatching, engine, measuring, survivors

FAULTS = [*survivors.FAULTS, *engine.FAULTS, *dispatching.FAULTS, *measuring.FAULTS]
