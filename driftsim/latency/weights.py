"""How the weights of a model are stored and multiplied."""

from __future__ import annotations

from typing import Literal

WeightType = Literal["bf16", "fp16", "fp8"]
