"""Running real engines: nothing else in driftsim knows vLLM, processes or wall clocks."""
