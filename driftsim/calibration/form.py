"""The form of a step-time model: which terms it has."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from driftsim.latency.steptime import GRAPH_SIZES, TERMS, term_values

HIDDEN = (64, 128, 192, 256, 384, 512)


@dataclass(frozen=True, slots=True)
class Form:
    """Which terms a step-time model has, and what its columns are made of."""

    terms: tuple[str, ...] = TERMS[:4]
    hidden_tokens: int = 0
    graphs: bool = False

    def __str__(self) -> str:
        extra = [term.replace("_", " ") for term in self.terms if term not in TERMS[:4]]
        if self.hidden_tokens:
            extra.append(f"{self.hidden_tokens} hidden tokens")
        if self.graphs:
            extra.append("CUDA graph sizes")
        return " + ".join(["linear", *extra])

    def columns(self, steps: pd.DataFrame) -> np.ndarray:
        """The values of the terms in each of ``steps``, (steps, terms)."""
        values = term_values(steps, self.hidden_tokens, GRAPH_SIZES if self.graphs else ())
        return np.column_stack([values[term] for term in self.terms])

    def richer(self) -> list[Form]:
        """Forms with one thing more than this one, simplest first."""
        forms = [replace(self, terms=(*self.terms, term)) for term in TERMS[4:] if term not in self.terms]
        if not self.hidden_tokens:
            forms += [replace(self, hidden_tokens=tokens) for tokens in HIDDEN]
        if not self.graphs:
            forms.append(replace(self, graphs=True))
        return forms
