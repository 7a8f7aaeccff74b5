"""Kinds of arrival processes, by the name that users write."""

from __future__ import annotations

from typing import Literal

ArrivalKind = Literal["poisson", "uniform", "gamma", "closed", "backlog"]
