"""Kinds of arrival processes and of length distributions, by the names that users write."""

from __future__ import annotations

from typing import Literal

ArrivalKind = Literal["poisson", "uniform", "gamma", "mmpp", "diurnal", "closed", "backlog"]
LengthKind = Literal["constant", "uniform", "lognormal", "geometric", "empirical"]
TimeKind = Literal["constant", "uniform", "exponential", "lognormal"]
SessionKind = Literal["chat", "agent"]
