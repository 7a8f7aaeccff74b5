"""Names that users write for how requests are counted and estimated."""

from __future__ import annotations

from typing import Literal

Unit = Literal["tokenizer", "whitespace"]
Label = Literal["seen", "stripped"]
Base = Literal["reference", "caps", "fit"]
Feedback = Literal["base", "estimate"]
Estimates = Literal["frozen", "refreshed"]
