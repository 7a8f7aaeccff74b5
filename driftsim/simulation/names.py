"""Names that users write: the engines that can be simulated, and where step times come from."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["continuous", "barrier"]
FitSource = Literal["auto", "steps", "requests"]
StepSource = Literal["model", "noise", "measured"]
