"""The form of a step-time model: which terms it has."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from driftsim.latency.steptime import GRAPH_SIZES, TERMS, term_values, tied_tokens


@dataclass(frozen=True, slots=True)
class Form:
    """Which terms a step-time model has, and what its columns are made of.

    ``roofline``: a step takes the intercept, in which the weights are read, or the time to compute all its tokens,
    whichever is longer (Williams, Waterman and Patterson 2009). ``hidden_tokens`` is then where the two are equal, and
    no parameter of its own.
    """

    terms: tuple[str, ...] = TERMS[:4]
    hidden_tokens: int = 0
    graphs: bool = False
    roofline: bool = False

    def __str__(self) -> str:
        extra = [term.replace("_", " ") for term in self.terms if term not in TERMS[:4]]
        if self.graphs:
            extra.append("CUDA graph sizes")
        return " + ".join(["roofline" if self.roofline else "linear", *extra])

    def columns(self, steps: pd.DataFrame) -> np.ndarray:
        """The values of the terms in each of ``steps``, (steps, terms).

        Under a roofline the intercept is paid by the steps of up to ``hidden_tokens``, and by the others all tokens.
        """
        values = term_values(steps, self.hidden_tokens, GRAPH_SIZES if self.graphs else ())
        if self.roofline and self.hidden_tokens:
            computed = values["prefill_token"] > 0
            values["intercept"] = np.where(computed, 0.0, values["intercept"])
            values["prefill_token"] = np.where(computed, values["prefill_token"] + self.hidden_tokens, 0.0)
        return np.column_stack([values[term] for term in self.terms])

    def tied(self, values: np.ndarray) -> Form:
        """This form with the hidden tokens of its roofline, if it has one, that the coefficients ``values`` (s) say.

        >>> Form(roofline=True).tied(np.array([0.012, 4e-5, 0.0, 0.0])).hidden_tokens
        300
        """
        if not self.roofline:
            return self
        known = dict(zip(self.terms, values.tolist(), strict=False))
        return replace(self, hidden_tokens=tied_tokens(known.get("intercept", 0.0), known.get("prefill_token", 0.0)))

    def richer(self) -> list[Form]:
        """Forms with one thing more than this one, simplest first."""
        forms = [replace(self, terms=(*self.terms, term)) for term in TERMS[4:] if term not in self.terms]
        if not self.roofline:
            forms.append(replace(self, roofline=True))
        if not self.graphs:
            forms.append(replace(self, graphs=True))
        return forms
