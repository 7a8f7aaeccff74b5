"""Names that users write for what a capture runs."""

from __future__ import annotations

from typing import Literal

EngineKind = Literal["vllm", "openai"]
WorkloadName = Literal["drift", "reference"]
CapTable = Literal["natural", "reference"]
Order = Literal["latin", "random", "fixed"]
