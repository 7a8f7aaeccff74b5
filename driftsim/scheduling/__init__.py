"""Everything before the engine, the same code simulated and live; it has no clock."""
