"""Names that users write: the engines that can be simulated, and where step times come from."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["continuous", "barrier"]
FitSource = Literal["auto", "steps", "requests"]
BATCHED = "microbatch"  # what the header of a run of the barrier's worker calls its engine
StepSource = Literal["model", "noise", "measured"]
