"""vLLM's scheduler."""

from __future__ import annotations

MIRRORED_VLLM = "0.32.0"  # the version whose decisions the conformance suite holds the engine to
