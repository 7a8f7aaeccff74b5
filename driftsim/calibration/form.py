"""The form of a step-time model: which terms it has."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from driftsim.latency.steptime import GRAPH_SIZES, LAUNCH, TERMS, launched, term_values, tied_tokens

FEW = 2  # times a CUDA graph's tokens, up to which a prefill is first taken to be computed while it is launched


@dataclass(frozen=True, slots=True)
class Form:
    """Which terms a step-time model has, and what its columns are made of.

    ``roofline``: a step takes the intercept, in which the weights are read, or the time to compute all its tokens,
    whichever is longer (Williams, Waterman and Patterson 2009). ``hidden_tokens`` is then where the two are equal, and
    no parameter of its own. ``launched``: a step that prefills, of more than ``graph_tokens`` tokens, takes as long as
    the host launches it, if the GPU is done sooner; the last term is then ``LAUNCH``, and ``guess`` are the
    coefficients (s) that say which of the two it is. ``graph_tokens`` 0: that is not tried.
    """

    terms: tuple[str, ...] = TERMS[:4]
    hidden_tokens: int = 0
    graphs: bool = False
    roofline: bool = False
    graph_tokens: int = 0
    launched: bool = False
    guess: tuple[float, ...] = ()

    def __str__(self) -> str:
        extra = [term.replace("_", " ") for term in self.terms if term not in TERMS[:4]]
        if self.graphs:
            extra.append("CUDA graph sizes")
        if self.launched:
            extra.remove(LAUNCH)
            extra.append("launch by the host")
        return " + ".join(["roofline" if self.roofline else "linear", *extra])

    def columns(self, steps: pd.DataFrame) -> np.ndarray:
        """The values of the terms in each of ``steps``, (steps, terms).

        Under a roofline the intercept is paid by the steps of up to ``hidden_tokens``, and by the others all tokens.
        """
        values = term_values(steps, self.hidden_tokens, GRAPH_SIZES if self.graphs else ())
        values[LAUNCH] = launched(steps, self.graph_tokens).astype(float)
        if self.roofline and self.hidden_tokens:
            computed = values["prefill_token"] > 0
            values["intercept"] = np.where(computed, 0.0, values["intercept"])
            values["prefill_token"] = np.where(computed, values["prefill_token"] + self.hidden_tokens, 0.0)
        return np.column_stack([values[term] for term in self.terms])

    def tied(self, values: np.ndarray) -> Form:
        """This form with what the coefficients ``values`` (s) say of its roofline and its launches, if it has any.

        >>> Form(roofline=True).tied(np.array([0.012, 4e-5, 0.0, 0.0])).hidden_tokens
        300
        """
        tied = replace(self, guess=tuple(values.tolist())) if self.launched else self
        if not self.roofline:
            return tied
        known = dict(zip(self.terms, values.tolist(), strict=False))
        hidden = tied_tokens(known.get("intercept", 0.0), known.get("prefill_token", 0.0))
        return replace(tied, hidden_tokens=hidden)

    def waits_for_the_host(self, columns: np.ndarray, prefill: np.ndarray) -> np.ndarray:
        """Which rows, by their ``columns`` of which the launches are the last, take as long as their launches.

        Without a ``guess`` those with few ``prefill`` tokens.
        """
        if not self.guess:
            return np.asarray((columns[:, -1] > 0) & (prefill < FEW * self.graph_tokens * columns[:, -1]))
        known = np.array(self.guess)
        return np.asarray(columns[:, -1] * known[-1] > columns[:, :-1] @ known[:-1])

    def richer(self) -> list[Form]:
        """Forms with one thing more than this one, simplest first."""
        if self.launched:
            return []
        forms = [replace(self, terms=(*self.terms, term)) for term in TERMS[4:] if term not in self.terms]
        if not self.roofline:
            forms.append(replace(self, roofline=True))
        if not self.graphs:
            forms.append(replace(self, graphs=True))
        if self.graph_tokens:
            terms = (*(term for term in self.terms if term != "prefill_step"), LAUNCH)
            forms.append(replace(self, terms=terms, launched=True))
        return forms
