"""Running real engines: nothing else in driftsim knows vLLM, processes or wall clocks."""

import os

# Read by vLLM as it is imported, in this process and in its children: progress is ours to show, errors are its.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
